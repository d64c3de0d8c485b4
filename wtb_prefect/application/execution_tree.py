"""The fork tree of one case and repeat: which choices are settled, where the parts go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from wtb_prefect.domain.batch_test import VariantCombination
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What is run for an item: the id of its execution, settled choices, nodes still open.

    `choices` are the settled ones of the nodes that the request names; `gated` the open ones.
    """

    execution_id: str
    choices: Mapping[str, str]
    gated: tuple[str, ...]


def stretch_of(
    item: WorkItem,
    combinations: Mapping[str, VariantCombination],
    batch_id: str,
    roots: Sequence[str],
    fingerprint: Callable[[str, str], str],
) -> Stretch:
    """The stretch an item stands for; the same item always stands for the same execution id.

    `roots` are the fingerprints everything depends on (graph, unvaried nodes, case, files): the
    code of the settled choices is part of the id too, so that an edited node gives a new one.
    """
    together = [combinations[name] for name in item.combinations]
    nodes = sorted({node for combination in together for node, _ in combination.choices})
    choices: dict[str, str] = {}
    gated: list[str] = []
    for node in nodes:
        names = {combination.variant_of(node) for combination in together}
        if len(names) == 1:
            choices[node] = names.pop()
        else:
            gated.append(node)
    settled = [[node, name, fingerprint(node, name)] for node, name in sorted(choices.items())]
    execution_id = stable_id(
        "execution",
        batch_id,
        item.case_id,
        item.repeat,
        [list(step) for step in item.path],
        settled,
        gated,
        item.shared,
        list(roots),
    )
    return Stretch(execution_id=execution_id, choices=choices, gated=tuple(gated))


def split(
    item: WorkItem, node: str, parent_id: str, combinations: Mapping[str, VariantCombination]
) -> tuple[WorkItem, ...]:
    """The parts of an item after a gate: one per variant of `node`, in the order of the request.

    Parts in which every combination has its answer already are left out.
    """
    parts: dict[str, list[str]] = {}
    for name in item.combinations:
        parts.setdefault(combinations[name].variant_of(node), []).append(name)
    children = (
        replace(
            item,
            combinations=tuple(names),
            wanted=tuple(name for name in names if name in item.wanted),
            path=(*item.path, (node, variant)),
            parent_id=parent_id,
        )
        for variant, names in parts.items()
    )
    return tuple(child for child in children if child.wanted)


def unshare(item: WorkItem, reason: str) -> tuple[WorkItem, ...]:
    """One item per wanted combination, each from the start and on its own."""
    return tuple(
        replace(
            item,
            combinations=(name,),
            wanted=(name,),
            path=(),
            parent_id=None,
            shared=False,
            unshared_reason=reason,
        )
        for name in item.wanted
    )
