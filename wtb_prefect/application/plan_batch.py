"""What a request would run: its cells, what the ledger has of them, what is stale and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wtb_prefect.application.batch_names import batch_id_of, reuse_of
from wtb_prefect.application.choose_cells import CellChoice, choose_cells, tags_of
from wtb_prefect.application.compare_cells import (
    UNANSWERED,
    CellState,
    PlannedCell,
    compare_cells,
)
from wtb_prefect.application.find_past import past_reasons
from wtb_prefect.application.load_case import case_fingerprints, load_cases
from wtb_prefect.application.matrix import Matrix, expand_matrix
from wtb_prefect.application.mock_nodes import (
    asked_again,
    check_mocks,
    check_recorded,
    load_mocks,
    mock_fingerprints,
    names_that_run,
    refuse_mixing,
    replayed_fingerprints,
)
from wtb_prefect.application.read_cases import Cases, read_cases
from wtb_prefect.application.recorded_nodes import check_sources
from wtb_prefect.application.session import Session, cell_id_of
from wtb_prefect.application.staleness import (
    ANSWERS,
    EVALUATOR,
    EXPECTED,
    NODE,
    StaleKind,
    ancestors,
    stale_kinds,
)
from wtb_prefect.domain.batch_test import BatchCell, Case, RunOptions, VariantCombination
from wtb_prefect.domain.cell_filter import CellFilter
from wtb_prefect.domain.identifiers import digest, valid_name
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.mock_node import NodeMock
from wtb_prefect.domain.remote_node import RemoteNode
from wtb_prefect.domain.workflow import ORIGINAL, TestWorkflow
from wtb_prefect.errors import InvalidInputError, NotFoundError, StateError

_SHORT = 16
"""Characters of a fingerprint kept per cell: 64 bits tell versions of one thing apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a user asks for.

    `batch_id` None: made from the request itself. `reuse` is the name within which cells with equal
    fingerprints answer each other: the project, unless the user named the batch; a batch with a
    name of its own makes its own draws. `mocks` maps node -> canned output, function or `Recorded`.
    `only` leaves cells out of this run, not out of the batch.
    """

    matrix: Matrix | None
    cases: Cases
    repeats: int = 1
    share_prefixes: bool = True
    batch_id: str | None = None
    reuse: str | None = None
    options: RunOptions = field(default_factory=RunOptions)
    mocks: Mapping[str, Any] = field(default_factory=dict)
    only: CellFilter | None = None


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
    mocks: tuple[NodeMock, ...] = ()
    remote: tuple[RemoteNode, ...] = ()
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
    mocks = check_mocks(request.mocks, combinations, ancestors(workflow), session)
    check_recorded(request.options.record, mocks, workflow)
    batch_id = request.batch_id or batch_id_of(session, combinations, cases, request.repeats, mocks)
    reuse = request.reuse or reuse_of(request.batch_id, mocks, session)
    sources = check_sources(mocks, cases, request.repeats, combinations, session)
    replayed = replayed_fingerprints(mocks, sources)
    identity = _Identity.of(session, workflow, base_commit, mocks)
    versions = [(combination, identity.version_of(combination)) for combination in combinations]
    cells = [
        cell
        for case in cases
        for cell in _cells(batch_id, reuse, case, request.repeats, versions, replayed, session)
    ]
    choice = choose_cells(request.only, tags_of(cases), [c.name for c in combinations])
    with session.open_uow() as uow:
        refuse_mixing(uow, batch_id, mocks)
        compared = compare_cells(cells, batch_id, choice, uow, request.options)
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
        mocks=mocks,
        remote=session.project.remote,
        only=request.only,
        choice=choice,
    )


def compare_again(plan: BatchPlan, uow: UnitOfWork) -> BatchPlan:
    """The plan against the ledger as the caller's transaction sees it.

    Between planning and claiming, another process may have finished cells of the batch.
    """
    cells = [replace(planned.cell, **UNANSWERED) for planned in plan.cells]
    return replace(plan, cells=compare_cells(cells, plan.batch_id, plan.choice, uow, plan.options))


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
        mocks=asked_again(load_mocks(batch.request, session), session),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """Fingerprints that do not depend on case or combination, those of all variants, and the names
    of the nodes that run."""

    fixed: Mapping[str, str]
    nodes: Mapping[tuple[str, str], str]
    names: tuple[str, ...]

    @staticmethod
    def of(
        session: Session,
        workflow: TestWorkflow,
        base_commit: str | None,
        mocks: tuple[NodeMock, ...],
    ) -> _Identity:
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
        fixed.update(mock_fingerprints([mock for mock in mocks if mock.batch is None], {}))
        return _Identity(fixed=fixed, nodes=nodes, names=names_that_run(workflow, mocks))

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
    replayed: Mapping[tuple[str, int, str], Mapping[str, str]],
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
            outputs = replayed.get((case.id, repeat, name), {})
            yield BatchCell(
                cell_id=cell_id_of(batch_id, case.id, repeat, name),
                batch_id=batch_id,
                combination=name,
                case_id=case.id,
                repeat=repeat,
                key=digest(
                    "cell", reuse, case.id, repeat, name, version.digest, {**own, **outputs}
                ),
                fingerprints={**fingerprints, **_shortened(outputs)} if outputs else fingerprints,
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
