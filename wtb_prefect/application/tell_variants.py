"""Telling which combinations of a batch have all their cells, while it runs."""

from __future__ import annotations

from wtb_prefect.application.session import Session
from wtb_prefect.domain.events import VariantCompleted
from wtb_prefect.domain.execution import ExecutionStatus

_OPEN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


class CompletedVariants:
    """Those of one batch; the ones that were complete when it was made are not told again."""

    def __init__(self, batch_id: str, session: Session) -> None:
        self._batch_id = batch_id
        self._session = session
        self._told = set(self._complete())

    def tell(self) -> None:
        """Tells of those that became complete since."""
        found = self._complete()
        fresh = [name for name in found if name not in self._told]
        if not fresh:
            return
        self._told.update(fresh)
        now = self._session.clock.now()
        with self._session.open_uow(write=True) as uow:
            for name in fresh:
                completed = VariantCompleted(
                    at=now, batch_id=self._batch_id, combination=name, cells=found[name]
                )
                uow.record(completed, "run_batch")
            uow.commit()

    def _complete(self) -> dict[str, dict[str, int]]:
        with self._session.open_uow() as uow:
            counts = uow.cells.count_by_combination(self._batch_id)
        return {
            name: {str(status): count for status, count in found.items()}
            for name, found in counts.items()
            if not any(found.get(status) for status in _OPEN)
        }
