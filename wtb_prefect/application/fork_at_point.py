"""Beginning an execution at a checkpoint in the middle of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wtb_prefect.application.begin_segment import Begin
from wtb_prefect.application.find_past import inherited_of
from wtb_prefect.application.read_history import boundaries_behind
from wtb_prefect.application.stores import Stores
from wtb_prefect.domain.checkpoint import Checkpoint, SubgraphHeads, subgraph_heads
from wtb_prefect.domain.execution import Execution, Inherited, Lineage
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId, thread_id
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.lineage import visits_until
from wtb_prefect.errors import LedgerError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkPoint:
    """A checkpoint to begin at: on whose thread it is, its record, and what lies behind it.

    `standing` are the memories of subgraphs there. What is pending at the checkpoint is no part of
    it: every node of its next super-step runs.
    """

    holder: str
    link: CheckpointFileLink
    standing: Mapping[str, CheckpointId]
    behind: Inherited


def fork_point(uow: UnitOfWork, holder: str, point: Checkpoint) -> ForkPoint:
    """The point on the thread of `holder`. Raises `LedgerError` if the ledger lacks its record."""
    recorded = uow.checkpoint_files.list(holder)
    links = links_to(recorded, point)
    visits = boundaries_behind(uow, uow.executions.lineage(holder))
    own = visits_until(uow.node_boundaries.list(holder), recorded, point.checkpoint_id)
    behind = [visit for visit in visits if visit.execution_id != holder] + own
    return ForkPoint(
        holder=holder,
        link=links[-1],
        standing=subgraph_heads(links).standing,
        behind=inherited_of(behind),
    )


def links_to(
    links: Sequence[CheckpointFileLink], point: Checkpoint
) -> Sequence[CheckpointFileLink]:
    """The records of an execution up to a checkpoint of the top graph, itself included."""
    for place, link in enumerate(links, 1):
        if link.checkpoint_id == point.checkpoint_id and not link.pending and not link.namespace:
            return links[:place]
    raise LedgerError(f"checkpoint {point.checkpoint_id} is in the store and not in the ledger")


def begin_links(execution_id: str, point: ForkPoint) -> list[CheckpointFileLink]:
    """The first records of an execution that begins there, numbered from 0."""
    link = replace(point.link, execution_id=execution_id, nodes=(), parent_checkpoint_id=None)
    memories = [
        replace(link, namespace=namespace, checkpoint_id=head, pending=True)
        for namespace, head in point.standing.items()
    ]
    return [replace(one, sequence=n) for n, one in enumerate([*memories, link])]


def begin_at_point(
    execution: Execution, point: ForkPoint, answers: Mapping[str, int], stores: Stores
) -> Begin:
    """Copies the checkpoint into the execution's thread; its row is the caller's to write.

    `answers` are those of the execution that is forked; what it got after the point is left out.
    """
    link = point.link
    stores.checkpoints.fork(
        thread_id(point.holder),
        link.checkpoint_id,
        thread_id(execution.execution_id),
        point.standing,
        with_writes=False,
    )
    forked = replace(
        execution,
        lineage=Lineage(
            parent_id=point.holder, checkpoint_id=link.checkpoint_id, commit_id=link.commit_id
        ),
        head=link.checkpoint_id,
        step=link.step,
        commit_id=link.commit_id,
        answers={q: n for q, n in answers.items() if n < link.answers},
        inherited=point.behind,
    )
    return Begin(
        execution=forked,
        heads=SubgraphHeads(standing=point.standing),
        store_id=link.store_id,
        inherited=link.answers,
    )
