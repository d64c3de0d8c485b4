"""Mocked nodes of a request: checked, stored with it, and found again by whoever runs it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wtb_prefect.application.recorded_nodes import (
    Sources,
    find_recording,
    replayed_node,
    source_of,
)
from wtb_prefect.application.references import reference_to
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.batch_test import VariantCombination
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.mock_node import CannedNode, Mocks, NodeMock, Recorded
from wtb_prefect.domain.workflow import TestWorkflow
from wtb_prefect.errors import InvalidInputError, NotFoundError, StateError


def check_mocks(
    asked: Mapping[str, Any] | None,
    combinations: Sequence[VariantCombination],
    upstream: Mapping[str, Iterable[str]],
    session: Session,
) -> tuple[NodeMock, ...]:
    """The mocks of a request, by node. `upstream` are the nodes that may run before each.

    Raises:
        NotFoundError: an unknown node, or no batch that recorded it.
        InvalidInputError: an output that is none, or a node that is mocked and varied.
    """
    if not asked:
        return ()
    if not isinstance(asked, Mapping):
        raise InvalidInputError(f"mocks map node -> output, not {type(asked).__name__}")
    names = session.engine.describe().node_names()
    found = []
    for node, output in sorted(asked.items()):
        if node not in names:
            raise NotFoundError("node to mock", node, names)
        mock = _checked(node, output, upstream.get(node, ()), session)
        if mock.batch is None and _is_varied(node, combinations):
            raise InvalidInputError(
                f"node {node!r} is mocked and varied: all its variants would give the same output; "
                "take it out of the matrix, or replay each variant's own with Recorded()"
            )
        found.append(mock)
    return tuple(found)


def _is_varied(node: str, combinations: Sequence[VariantCombination]) -> bool:
    """Whether combinations differ at a node, or inside it."""
    return any(
        len({combination.variant_of(name) for combination in combinations}) > 1
        for name in {name for combination in combinations for name, _ in combination.choices}
        if name == node or name.startswith(f"{node}|")
    )


def check_recorded(nodes: Sequence[str], mocks: Sequence[NodeMock], workflow: TestWorkflow) -> None:
    """Refuses what cannot be recorded.

    Raises:
        NotFoundError: an unknown node.
        InvalidInputError: a mocked node, or one that is or is in a subgraph.
    """
    known = {node.name: node for node in workflow.nodes}
    for node in nodes:
        if node not in known:
            raise NotFoundError("node to record", node, known)
        if known[node].is_subgraph or "|" in node:
            raise InvalidInputError(
                f"node {node!r} cannot be recorded: of the nodes with a graph inside, and of those "
                "inside, LangGraph hands on no single output; record a node of the top graph"
            )
        if any(mock.node == node for mock in mocks):
            raise InvalidInputError(f"node {node!r} is mocked: there is nothing of it to record")


def refuse_mixing(uow: UnitOfWork, batch_id: str, mocks: Sequence[NodeMock]) -> None:
    """Mocked cells and real ones are never in one batch. Raises `InvalidInputError`."""
    batch = uow.batch_tests.get(batch_id)
    before = {} if batch is None else batch.request.get("mocks", {})
    now = {mock.node for mock in mocks}
    if batch is not None and set(before) != now:
        has = f"has mocked nodes ({', '.join(sorted(before))})" if before else "is a real one"
        raise InvalidInputError(
            f"batch {batch_id} {has}, and this request "
            f"{'mocks ' + ', '.join(sorted(now)) if now else 'mocks nothing'}: "
            "give it a batch id of its own"
        )


def refuse_local_functions(mocks: Sequence[NodeMock]) -> None:
    """For runs in other processes. Raises `InvalidInputError` for a function they cannot find."""
    for mock in mocks:
        if mock.function is not None and mock.import_path is None:
            name = getattr(mock.function, "__qualname__", repr(mock.function))
            raise InvalidInputError(
                f"the mock of node {mock.node!r} is {name}, which other processes cannot import; "
                "move it to the top level of a file, or use runner='inline'"
            )


def dump_mocks(mocks: Sequence[NodeMock]) -> dict[str, Any]:
    """Mocks as JSON values, as the ledger keeps them with the request."""
    return {mock.node: _dumped(mock) for mock in mocks}


def load_mocks(request: Mapping[str, Any], session: Session) -> tuple[NodeMock, ...]:
    """The mocks of a stored request; functions are imported, where they can be.

    Raises:
        NotFoundError: a function is not where it was.
    """
    return tuple(
        NodeMock(
            node=node,
            fingerprint=data["fingerprint"],
            encoding=data.get("encoding"),
            payload=base64.b64decode(data.get("payload", "")),
            function=session.resolve(data["function"]) if data.get("function") else None,
            import_path=data.get("function"),
            batch=data.get("batch"),
            upstream=tuple(data.get("upstream", ())),
        )
        for node, data in sorted(request.get("mocks", {}).items())
    )


def asked_again(mocks: Sequence[NodeMock], session: Session) -> dict[str, Any]:
    """Stored mocks as a request gives them. Raises `InvalidInputError` for a lost function."""
    asked: dict[str, Any] = {}
    for mock in mocks:
        if mock.batch is not None:
            asked[mock.node] = Recorded(mock.batch)
        elif mock.encoding is not None:
            asked[mock.node] = session.codec.load(mock.encoding, mock.payload)["output"]
        elif mock.function is not None:
            asked[mock.node] = mock.function
        else:
            raise InvalidInputError(
                f"the mock of node {mock.node!r} was a function that no other process can import; "
                "run the batch from where the function is"
            )
    return asked


def names_that_run(workflow: TestWorkflow, mocks: Sequence[NodeMock]) -> tuple[str, ...]:
    """The nodes that are not mocked, nor inside of one that is."""
    mocked = [mock.node for mock in mocks]
    return tuple(
        name
        for name in workflow.node_names()
        if not any(name == node or name.startswith(f"{node}|") for node in mocked)
    )


def mock_fingerprints(
    mocks: Sequence[NodeMock],
    sources: Mapping[str, str],
) -> dict[str, str]:
    """What a cell's answer depends on besides real code: `mock <node>` -> fingerprint.

    `sources` are the executions whose outputs are replayed, by node.
    """
    return {
        f"mock {mock.node}": digest("mock", mock.fingerprint, sources.get(mock.node))
        if mock.fingerprint[:1] != "?"
        else mock.fingerprint
        for mock in mocks
    }


def replayed_fingerprints(
    mocks: Sequence[NodeMock], sources: Sources
) -> dict[tuple[str, int, str], dict[str, str]]:
    """The same of recorded nodes, by cell: each replays an execution of its own."""
    recorded = [mock for mock in mocks if mock.batch is not None]
    return {cell: mock_fingerprints(recorded, found) for cell, found in sources.items()}


def mock_roots(item: WorkItem, scope: BatchScope, session: Session) -> tuple[str, ...]:
    """What the ids of an item's executions depend on because of mocks and recordings."""
    if not scope.mocks and not scope.options.record:
        return ()
    recorded = [f"record {node}" for node in scope.options.record]
    sources = _sources(item, scope, session)
    canned = [f"mock {mock.node} {mock.fingerprint}" for mock in scope.mocks]
    replayed = [f"replay {node} {' '.join(found)}" for node, found in sorted(sources.items())]
    return (*recorded, *canned, *replayed)


