"""`wtb delete` and `wtb list --disk` in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import MATRIX, PROJECT, RUN, Shell, make_shell

P = "project.py:project"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = make_shell(tmp_path)
    begun = '(current_workspace() / "begun.txt").write_text("begun")\n        if state["question"]'
    (tmp_path / "project.py").write_text(PROJECT.replace('if state["question"]', begun))
    shell.wtb(*RUN, *MATRIX, status=1)
    return shell


def test_disk_use_then_checkpoints_then_the_batch(shell: Shell) -> None:
    """Each step takes less; results are readable until the batch itself goes."""
    folder = shell.folder / "data" / "outputs" / "workspaces"
    (batch,) = shell.json("list", P, "--disk")
    use = batch["disk"]
    assert use["checkpoints"] > 0
    assert use["files"] == len("!") + len("??") + len("begun")
    assert use["workspaces"] == len("begun")  # of the failed cells
    stdout, _ = shell.wtb("list", P, "--disk")
    assert "in all" in stdout
    assert "the checkpoint file takes" in stdout
    before = shell.json("results", P, "--cells")
    asked = ("delete", P, batch["batch_id"][:6])
    assert "give --yes, or --dry-run" in shell.wtb(*asked, status=2)[1]
    dry = shell.json(*asked, "--dry-run")
    assert (dry["deleted"], dry["cells"], dry["kept"]) == (False, 8, 0)
    assert dry["bytes"]["checkpoints"] == use["checkpoints"]
    pruned = shell.json(*asked, "--checkpoints", "--yes")
    assert pruned["removed"]
    assert shell.json("results", P, "--cells") == before
    (batch,) = shell.json("list", P, "--disk")
    assert batch["disk"] == {**use, "checkpoints": use["checkpoints"] - pruned["bytes"]}
    cell = before["cells"][0]["execution_id"]
    first, *_, last = shell.json("history", P, cell)["checkpoints"]
    assert shell.json("state", P, cell, "--at", last["checkpoint_id"])["values"]["log"]
    _, stderr = shell.wtb("state", P, cell, "--at", first["checkpoint_id"], status=2)
    assert "was pruned: its values are gone" in stderr
    assert stderr.count("\n") == 1
    stdout, _ = shell.wtb(*asked, "--yes")
    assert "8 cells, 2 cases" in stdout
    assert "the checkpoint file is" in stdout
    assert shell.json("list", P) == []
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert "has no batch yet" in shell.wtb("results", P, status=2)[1]
