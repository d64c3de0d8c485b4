"""The latest recorded checkpoint whose past is the same: where a new execution may begin.

A checkpoint can be gone on from when every node visited up to it is settled in the new execution
and its code is what it was, for the same case and repeat, the same graph and the same files. One
search serves an edited node, a variant that is new, and what another batch has done already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wtb_prefect.application.execution_tree import Stretch
from wtb_prefect.application.mock_nodes import mock_roots
from wtb_prefect.application.session import BatchScope, Past, PreparedCase, Session
from wtb_prefect.domain.checkpoint import SubgraphHeads, subgraph_heads
from wtb_prefect.domain.execution import Execution, ExecutionKind, Inherited, Lineage
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId, digest, thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.lineage import first_sequences, links_until, place_of, visits_until
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.workflow import ORIGINAL

_OPAQUE = "?"
_INSIDE = "|"
_RECENT = 64
"""Pasts kept by a worker: at most this many cases are in flight."""

_ALL = 1 << 62
"""No record of an execution comes after this one."""

_STEPS_LEFT = 3
"""LangGraph begins no run with fewer steps than this left to its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPoint:
    """A checkpoint of an earlier execution to go on from; `recorded` are all of its records.

    `whole`: all of a trunk that stopped at a gate, with the work its siblings have finished there.
    """

    donor: Execution
    link: CheckpointFileLink
    whole: bool
    recorded: Sequence[CheckpointFileLink]

    @property
    def last(self) -> CheckpointFileLink:
        """The last record of what is taken over: its files, store and answers are those to have."""
        return self.recorded[-1] if self.whole else self.link

    @property
    def heads(self) -> SubgraphHeads:
        """Where the subgraphs of that execution stood."""
        until = self.link.checkpoint_id
        return subgraph_heads(self.recorded if self.whole else links_until(self.recorded, until))


def past_reasons(session: Session) -> tuple[str, ...]:
    """Why nothing of this graph can be taken over from earlier runs; empty if it can.

    Those of forks, as if every node varied: an execution may begin between any two of them.
    """
    engine = session.engine
    return engine.unshared_reasons(engine.describe().node_names())


def root_key(item: WorkItem, prepared: PreparedCase, scope: BatchScope, session: Session) -> str:
    """What an execution has to have in common with another to go on from its checkpoints.

    A graph whose identity is incomplete is the same within its batch only.
    """
    graph = session.engine.describe().fingerprint
    return digest(
        "root",
        scope.reuse,
        graph,
        scope.batch_id if graph.startswith(_OPAQUE) else None,
        prepared.fingerprints.case,
        prepared.commit_id,
        item.case_id,
        item.repeat,
        session.project.recursion_limit,
        *mock_roots(item, scope, session),
    )


def find_past(
    execution: Execution,
    stretch: Stretch,
    parent: Execution | None,
    scope: BatchScope,
    session: Session,
) -> PastPoint | None:
    """Where a new execution may begin; None: at its parent, or at the start.

    Only what is farther than the parent counts. Unshared executions begin at the start: to be
    independent is what they are for.
    """
    if not scope.has_past or execution.unshared_reason is not None or execution.root_key is None:
        return None
    past = _past_of(execution.root_key, scope, session)
    if not past.executions:
        return None
    search = _Search(past, _Wanted(execution, stretch, session))
    for point in search.points(parent):
        # Checkpoints of finished trunks may have been cleared away since.
        source = thread_id(point.donor.execution_id)
        if session.checkpoints.exists(source, point.link.checkpoint_id):
            return point
    return None


def begin_there(
    point: PastPoint, execution: Execution, scope: BatchScope, session: Session
) -> Execution:
    """The new execution as a fork of an earlier one; its row follows with its first record."""
    past = _past_of(execution.root_key or "", scope, session)
    donor, checkpoint_id, commit_id = point.donor, point.link.checkpoint_id, point.last.commit_id
    session.checkpoints.fork(
        thread_id(donor.execution_id),
        checkpoint_id,
        thread_id(execution.execution_id),
        point.heads.all,
        with_writes=point.whole,
    )
    return replace(
        execution,
        lineage=Lineage(
            parent_id=donor.execution_id, checkpoint_id=checkpoint_id, commit_id=commit_id
        ),
        head=checkpoint_id,
        step=point.link.step,
        commit_id=commit_id,
        answers=donor.answers,
        inherited=inherited_from(past, point),
    )


