"""The block types, by Prefect's own standard and in use."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr

from wtb_prefect import WtbCheckpointStore, WtbFileTracker, WtbWorkspace
from wtb_prefect.errors import CheckpointError, InvalidInputError


class TestBlockStandards(BlockStandardTestSuite):
    """Description, documentation, field descriptions and example, as Prefect checks its own."""

    @pytest.fixture(params=[WtbCheckpointStore, WtbFileTracker, WtbWorkspace])
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        found: type[Block] = request.param
        return found

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's check downloads the logo; this block has none, and tests run offline."""
        assert block._logo_url is None


def test_prefect_finds_the_block_through_the_entry_point() -> None:
    """The entry point names the module that defines the block."""
    [found] = entry_points(group="prefect.collections", name="wtb_prefect")
    module = found.load()
    assert module.WtbCheckpointStore is WtbCheckpointStore
    assert module.WtbFileTracker is WtbFileTracker
    assert module.WtbWorkspace is WtbWorkspace


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


def test_the_url_is_a_secret_and_names_a_database_there_is() -> None:
    """It may hold a password: neither the block nor an error shows it."""
    block = WtbCheckpointStore(database_url=SecretStr("mysql://u:secret@host/db"))
    assert "secret" not in repr(block)
    with pytest.raises(InvalidInputError, match=r"'mysql'.*postgresql://") as refused:
        block.saver().__enter__()
    nowhere = "postgresql://u:secret@127.0.0.1:1/db"
    block = WtbCheckpointStore(database_url=SecretStr(nowhere))
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1") as unreachable:
        block.saver().__enter__()
    assert "secret" not in f"{refused.value} {unreachable.value}"
    assert "\n" not in str(unreachable.value)


def test_the_saver_keeps_checkpoints_in_postgresql(postgres_url: str) -> None:
    from benchmarks.workflows import trivial_line

    block = WtbCheckpointStore(database_url=SecretStr(postgres_url))
    config: Any = {"configurable": {"thread_id": "t"}}
    with block.saver() as saver:
        graph = trivial_line(2).compile(checkpointer=saver)
        graph.invoke({"log": [], "payload": ""}, config)
        assert graph.get_state(config).values["log"] == ["n0", "n1"]


def test_files_are_committed_restored_and_forked(tmp_path: Path) -> None:
    """A commit is plain JSON; forks are on their own."""
    tracker = WtbFileTracker(blob_folder=str(tmp_path / "blobs"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("1")
    commit = json.loads(json.dumps(tracker.commit(tmp_path / "data")))
    workspace = WtbWorkspace(folder=str(tmp_path / "w"), file_tracker=tracker)
    one, two = (workspace.fork(commit, "same/name") for _ in range(2))
    (one / "a").write_text("2")
    (tmp_path / "data/a").unlink()
    (tmp_path / "data/later").write_text("3")
    tracker.restore(commit, tmp_path / "data")
    assert {path.name: path.read_text() for path in (tmp_path / "data").iterdir()} == {"a": "1"}
    assert ((one / "a").read_text(), (two / "a").read_text()) == ("2", "1")
    assert not list((tmp_path / "w-owners").glob("*.json"))


def test_what_is_no_commit_is_refused(tmp_path: Path) -> None:
    tracker = WtbFileTracker(blob_folder=str(tmp_path / "blobs"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("1")
    commit = tracker.commit(tmp_path / "data")
    moved = {**commit, "files": [{**commit["files"][0], "path": "b"}]}
    for wrong in ({}, {"files": 1, "commit_id": ""}, {"files": [{}], "commit_id": ""}, moved):
        with pytest.raises(InvalidInputError, match="commit"):
            tracker.restore(wrong, tmp_path / "data")
    with pytest.raises(InvalidInputError, match="not a folder"):
        tracker.commit(tmp_path / "missing")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]
