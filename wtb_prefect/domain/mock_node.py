"""Nodes that are not run: canned outputs, and outputs recorded in an earlier batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wtb_prefect.domain.file_processing import FileMemento

MOCK = "mock"
"""The variant name of a mocked node in its boundaries: none of the project's code ran."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """In `mocks`: replay what the node returned in an earlier batch, for the same case and repeat.

    `batch` is the batch's id, or how it begins; None: the newest that recorded the node.
    """

    batch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMock:
    """One entry of a request's `mocks`, checked. Exactly one of the last three is set.

    `upstream` are the node and those before it: their choices pick the recording.
    `encoding` and `payload` hold a canned output as checkpoints hold values, so that every call
    gets a fresh one; `function` is called with the state; `batch` is the id of the batch whose
    recorded outputs are replayed. `import_path` is where workers find the function (None: only
    this process has it).
    """

    node: str
    fingerprint: str
    encoding: str | None = None
    payload: bytes = b""
    function: Callable[..., Any] | None = None
    import_path: str | None = None
    batch: str | None = None
    upstream: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOutput:
    """What one visit of a node returned and did to the files.

    `place` tells the tasks of one super-step apart: LangGraph's path of the task.
    """

    place: str
    value: Any
    changed: tuple[FileMemento, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CannedNode:
    """A mocked node of one execution: `answer` is called with the state, and may be async."""

    answer: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedNode:
    """A recorded node of one execution.

    `read` gives the outputs, one mapping (place -> output) per super-step that visited the node.
    `earlier` are the super-steps in which this execution's own past visited it. `undecided` says
    why the combinations that share the execution would have to be given different recordings.
    """

    source: str
    read: Callable[[], Sequence[Mapping[str, KeptOutput]]]
    earlier: frozenset[int] = field(default_factory=frozenset)
    undecided: str | None = None


Mocks = Mapping[str, CannedNode | ReplayedNode]
"""The mocked nodes of one execution, by path."""
