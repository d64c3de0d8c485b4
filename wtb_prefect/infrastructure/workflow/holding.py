"""Stopping a run before a super-step because somebody asked for it while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from wtb_prefect.domain.interfaces.workflow_engine import Hold
from wtb_prefect.infrastructure.workflow.body_context import body_context


class Holder:
    """Decides for one run; `held` are the nodes it was stopped before, by their paths."""

    def __init__(self, hold: Hold) -> None:
        self.held: list[str] = []
        self._hold = hold
        self._moved: set[str] = set()
        self._asked: bool | None = None

    def step_ended(self, path: str) -> None:
        """A graph has saved a checkpoint in this run."""
        self._moved.add(path)
        self._asked = None

    def stops_before(self, path: str, place: str) -> bool:
        """Whether the graph at `path` has to stop before a super-step with the node at `place`.

        Breakpoints do not hold where the run begins: it was stopped there the last time.
        """
        if self._asked is None:  # looked up once a super-step, which may have a thousand tasks
            self._asked = self._hold.is_asked()
        steps = self._hold.stepping and not path
        wanted = path in self._moved and (steps or place in self._hold.breakpoints)
        if self._asked or wanted:
            self.held.append(place)
            return True
        return False


class HoldBefore(Sequence[str]):
    """The `interrupt_before_nodes` of one graph of a workflow, which LangGraph takes for names.

    It asks `name in nodes` as each super-step begins, after its checkpoint and before any body of
    it. So a run can be stopped there without cancelling anything and with LangGraph's own
    bookkeeping, in a graph that was compiled before anybody asked, and inside subgraphs. (The drain
    of LangGraph's `RunControl` reaches neither chosen nodes nor subgraphs.)
    """

    def __init__(self, path: str, places: Mapping[str, str]) -> None:
        self._path = path
        self._places = places  # LangGraph has tasks of its own too, which are no nodes

    def __len__(self) -> int:
        context = body_context.get(None)
        return 0 if context is None or context.holder is None else len(self._places)

    def __contains__(self, name: object) -> bool:
        place, holder = self._places.get(str(name)), body_context.get().holder
        return bool(place and holder and holder.stops_before(self._path, place))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return list(self._places)[index]
