"""`wtb plan` and `wtb run` with mocked, recorded and checked nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wtb_prefect.cli import main

PROJECT = """
import operator
import random
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import WorkflowProject

HERE = Path(__file__).parent

class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]

def build():
    graph = StateGraph(State)
    graph.add_node("draw", lambda state: {"log": [f"drawn {random.random()}"]})
    graph.add_node("say", lambda state: {"log": ["said"]})
    graph.add_edge(START, "draw")
    graph.add_edge("draw", "say")
    return graph

project = WorkflowProject("mocking", build, db_path=HERE / "wtb.db", output_dir=HERE / "out")
project.variant("say", "loud", lambda state: {"log": ["SAID"]})

@project.evaluator(primary=True)
def size(state):
    return len(state["log"])
"""


class Shell:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        name = f"mocking_{abs(hash(folder))}.py"  # a module is loaded once in a process
        (folder / name).write_text(PROJECT)
        (folder / "cases.jsonl").write_text('{"id": "c", "state": {"log": []}}\n')
        self.project = f"{folder / name}:project"

    def wtb(self, command: str, *more: str, status: int = 0) -> tuple[str, str]:
        request = ["--cases", str(self.folder / "cases.jsonl"), "--runner", "inline"]
        options = request if command in ("plan", "run") else []
        assert main([command, self.project, *options, *more]) == status
        shown = self.capsys.readouterr()
        return shown.out, shown.err

    def json(self, command: str, *more: str, status: int = 0) -> Any:
        return json.loads(self.wtb(command, "--json", *more, status=status)[0])


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_mocked_in_every_headline(shell: Shell) -> None:
    mock = ("--variant", "say=*", "--mock", 'draw={"log": ["canned"]}')
    assert "  MOCKED: draw\n" in shell.wtb("plan", *mock)[0]
    shown, _ = shell.wtb("run", *mock)
    assert "MOCKED: draw" in shown
    assert "no best combination: draw did not really run" in shown
    assert "(mocked: draw)" in shell.wtb("list")[0]
    assert "MOCKED: draw" in shell.wtb("results")[0]
    document = shell.json("results", "--cells")
    assert (document["mocked"], document["best"]) == (["draw"], None)
    assert shell.json("list")[0]["mocked"] == ["draw"]


def test_a_mock_from_a_file(shell: Shell) -> None:
    file = shell.folder / "mock.json"
    file.write_text('{"log": ["from a file"]}')
    document = shell.json("run", "--mock", f"draw=@{file}", "--cells")
    execution = document["cells"][0]["execution_id"]
    assert shell.json("state", execution)["values"]["log"] == ["from a file", "said"]


def test_recorded_by_one_batch_and_replayed_by_another(shell: Shell) -> None:
    def drawn(document: Any) -> set[str]:
        cells = [cell["execution_id"] for cell in document["cells"]]
        return {shell.json("state", execution)["values"]["log"][0] for execution in cells}

    first = shell.json("run", "--record", "draw", "--cells", "--batch-id", "rec")
    newest = shell.json("run", "--recorded", "draw", "--variant", "say=*", "--cells")
    named = shell.json("run", "--recorded", "draw=rec", "--batch-id", "named", "--cells")
    assert drawn(first) == drawn(newest) == drawn(named)
    assert newest["mocked"] == ["draw"]


def test_a_difference_is_exit_status_1_and_shown_again_later(shell: Shell) -> None:
    shown, _ = shell.wtb("run", "--self-check", "1", status=1)
    assert "self-check: 0 of 1 cells equal when run alone" in shown
    assert "state key 'log'[0] comes back with another value" in " ".join(shown.split())
    assert "self-check: 0 of 1" in shell.wtb("results")[0]
    assert shell.json("run")["self_check"]["equal"] == 0  # what was found; nothing is checked now


def test_equal_cells_are_status_0(shell: Shell) -> None:
    mock = ("--mock", 'draw={"log": ["canned"]}')
    shown, _ = shell.wtb("run", *mock, "--variant", "say=*", "--self-check", "2")
    assert "self-check: 2 of 2 cells equal when run alone" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mock", "draw"), "--mock is NODE=JSON or NODE=@file.json, not 'draw'"),
        (("--mock", "draw={'x'}"), "the mock of node 'draw' is not JSON"),
        (("--mock", "draw=@nowhere.json"), "the mock of node 'draw' cannot be read"),
        (("--mock", "draw={}", "--recorded", "draw"), "node 'draw' is mocked twice"),
        (("--recorded", "draw"), "no batch that recorded node 'draw'"),
        (("--record", "nobody"), "no node to record 'nobody'"),
        (("--self-check", "-1"), "self_check is -1"),
    ],
)
def test_mistakes_are_one_line(shell: Shell, options: tuple[str, ...], said: str) -> None:
    _, err = shell.wtb("run", *options, status=2)
    assert said in err
    assert len(err.splitlines()) == 1
