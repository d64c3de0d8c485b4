"""`wtb verify` and `wtb check` as people use them, and `wtb branch` with words that do not fit."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "minimal"
WTB = str(Path(sys.executable).with_name("wtb"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ran undisturbed; only to be looked at."""
    folder = tmp_path_factory.mktemp("checks")
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    run = "run bench.py:project --cases cases.jsonl --variant greet=* --runner inline --batch-id b"
    assert wtb(folder, *run.split()).returncode == 0
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def wtb(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WTB, *words], check=False, cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_what_ran_undisturbed_is_verified_and_healthy(folder: Path) -> None:
    verified = wtb(folder, "verify", "bench.py:project", "--deep", "--json")
    assert verified.returncode == 0
    found = json.loads(verified.stdout)
    assert (found["outbox"]["pending"], found["outbox"]["failed"]) == (0, 0)
    assert found["outbox"]["processed"] > 0
    checked = wtb(folder, "check", "bench.py:project", "--deep")
    assert (checked.returncode, checked.stdout.split(":")[0]) == (0, "healthy")


def test_damage_is_said_and_repaired_after_asking(folder: Path) -> None:
    with closing(sqlite3.connect(folder / ".wtb" / "wtb.db")) as ledger:
        ledger.execute("UPDATE executions SET status = 'running' WHERE kind = 'cell'")
        ledger.commit()
    said = wtb(folder, "check", "bench.py:project")
    assert said.returncode == 1
    assert "warning dead_owner" in said.stdout
    assert "can be repaired: wtb check bench.py:project --repair" in said.stdout
    asked = wtb(folder, "check", "bench.py:project", "--repair")
    assert asked.returncode == 2
    assert "nobody can be asked here: give --yes" in asked.stderr
    repaired = wtb(folder, "check", "bench.py:project", "--repair", "--yes", "--json")
    issues = json.loads(repaired.stdout)["issues"]
    assert issues
    assert all(issue["repaired"] for issue in issues)
    again = wtb(folder, "check", "bench.py:project", "--repair", "--yes")
    # Their cells said completed: they follow.
    assert again.returncode == 0, again.stdout
    assert wtb(folder, "check", "bench.py:project").stdout.startswith("healthy")


def test_a_lost_checkpoint_fails_its_claim(folder: Path) -> None:
    with closing(sqlite3.connect(folder / ".wtb" / "wtb-checkpoints.db")) as checkpoints:
        checkpoints.execute("DELETE FROM checkpoints")
        checkpoints.commit()
    with closing(sqlite3.connect(folder / ".wtb" / "wtb.db")) as ledger:
        ledger.execute("UPDATE outbox_events SET status = 'PENDING', attempts = 4")
        ledger.commit()
    verified = wtb(folder, "verify", "bench.py:project")
    assert verified.returncode == 1
    assert "is not in the store" in verified.stdout
    assert "try them again: wtb verify bench.py:project --retry-failed" in verified.stdout
    checked = wtb(folder, "check", "bench.py:project")
    assert checked.returncode == 1
    assert "critical missing_checkpoint" in checked.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("branch bench.py:project", "give EXECUTION and CHECKPOINT, or --all-cells BATCH"),
        ("branch bench.py:project --all-cells b --node greet", "goes with --node NODE and one"),
        (
            "branch bench.py:project --all-cells b --node greet --variant other=x",
            "goes with --node NODE and one",
        ),
        (
            "branch bench.py:project --all-cells b --node nobody --variant x --runner inline",
            "no node 'nobody'",
        ),
        (
            "branch bench.py:project --all-cells b --node greet --variant x --runner inline",
            "no variant",
        ),
        ("branch bench.py:project e c --node greet", "go with --all-cells"),
        ("verify nobody.py:project", "nobody.py"),
        ("check nobody.py:project", "nobody.py"),
    ],
)
def test_words_that_do_not_fit_are_one_clear_line(whole: Path, words: str, said: str) -> None:
    done = wtb(whole, *words.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
