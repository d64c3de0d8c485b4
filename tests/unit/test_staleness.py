"""From where stale cells run again, as far as the graph tells."""

from __future__ import annotations

import pytest

from wtb_prefect.application.staleness import stale_kinds
from wtb_prefect.domain.workflow import TestWorkflow, WorkflowEdge, WorkflowNode

# a -> (b | c -> c|in) -> d -> e, and back from e to d
EDGES = ["ab", "ac", ("c", "c|in"), "bd", ("c|in", "d"), "de", "ed"]


def workflow() -> TestWorkflow:
    names = ("a", "b", "c", "c|in", "d", "e")
    return TestWorkflow(
        workflow_id="w",
        name="w",
        import_path=None,
        fingerprint="f",
        nodes=tuple(WorkflowNode(name=name, fingerprint="f") for name in names),
        edges=tuple(WorkflowEdge(source=one, target=other) for one, other in EDGES),
    )


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (("node d",), "run again from d"),
        (("node a", "node d"), "run again from a"),
        (("node b", "node c"), "run again from b and c"),
        (("node c", "node c|in"), "run again from c"),
        (("node d", "node e"), "run again from d"),  # a loop: the first declared
        (("evaluator e", "expected"), "scored again"),
        (("evaluator e", "node d"), "run again from d"),
        (("answers",), "run again from the first question"),
        (("answers", "node d"), "run again from d and the first question"),
        (("case", "node d"), "run again from the start"),
        (("graph",), "run again from the start"),
        (("base workspace",), "run again from the start"),
    ],
)
def test_the_first_node_that_changed(changed: tuple[str, ...], again: str) -> None:
    (kind,) = stale_kinds([(changed, False)], workflow(), restarts=False)
    assert (kind.changed, kind.cells, kind.again, kind.kept) == (changed, 1, again, False)


def test_where_nothing_is_taken_over_all_of_it_runs() -> None:
    """Only scores can still be made again alone."""
    found = [(("node d",), False), (("expected",), False), (("node d",), False)]
    kinds = stale_kinds(found, workflow(), restarts=True)
    assert [(k.cells, k.again) for k in kinds] == [
        (2, "run again from the start"),
        (1, "scored again"),
    ]
