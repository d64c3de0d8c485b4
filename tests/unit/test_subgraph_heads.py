"""Where the subgraphs of an execution stand, from its records."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wtb_prefect.domain.checkpoint import subgraph_heads
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.infrastructure.workflow.compile_graph import path_of

TOP, PENDING = ("", "top", False), ("", "top", True)


def links(*records: tuple[str, str, bool]) -> list[CheckpointFileLink]:
    """(namespace, checkpoint, pending) in order."""
    return [
        CheckpointFileLink(
            execution_id="e",
            checkpoint_id=CheckpointId(checkpoint),
            commit_id=None,
            pending=pending,
            sequence=number,
            step=0,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            namespace=namespace,
        )
        for number, (namespace, checkpoint, pending) in enumerate(records)
    ]


@pytest.mark.parametrize(
    ("records", "standing", "under_way"),
    [
        ([], {}, {}),
        ([TOP], {}, {}),
        ([TOP, ("s:1", "a", True), ("s:1", "b", True)], {}, {"s:1": "b"}),
        ([TOP, ("s:1", "a", True), PENDING], {}, {"s:1": "a"}),
        ([TOP, ("s:1", "a", True), TOP], {}, {}),
        ([TOP, ("s", "a", True), TOP], {"s": "a"}, {}),
        ([TOP, ("s", "a", True), TOP, ("s", "b", True)], {}, {"s": "b"}),
        ([("s", "a", True), TOP, ("t:1", "b", True)], {"s": "a"}, {"t:1": "b"}),
    ],
)
def test_heads(
    records: list[tuple[str, str, bool]], standing: dict[str, str], under_way: dict[str, str]
) -> None:
    """A memory stands between visits; what has a task ends with that task's super-step."""
    heads = subgraph_heads(links(*records))
    assert (heads.standing, heads.under_way) == (standing, under_way)
    assert heads.all == {**standing, **under_way}


@pytest.mark.parametrize(
    ("namespace", "path"),
    [("", ""), ("a:1", "a"), ("a:1|b:2", "a|b"), ("a", "a"), ("a:1|1", "a"), ("a:1|1|b:2", "a|b")],
)
def test_path_of(namespace: str, path: str) -> None:
    """Task ids go, and the numbers of calls within one task."""
    assert path_of(namespace) == path