def item_mocks(item: WorkItem, execution: Execution, scope: BatchScope, session: Session) -> Mocks:
    """The mocked nodes of an execution."""
    sources = _sources(item, scope, session)
    return {
        mock.node: replayed_node(mock, sources[mock.node], execution, session)
        if mock.batch is not None
        else _canned(mock, session)
        for mock in scope.mocks
    }


def marks_of(scope: BatchScope) -> dict[str, Any]:
    """What executions say of themselves: which nodes were mocked, which recorded."""
    marks = {
        "mocked": [mock.node for mock in scope.mocks],
        "recorded": list(scope.options.record),
    }
    return {**scope.marks, **{name: nodes for name, nodes in marks.items() if nodes}}


def _sources(item: WorkItem, scope: BatchScope, session: Session) -> dict[str, tuple[str, ...]]:
    """Recorded node -> the executions of the source batch that the item's combinations replay."""
    replayed = [mock for mock in scope.mocks if mock.batch is not None]
    if not replayed:
        return {}
    together = [scope.combinations[name] for name in item.combinations]
    found: dict[str, tuple[str, ...]] = {}
    with session.open_uow() as uow:
        for mock in replayed:
            cells = [source_of(uow, mock, item.case_id, item.repeat, c) for c in together]
            ids = sorted({cell.execution_id or "" for cell in cells if cell is not None})
            found[mock.node] = tuple(ids)
    return found


def _canned(mock: NodeMock, session: Session) -> CannedNode:
    if mock.function is not None:
        return CannedNode(answer=mock.function)
    encoding, payload = mock.encoding, mock.payload
    if encoding is None:
        raise InvalidInputError(
            f"the mock of node {mock.node!r} is a function that this process cannot import"
        )
    return CannedNode(answer=lambda _: session.codec.load(encoding, payload)["output"])


def _checked(node: str, output: Any, upstream: Iterable[str], session: Session) -> NodeMock:
    if isinstance(output, Recorded):
        batch = find_recording(node, output.batch, session)
        before = tuple(sorted({*upstream, node}))
        return NodeMock(
            node=node, fingerprint=digest("recorded", node), batch=batch, upstream=before
        )
    if callable(output):
        path = reference_to(output)
        fingerprint = session.fingerprint(output)
        return NodeMock(node=node, fingerprint=fingerprint, function=output, import_path=path)
    try:
        session.engine.check_output(node, output)
        session.codec.check({"output": output})
        encoding, payload = session.codec.dump({"output": output})
    except StateError as exc:
        raise StateError(f"the mock of node {node!r}: {exc}") from exc
    fingerprint = digest("canned", node, hashlib.sha256(payload).hexdigest())
    return NodeMock(node=node, fingerprint=fingerprint, encoding=encoding, payload=payload)


def _dumped(mock: NodeMock) -> dict[str, Any]:
    data: dict[str, Any] = {"fingerprint": mock.fingerprint}
    if mock.batch is not None:
        return {**data, "batch": mock.batch, "upstream": list(mock.upstream)}
    if mock.encoding is not None:
        payload = base64.b64encode(mock.payload).decode()
        return {**data, "encoding": mock.encoding, "payload": payload}
    return {**data, "function": mock.import_path}
