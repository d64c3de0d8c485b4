"""What a request would run: its cells, what the ledger has of them, what is stale and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from wtb_prefect.application.choose_cells import CellChoice, choose_cells, tags_of
from wtb_prefect.application.find_past import past_reasons
from wtb_prefect.application.load_case import case_fingerprints, load_cases
from wtb_prefect.application.matrix import Matrix, expand_matrix
from wtb_prefect.application.read_cases import Cases, read_cases
from wtb_prefect.application.session import Session, cell_id_of
from wtb_prefect.application.staleness import (
    ANSWERS,
    EVALUATOR,
    EXPECTED,
    NODE,
    StaleKind,
    ancestors,
    changes,
    stale_kinds,
)
from wtb_prefect.domain.batch_test import BatchCell, Case, RunOptions, VariantCombination
from wtb_prefect.domain.cell_filter import CellFilter
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.domain.identifiers import digest, stable_id, valid_name
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.workflow import ORIGINAL, TestWorkflow
from wtb_prefect.errors import InvalidInputError, NotFoundError, StateError

_SHORT = 16
"""Characters of a fingerprint kept per cell: 64 bits tell versions of one thing apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a user asks for.

    `batch_id` None: made from the request itself. `reuse` is the name within which cells with equal
    fingerprints answer each other: the project, unless the user named the batch; a batch with a
    name of its own makes its own draws. `only` leaves cells out of this run, not out of the batch.
    """

    matrix: Matrix | None
    cases: Cases
    repeats: int = 1
    share_prefixes: bool = True
    batch_id: str | None = None
    reuse: str | None = None
    options: RunOptions = field(default_factory=RunOptions)
    only: CellFilter | None = None


class CellState(StrEnum):
    """What the ledger says of a planned cell."""

    NEW = "new"
    DONE = "done"
    ADOPTED = "adopted"
    FAILED = "failed"
    PAUSED = "paused"
    STALE = "stale"
    KEPT = "kept"
    """Done, stale, and left as it is on request."""
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell, what the ledger has of it, and for a stale or kept one what changed since.

    `recorded`: the ledger has it as a cell of this batch.
    """

    cell: BatchCell
    state: CellState
    changed: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether running the plan runs this cell."""
        return self.state in (CellState.NEW, CellState.STALE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """How often a node runs per case and repeat: once per group of combinations that agree so far.

    An estimate from the graph alone: branches not taken run less, loops more.
    """

    node: str
    runs: int
    unshared_runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """A checked request: nothing of it can fail on a name or a shape any more."""

    batch_id: str
    workflow: TestWorkflow
    combinations: tuple[VariantCombination, ...]
    cases: tuple[Case, ...]
    repeats: int
    cells: tuple[PlannedCell, ...]
    shares: tuple[NodeShare, ...]
    unshared_reasons: tuple[str, ...]
    base_commit: str | None
    share_prefixes: bool
    reuse: str
    options: RunOptions
    past_reasons: tuple[str, ...] = ()
    only: CellFilter | None = None
    choice: CellChoice | None = None

    @property
    def counts(self) -> Mapping[CellState, int]:
        """Cells by state; every state is there."""
        found = Counter(cell.state for cell in self.cells)
        return {state: found.get(state, 0) for state in CellState}

    @property
    def is_shared(self) -> bool:
        """Whether prefixes will be shared."""
        return not self.unshared_reasons

    def asked(self, case_id: str, combination: str) -> bool:
        """Whether the cells of a case and combination were asked for: no filter left them out."""
        return self.choice is None or self.choice.has(case_id, combination)

    @property
    def stale_reasons(self) -> Mapping[str, int]:
        """What changed -> number of cells it made stale."""
        return Counter(
            name
            for cell in self.cells
            if cell.state is not CellState.LEFT_OUT
            for name in cell.changed
        )

    @property
    def stale(self) -> tuple[StaleKind, ...]:
        """Stale cells by what changed, with where they will run again from; the most first."""
        states = (CellState.STALE, CellState.KEPT)
        cells = (cell for cell in self.cells if cell.state in states)
        found = ((cell.changed, cell.state is CellState.KEPT) for cell in cells)
        restarts = bool(self.unshared_reasons or self.past_reasons)
        return stale_kinds(found, self.workflow, restarts=restarts)


def plan_batch(request: BatchRequest, session: Session, base_commit: str | None) -> BatchPlan:
    """Checks a request and compares it with the ledger. Runs nothing, writes nothing.

    Raises:
        InvalidInputError, NotFoundError, StateError: the first thing wrong with the request.
    """
    workflow = session.engine.describe()
    names: dict[str, list[str]] = defaultdict(list)
    for variant in session.project.variants:
        names[variant.node].append(variant.name)
    combinations = expand_matrix(request.matrix, workflow.node_names(), names)
    if not isinstance(request.repeats, int) or request.repeats < 1:
        raise InvalidInputError(f"repeats is {request.repeats!r}; at least 1 is needed")
    cases = read_cases(request.cases)
    _check_states(cases, session)
    if request.batch_id is not None:
        valid_name("batch id", request.batch_id)
    batch_id = request.batch_id or _batch_id(session, combinations, cases, request.repeats)
    reuse = request.reuse or _reuse(request, session)
    identity = _Identity.of(session, workflow, base_commit)
    versions = [(combination, identity.version_of(combination)) for combination in combinations]
    cells = [
        cell
        for case in cases
        for cell in _cells(batch_id, reuse, case, request.repeats, versions, session)
    ]
    choice = choose_cells(request.only, tags_of(cases), [c.name for c in combinations])
    with session.open_uow() as uow:
        compared = _compare(cells, batch_id, choice, uow, keep_stale=request.options.keep_stale)
    varying = varying_nodes(combinations)
    reasons = session.engine.unshared_reasons(varying)
    if not request.share_prefixes:
        reasons = ("sharing is turned off (share_prefixes=False)",)
    return BatchPlan(
        batch_id=batch_id,
        workflow=workflow,
        combinations=combinations,
        cases=cases,
        repeats=request.repeats,
        cells=compared,
        shares=_shares(workflow, combinations, shared=not reasons),
        unshared_reasons=reasons,
        base_commit=base_commit,
        share_prefixes=request.share_prefixes,
        reuse=reuse,
        options=request.options,
        past_reasons=past_reasons(session),
        only=request.only,
        choice=choice,
    )


def compare_again(plan: BatchPlan, uow: UnitOfWork) -> BatchPlan:
    """The plan against the ledger as the caller's transaction sees it.

    Between planning and claiming, another process may have finished cells of the batch.
    """
    cells = [replace(planned.cell, **_UNANSWERED) for planned in plan.cells]
    keep_stale = plan.options.keep_stale
    compared = _compare(cells, plan.batch_id, plan.choice, uow, keep_stale=keep_stale)
    return replace(plan, cells=compared)


_UNANSWERED: dict[str, Any] = {
    "status": ExecutionStatus.PENDING,
    "execution_id": None,
    "adopted_from": None,
    "unshared_reason": None,
    "stale": (),
}


def stored_request(batch_id: str, session: Session) -> BatchRequest:
    """The request of a batch as the ledger has it. Raises `NotFoundError` for an unknown id."""
    with session.open_uow() as uow:
        batch = uow.batch_tests.get(batch_id)
        if batch is None:
            known = uow.batch_tests.list(session.project.workflow_id)
            raise NotFoundError("batch", batch_id, [found.batch_id for found in known])
    wanted = batch.request["cases"]
    cases = {case.id: case for case in load_cases(session, batch_id)}
    return BatchRequest(
        matrix=batch.request["combinations"],
        cases=[cases[case_id] for case_id in wanted],
        repeats=batch.request["repeats"],
        share_prefixes=batch.request["share_prefixes"],
        batch_id=batch_id,
        reuse=batch.request["reuse"],
        options=RunOptions.from_json(batch.request.get("options", {})),
        only=CellFilter.from_json(batch.request.get("only", {})),
    )


def varying_nodes(combinations: Sequence[VariantCombination]) -> tuple[str, ...]:
    """The nodes whose variant is not the same in all combinations."""
    nodes = sorted({node for combination in combinations for node, _ in combination.choices})
    return tuple(n for n in nodes if len({c.variant_of(n) for c in combinations}) > 1)


def _check_states(cases: Sequence[Case], session: Session) -> None:
    for case in cases:
        try:
            session.engine.check_input(case.state)
            answers = None if callable(case.answers) else list(case.answers or ()) or None
            checked = {"expected": case.expected, "metadata": dict(case.metadata)}
            session.codec.check({**checked, "answers": answers})
        except StateError as exc:
            raise StateError(f"case {case.id!r}: {exc}") from exc


def _reuse(request: BatchRequest, session: Session) -> str:
    """Two kinds of names: a batch may be called like a project."""
    if request.batch_id:
        return f"batch {request.batch_id}"
    return f"project {session.project.name}"


def _batch_id(
    session: Session,
    combinations: Sequence[VariantCombination],
    cases: Sequence[Case],
    repeats: int,
) -> str:
    names = sorted(combination.name for combination in combinations)
    return stable_id(
        "batch", session.project.name, names, sorted(case.id for case in cases), repeats
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """Fingerprints that do not depend on case or combination, and those of all variants."""

    fixed: Mapping[str, str]
    nodes: Mapping[tuple[str, str], str]
    names: tuple[str, ...]

    @staticmethod
    def of(session: Session, workflow: TestWorkflow, base_commit: str | None) -> _Identity:
        fixed = {"graph": workflow.fingerprint, "base workspace": base_commit or "none"}
        for name, fingerprint in session.evaluator_fingerprints.items():
            fixed[f"{EVALUATOR}{name}"] = fingerprint
        engine = session.engine
        nodes = {
            (node.name, ORIGINAL): engine.variant_fingerprint(node.name, ORIGINAL)
            for node in workflow.nodes
        }
        for variant in session.project.variants:
            key = (variant.node, variant.name)
            nodes[key] = engine.variant_fingerprint(*key)
        return _Identity(fixed=fixed, nodes=nodes, names=workflow.node_names())

    def version_of(self, combination: VariantCombination) -> _Version:
        """What all cells of a combination depend on, whatever their case."""
        chosen = dict(combination.choices)
        prints = {f"{NODE}{n}": self.nodes[n, chosen.get(n, ORIGINAL)] for n in self.names}
        full = {**self.fixed, **prints}
        return _Version(digest=digest("combination", full), fingerprints=_shortened(full))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """Digested once: there may be ten thousand cells of a few combinations."""

    digest: str
    fingerprints: Mapping[str, str]


def _shortened(prints: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_SHORT] for name, value in prints.items()}


def _cells(
    batch_id: str,
    reuse: str,
    case: Case,
    repeats: int,
    versions: Sequence[tuple[VariantCombination, _Version]],
    session: Session,
) -> Iterator[BatchCell]:
    prints = case_fingerprints(session, case)
    own = {"case": prints.case, EXPECTED: prints.expected}
    if prints.answers is not None:
        own[ANSWERS] = prints.answers
    short = _shortened(own)
    # The mapping of a combination and case is one object for all repeats.
    together = [(combination, v, {**v.fingerprints, **short}) for combination, v in versions]
    for repeat in range(repeats):
        for combination, version, fingerprints in together:
            name = combination.name
            yield BatchCell(
                cell_id=cell_id_of(batch_id, case.id, repeat, name),
                batch_id=batch_id,
                combination=name,
                case_id=case.id,
                repeat=repeat,
                key=digest("cell", reuse, case.id, repeat, name, version.digest, own),
                fingerprints=fingerprints,
            )


def _compare(
    cells: Sequence[BatchCell],
    batch_id: str,
    choice: CellChoice | None,
    uow: UnitOfWork,
    *,
    keep_stale: bool,
) -> tuple[PlannedCell, ...]:
    recorded = {cell.cell_id: cell for cell in uow.cells.list(batch_id)}
    unknown = [c.key for c in cells if c.cell_id not in recorded and _is_reusable(c)]
    elsewhere = uow.cells.find_completed(unknown)
    planned = (
        _planned(cell, recorded.get(cell.cell_id), elsewhere.get(cell.key), keep_stale)
        for cell in cells
    )
    return tuple(
        _chosen(replace(found, recorded=found.cell.cell_id in recorded), choice)
        for found in planned
    )


def _chosen(planned: PlannedCell, choice: CellChoice | None) -> PlannedCell:
    cell = planned.cell
    if choice is None or not planned.is_wanted or choice.has(cell.case_id, cell.combination):
        return planned
    return replace(planned, state=CellState.LEFT_OUT)


def _is_reusable(cell: BatchCell) -> bool:
    """Code that captures something without a readable value is not reused across batches."""
    return not any(value.startswith("?") for value in cell.fingerprints.values())


_ENDED = {
    ExecutionStatus.COMPLETED: CellState.DONE,
    ExecutionStatus.FAILED: CellState.FAILED,
    # It asks the same question again until its case has an answer, which is another key.
    ExecutionStatus.PAUSED: CellState.PAUSED,
}


def _planned(
    cell: BatchCell, recorded: BatchCell | None, elsewhere: BatchCell | None, keep_stale: bool
) -> PlannedCell:
    if recorded is None:
        if elsewhere is None:
            return PlannedCell(cell=cell, state=CellState.NEW)
        return PlannedCell(cell=_answered(cell, elsewhere), state=CellState.ADOPTED)
    state = _ENDED.get(recorded.status)
    if state is None:
        return PlannedCell(cell=cell, state=CellState.NEW)
    if recorded.key == cell.key:
        # The same values, but one mapping for all repeats instead of one for each row read.
        same = replace(recorded, fingerprints=cell.fingerprints)
        return PlannedCell(cell=same, state=state)
    # A failed cell is no result to keep: what changed may be what was wrong with it.
    kept = keep_stale and state is CellState.DONE
    state = CellState.KEPT if kept else CellState.STALE
    return PlannedCell(cell=cell, state=state, changed=changes(recorded, cell))


def _answered(cell: BatchCell, other: BatchCell) -> BatchCell:
    return replace(
        cell,
        status=other.status,
        execution_id=other.execution_id,
        adopted_from=other.batch_id,
        unshared_reason=other.unshared_reason,
    )


def _shares(
    workflow: TestWorkflow, combinations: Sequence[VariantCombination], *, shared: bool
) -> tuple[NodeShare, ...]:
    varying = set(varying_nodes(combinations))
    before = ancestors(workflow)
    result = []
    for node in workflow.node_names():
        depends = sorted(varying & (before[node] | {node}))
        groups = {tuple(c.variant_of(other) for other in depends) for c in combinations}
        runs = len(groups) if shared else len(combinations)
        result.append(NodeShare(node=node, runs=runs, unshared_runs=len(combinations)))
    return tuple(result)
