"""What a running batch has done so far, read from its ledger: the same for every runner."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.errors import WTBError

POLL_SECONDS = 1.0
LINE_SECONDS = 10.0
"""How often a line is printed where lines cannot move."""

_OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a batch stands: cells by what became of them, and its node bodies.

    `running` are stretches of execution: one may carry many cells that have not parted yet.
    """

    ended: int
    running: int
    failed: int
    bodies: int

    @staticmethod
    def read(open_uow: OpenUnitOfWork, batch_id: str) -> Standing:
        """As the ledger has it now."""
        with open_uow() as uow:
            counts = uow.cells.count(batch_id)
            stretches = uow.executions.count(batch_id)
            bodies = uow.executions.total_bodies(batch_id)
        return Standing(
            ended=sum(n for status, n in counts.items() if status not in _OPEN),
            running=stretches.get(ExecutionStatus.RUNNING, 0),
            failed=counts.get(ExecutionStatus.FAILED, 0) + counts.get(ExecutionStatus.CRASHED, 0),
            bodies=bodies,
        )


class BatchProgress:
    """Shows progress from `start` to the end of the `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def start(self, plan: BatchPlan, open_uow: OpenUnitOfWork) -> None:
        """Begins to watch, unless nothing is going to run."""
        if any(cell.is_wanted for cell in plan.cells):
            watch = _Watch(plan, open_uow)
            show = self._move if self._console.is_terminal else self._print
            self._thread = threading.Thread(target=show, args=(watch,), daemon=True)
            self._thread.start()

    def _move(self, watch: _Watch) -> None:
        columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
        with Progress(*columns, console=self._console, transient=True) as progress:
            task: TaskID = progress.add_task("", total=watch.wanted, words="starting")
            while not self._over.wait(POLL_SECONDS):
                if watch.look():
                    progress.update(task, completed=watch.ended, words=watch.words())

    def _print(self, watch: _Watch) -> None:
        last = ""
        while not self._over.wait(LINE_SECONDS):
            if watch.look():
                line = f"{watch.ended} of {watch.wanted} cells, {watch.words()}"
                # Nothing new: all are done and the server or Ray is being stopped.
                if line != last:
                    self._console.print(line, soft_wrap=True)
                last = line


class _Watch:
    def __init__(self, plan: BatchPlan, open_uow: OpenUnitOfWork) -> None:
        self._plan = plan
        self._open_uow = open_uow
        self._began = time.monotonic()
        self._before = self._now = Standing.read(open_uow, plan.batch_id)
        self.wanted = sum(cell.is_wanted for cell in plan.cells)

    @property
    def ended(self) -> int:
        return max(self._now.ended - self._before.ended, 0)

    def look(self) -> bool:
        """Reads again; a ledger that is busy now will be read the next time."""
        try:
            self._now = Standing.read(self._open_uow, self._plan.batch_id)
        except WTBError:
            return False
        if self._now.bodies == self._before.bodies:
            # A server and Ray are still starting: that says nothing of how fast cells end.
            self._began = time.monotonic()
        return True

    def words(self) -> str:
        bodies = max(self._now.bodies - self._before.bodies, 0)
        failed = max(self._now.failed - self._before.failed, 0)
        # Trunks whose cells are still open are not counted as saving yet: a lower bound.
        saved = max(self.ended * len(self._plan.shares) - bodies, 0)
        parts = [
            f"{self._now.running} running" if self._now.running else "",
            f"{failed} failed" if failed else "",
            f"{bodies} node bodies run" + (f", about {saved} saved" if saved else ""),
            self._left(),
        ]
        return ", ".join(part for part in parts if part)

    def _left(self) -> str:
        if not self.ended or self.ended >= self.wanted:
            return ""
        seconds = (time.monotonic() - self._began) / self.ended * (self.wanted - self.ended)
        return f"about {int(seconds // 60)}:{int(seconds % 60):02} left"
