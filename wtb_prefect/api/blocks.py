"""Prefect blocks. Registered through the entry point `prefect.collections`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from wtb_prefect.api.file_blocks import WtbFileTracker, WtbWorkspace
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.database.address import is_postgres, shown_url

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

# The entry point names this module: Prefect finds here what it is to register.
__all__ = ["WtbCheckpointStore", "WtbFileTracker", "WtbWorkspace"]


class WtbCheckpointStore(Block):
    """Where LangGraph checkpoints are kept, usable in any flow.

    Example:
        ```python
        from wtb_prefect import WtbCheckpointStore

        store = WtbCheckpointStore.load("BLOCK_NAME")
        with store.saver() as saver:
            graph = builder.compile(checkpointer=saver)
        ```
    """

    _block_type_name = "WTB Checkpoint Store"
    _block_type_slug = "wtb-checkpoint-store"
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]  # as Prefect's own blocks declare it
    _description = "Where LangGraph checkpoints are kept, usable in any flow."

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///.wtb/wtb-checkpoints.db"),
        description=(
            "The database of the checkpoints, as sqlite:///path/to/file.db or "
            "postgresql://user:password@host/database."
        ),
    )
    allowed_types: list[str] = Field(
        default_factory=list,
        description="Classes that a checkpoint may hold besides LangGraph's own, as module:Class.",
    )

    @contextmanager
    def saver(self) -> Iterator[BaseCheckpointSaver[str]]:
        """LangGraph's saver over this store, closed at the end of the block.

        Raises:
            InvalidInputError: the URL is not one of SQLite or PostgreSQL, its driver is not
                installed, or a class is not `module:Class`.
            CheckpointError: the database cannot be opened.
        """
        from wtb_prefect.bootstrap.stores import (  # noqa: PLC0415 - Prefect imports block modules at every start
            open_checkpoints,
        )
        from wtb_prefect.infrastructure.checkpoints.serializer import (  # noqa: PLC0415 - as above
            make_serializer,
        )

        serializer = make_serializer(tuple(self._class_name(name)) for name in self.allowed_types)
        store = open_checkpoints(self._place(), serializer)
        try:
            yield store.saver
        finally:
            store.close()

    def _place(self) -> Path | str:
        shown = shown_url(self.database_url.get_secret_value())
        return shown if is_postgres(shown) else Path(shown.removeprefix("sqlite:///"))

    @staticmethod
    def _class_name(name: str) -> list[str]:
        module, _, cls = name.partition(":")
        if not module or not cls:
            raise InvalidInputError(f"allowed_types: {name!r} is not module:Class")
        return [module, cls]