def inherited_from(past: Past, point: PastPoint) -> Inherited:
    """What lies behind a point, over the lineage of its execution: a whole ancestor as its row
    says, what was left in the middle as its visits say (parallel ones take the longest's time)."""
    donor = point.donor
    parts = [_of_row(donor) if point.whole else _of_visits(past, point)]
    while donor.inherited is None and donor.lineage is not None:
        donor = past.executions[donor.lineage.parent_id]
        parts.append(_of_row(donor))
    parts += [] if donor.inherited is None else [donor.inherited]
    return Inherited(
        node_executions=sum(part.node_executions for part in parts),
        cache_hits=sum(part.cache_hits for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        duration=sum(part.duration for part in parts),
        pending=point.whole,
    )


def _of_row(execution: Execution) -> Inherited:
    return Inherited(
        node_executions=execution.node_executions,
        cache_hits=execution.cache_hits,
        input_tokens=execution.input_tokens,
        output_tokens=execution.output_tokens,
        duration=execution.duration,
    )


def _of_visits(past: Past, point: PastPoint) -> Inherited:
    recorded = past.boundaries.get(point.donor.execution_id, ())
    return inherited_of(visits_until(recorded, point.recorded, point.link.checkpoint_id))


def inherited_of(visits: Sequence[NodeBoundary]) -> Inherited:
    """What visits have cost."""
    steps: dict[int, float] = {}
    for visit in visits:
        if not visit.namespace:  # a subgraph's time is part of its mount's
            steps[visit.step] = max(steps.get(visit.step, 0.0), visit.duration)
    return Inherited(
        node_executions=sum(visit.calls for visit in visits),
        cache_hits=sum(visit.cached for visit in visits),
        input_tokens=sum(visit.input_tokens for visit in visits),
        output_tokens=sum(visit.output_tokens for visit in visits),
        duration=sum(steps.values()),
    )


def _past_of(key: str, scope: BatchScope, session: Session) -> Past:
    """What runs before this one recorded under a root key; it does not change while this runs."""
    known = scope.recent_pasts.get(key)
    if known is None:
        if len(scope.recent_pasts) >= _RECENT:
            scope.recent_pasts.clear()
        with session.open_uow() as uow:
            known = scope.recent_pasts[key] = _read_past(uow, key, scope)
    return known


def _read_past(uow: UnitOfWork, key: str, scope: BatchScope) -> Past:
    earlier = [e for e in uow.executions.list_by_root(key) if e.created_at < scope.began]
    donors = {e.execution_id: e for e in earlier if _may_give(e)}
    return Past(
        executions=donors,
        links=uow.checkpoint_files.list_many(list(donors)),
        boundaries=uow.node_boundaries.list_many(list(donors)),
    )


def _may_give(execution: Execution) -> bool:
    """Unshared ones may have lived on what no checkpoint holds; canned nodes did not run."""
    return (
        execution.kind is not ExecutionKind.RUN
        and execution.unshared_reason is None
        and not execution.metadata.get("mocked")
    )


@dataclass(slots=True)
class _Wanted:
    """Which visits the new execution would have made just the same."""

    execution: Execution
    stretch: Stretch
    session: Session
    _prints: dict[str, str | None] = field(default_factory=dict)
    _nodes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self._nodes = frozenset(self.session.engine.describe().node_names())

    def covers(self, visit: NodeBoundary, donor: Execution) -> bool:
        """Whether its node is settled, and settled on the code that ran."""
        if visit.node not in self._prints:
            self._prints[visit.node] = self._fingerprint(visit.node)
        wanted = self._prints[visit.node]
        if wanted is None or wanted != visit.fingerprint:
            return False
        return not wanted.startswith(_OPAQUE) or donor.batch_id == self.execution.batch_id

    def takes(self, point: PastPoint) -> bool:
        """Whether there are steps left to run, and questions asked so far, if any, had the answers
        they would have now."""
        now, then = self.execution.metadata, point.donor.metadata
        return self.session.project.recursion_limit - point.link.step >= _STEPS_LEFT and (
            point.last.answers == 0 or now.get("answers") == then.get("answers")
        )

    def _fingerprint(self, node: str) -> str | None:
        parts = node.split(_INSIDE)
        paths = [_INSIDE.join(parts[:end]) for end in range(1, len(parts) + 1)]
        if any(path in self.stretch.gated for path in paths):
            return None
        choices = self.stretch.choices
        if node not in self._nodes and all(choices.get(p, ORIGINAL) == ORIGINAL for p in paths):
            return None  # a node of a variant that is a graph of its own, which is not chosen
        return self.session.engine.implementation_of(node, choices)[1]


def _is_farther(point: PastPoint, parent: Execution) -> bool:
    """Also at the same checkpoint: gates of one step are peeled, and what a part of them ran there
    is pending in it."""
    if point.link.step == parent.step:
        return point.whole and len(point.donor.path) > len(parent.path)
    return point.link.step > parent.step


@dataclass(slots=True)
class _Search:
    """How far each earlier execution went as the new one would."""

    past: Past
    wanted: _Wanted
    _limits: dict[str, int] = field(default_factory=dict)
    _sequences: dict[str, Mapping[CheckpointId, int]] = field(default_factory=dict)

    def points(self, parent: Execution | None) -> list[PastPoint]:
        """The usable checkpoints farther than the parent, the farthest first.

        Those of a child lie behind its parent's head: siblings keep the draw they share.
        """
        found = [
            point
            for donor in self.past.executions.values()
            if self._limit(donor) > 0 and (parent is None or self._passed(donor, parent))
            for point in self._of(donor)
            if parent is None or _is_farther(point, parent)
        ]
        return sorted(found, key=self._rank, reverse=True)

    def _rank(self, point: PastPoint) -> tuple[object, ...]:
        # Of equal ones that which made the checkpoint, not a copy: lineages stay short.
        donor, link = point.donor, point.link
        own_batch = donor.batch_id == self.wanted.execution.batch_id
        splits = len(donor.path) if point.whole else 0
        return (link.step, point.whole, splits, bool(link.nodes), own_batch, donor.created_at)

    def _of(self, donor: Execution) -> Iterator[PastPoint]:
        limit = self._limit(donor)
        links = self.past.links.get(donor.execution_id, ())
        for link in links:
            if link.pending or link.sequence >= limit:
                continue
            whole = self._is_whole(donor, link, limit)
            point = PastPoint(donor=donor, link=link, whole=whole, recorded=links)
            # Step 0 is the input: nothing has run before it, siblings may have run after it.
            something = link.step > 0 or (whole and donor.execution_id in self.past.boundaries)
            if something and self.wanted.takes(point):
                yield point

    def _is_whole(self, donor: Execution, link: CheckpointFileLink, limit: int) -> bool:
        at_gate = donor.kind is ExecutionKind.SEGMENT and link.checkpoint_id == donor.head
        return at_gate and limit == _ALL

    def _limit(self, donor: Execution) -> int:
        """The first record of an execution that has something in its past that is not the same, or
        not in a checkpoint."""
        known = self._limits.get(donor.execution_id)
        if known is None:
            sequences = self._sequences_of(donor)
            visits = self.past.boundaries.get(donor.execution_id, ())
            other = [v for v in visits if not self.wanted.covers(v, donor)]
            places = [place_of(visit, sequences) for visit in other]
            # Later checkpoints may still hold the value that does not come back as it was.
            links = self.past.links.get(donor.execution_id, ())
            places += [link.sequence for link in links if not link.exact]
            known = min((self._limit_by_parent(donor), *places))
            self._limits[donor.execution_id] = known
        return known

    def _limit_by_parent(self, donor: Execution) -> int:
        lineage = donor.lineage
        if lineage is None:
            return _ALL
        parent = self.past.executions.get(lineage.parent_id)
        if parent is None:
            return 0
        left = self._sequences_of(parent).get(lineage.checkpoint_id, _ALL)
        limit = self._limit(parent)
        if left >= limit:
            return 0
        came_along = donor.inherited is None or donor.inherited.pending
        if not came_along or limit == _ALL:
            return _ALL
        # What siblings finished at the trunk's gate belongs to the first step of the fork.
        return self._sequences_of(donor).get(lineage.checkpoint_id, 0) + 1

    def _passed(self, donor: Execution, parent: Execution) -> bool:
        """Whether an execution has the head of `parent` behind it."""
        head, until = parent.head, _ALL
        current: Execution | None = donor
        while current is not None and head is not None:
            if self._sequences_of(current).get(head, _ALL) <= until:
                return True
            lineage = current.lineage
            current = self.past.executions.get(lineage.parent_id) if lineage else None
            if current is not None and lineage is not None:
                until = self._sequences_of(current).get(lineage.checkpoint_id, -1)
        return False

    def _sequences_of(self, donor: Execution) -> Mapping[CheckpointId, int]:
        known = self._sequences.get(donor.execution_id)
        if known is None:
            known = first_sequences(self.past.links.get(donor.execution_id, ()))
            self._sequences[donor.execution_id] = known
        return known
