"""Another variant of one node for every cell of a batch: a batch that forks where the node runs."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from wtb_prefect.application.plan_batch import BatchRequest, stored_request
from wtb_prefect.application.session import Session
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.workflow import ORIGINAL
from wtb_prefect.errors import NotFoundError


def branched_request(
    batch_id: str, node: str, variant: str, new_id: str | None, session: Session
) -> BatchRequest:
    """Each combination of the batch with this variant, over the same cases and repeats.

    It takes over what the batch recorded, so that each of its cells goes on from the checkpoint
    just before the node. `new_id` None: made from the four things that are asked for.

    Raises `NotFoundError` for an unknown batch or node; the plan checks the variant.
    """
    if node not in (known := session.engine.describe().node_names()):
        raise NotFoundError("node", node, known)
    source = stored_request(batch_id, session)
    combinations: list[dict[str, str]] = []
    for choices in cast("list[dict[str, str]]", source.matrix):  # as it is stored
        branched = {**choices, node: variant}
        if variant == ORIGINAL:
            del branched[node]
        if branched not in combinations:
            combinations.append(branched)
    made_of = (session.project.name, batch_id, node, variant)
    return replace(
        source,
        matrix=combinations,
        batch_id=new_id or stable_id("branched batch", *made_of),
        # Combinations have other names now; which cases were asked for stays.
        only=None if source.only is None else replace(source.only, combinations=()),
    )
