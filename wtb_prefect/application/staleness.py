"""What a stale cell runs again: from the first node that changed, as far as the graph tells."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wtb_prefect.domain.batch_test import BatchCell
from wtb_prefect.domain.workflow import TestWorkflow

NODE = "node "
EVALUATOR = "evaluator "
EXPECTED = "expected"
ANSWERS = "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleKind:
    """Cells that are stale for the same reason, and in words from where they will run again.

    `kept`: they will not, because they were asked to be left as they are.
    """

    changed: tuple[str, ...]
    cells: int
    again: str
    kept: bool


def changes(old: BatchCell, new: BatchCell) -> tuple[str, ...]:
    """The names of the fingerprints in which a recorded cell and today's differ."""
    names = {*old.fingerprints, *new.fingerprints}
    return tuple(n for n in sorted(names) if old.fingerprints.get(n) != new.fingerprints.get(n))


def stale_kinds(
    found: Iterable[tuple[tuple[str, ...], bool]], workflow: TestWorkflow, *, restarts: bool
) -> tuple[StaleKind, ...]:
    """Stale cells, given as (what changed, whether kept), by kind; the most frequent first.

    `restarts`: nothing can be gone on from, every run begins at the start.
    """
    before = ancestors(workflow)
    return tuple(
        StaleKind(
            changed=changed,
            cells=cells,
            again=_again(changed, before, restarts=restarts),
            kept=kept,
        )
        for (changed, kept), cells in Counter(found).most_common()
    )


def ancestors(workflow: TestWorkflow) -> dict[str, set[str]]:
    """Nodes that may run before each node, by any path."""
    targets: dict[str, set[str]] = defaultdict(set)
    for edge in workflow.edges:
        targets[edge.source].add(edge.target)
    before: dict[str, set[str]] = {node: set() for node in workflow.node_names()}
    for start in workflow.node_names():
        stack, seen = list(targets[start]), set[str]()
        while stack:
            node = stack.pop()
            if node in seen or node not in before:
                continue
            seen.add(node)
            before[node].add(start)
            stack.extend(targets[node])
    return before


def _again(changed: Sequence[str], before: Mapping[str, set[str]], *, restarts: bool) -> str:
    runs = [n for n in changed if n != EXPECTED and not n.startswith(EVALUATOR)]
    if not runs:
        return "scored again"
    nodes = [n.removeprefix(NODE) for n in runs if n.startswith(NODE)]
    others = [n for n in runs if not n.startswith(NODE)]
    if restarts or any(n != ANSWERS for n in others):
        return "run again from the start"
    first = _first(nodes, before) + (["the first question"] if others else [])
    return f"run again from {' and '.join(first)}"


def _first(nodes: Sequence[str], before: Mapping[str, set[str]]) -> list[str]:
    """The nodes before which none of the others runs; of those in one loop, the first declared."""
    place = {name: number for number, name in enumerate(before)}

    def comes_first(one: str, other: str) -> bool:
        if one not in before.get(other, ()):
            return False
        return other not in before.get(one, ()) or place[one] < place[other]

    return [n for n in nodes if not any(comes_first(other, n) for other in nodes)]
