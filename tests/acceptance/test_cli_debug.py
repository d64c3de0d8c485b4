"""`wtb debug` as a user meets it: pdb's commands on stdin, the batch as it was afterwards."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_cli import Shell, answers

PROJECT = """
import asyncio
import operator
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def first(state: State):
    mine = "sync"
    (current_workspace() / "first.txt").write_text(mine)
    return {"log": [f"first {asyncio.run(twice(1))}"]}


async def twice(number):
    await asyncio.sleep(0)
    return number * 2


async def second(state: State):
    mine = "async"
    await asyncio.sleep(0.01)
    mine = "after waiting"
    return {"log": ["second"]}


async def broken(state: State):
    missing = {}
    return missing["key"]


def beside(state: State):
    return {"log": ["beside"]}


def third(state: State):
    changed = (HERE / "changed").exists()
    return {"log": ["third changed" if changed else "third"]}


def build():
    graph = StateGraph(State)
    graph.add_node("first", first, retry_policy=RetryPolicy(initial_interval=0.01))
    for name, node in (("second", second), ("beside", beside), ("third", third)):
        graph.add_node(name, node)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("first", "beside")
    graph.add_edge(["second", "beside"], "third")
    return graph


project = WorkflowProject("debugged", build, db_path=HERE / "w.db", output_dir=HERE / "out")
project.variant("second", "broken", broken)
project.variant("third", "other", lambda state: {"log": ["other"]})
"""

P = "project.py:project"


def ledger(folder: Path) -> dict[str, list[Any]]:
    """Every row of the ledger but contents of files, which are named by what they hold."""
    with closing(sqlite3.connect(folder / "w.db")) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        wanted = sorted({name for (name,) in names} - {"file_commits", "file_mementos"})
        return {name: list(connection.execute(f"SELECT * FROM {name}")) for name in wanted}


def threads(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "w-checkpoints.db")) as connection:
        return [
            connection.execute(f"SELECT thread_id, checkpoint_id FROM {table}").fetchall()
            for table in ("checkpoints", "writes")
        ]


class Debugged(Shell):
    """A shell in which `debug` is called with pdb's commands."""

    def debug(self, *args: str, commands: str = "", status: int = 0) -> tuple[str, str]:
        (self.folder / "commands").write_text(commands)
        with (self.folder / "commands").open() as stdin:
            return self.fed(stdin, "debug", P, *args, status=status)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Debugged:
    """A project with one batch; prefixes are shared."""
    folder = tmp_path_factory.mktemp("debugged")
    (folder / "project.py").write_text(PROJECT)
    (folder / "cases.jsonl").write_text(json.dumps({"id": "c1", "state": {"log": []}}) + "\n")
    shell = Debugged(folder)
    matrix = ("--variant", "second=*", "--variant", "third=*")
    shell.wtb("run", P, "--cases", "cases.jsonl", "--runner", "inline", *matrix, status=1)
    return shell


def stops(stdout: str) -> list[str]:
    """The functions in which the debugger stopped, in order, each once."""
    found = re.findall(r"project\.py\(\d+\)(\S+)\(\)", stdout)
    return list(dict.fromkeys(found))


def test_every_node_stops_at_its_first_line_and_nothing_of_the_batch_changes(
    shell: Debugged,
) -> None:
    """A sync node, an async one over its await; all of it on its own thread."""
    before, saved = ledger(shell.folder), threads(shell.folder)
    of_first = ["p state", "n", 'p "I am", mine', "c"]
    of_second = ["n", "n", "n", 'p "I am", mine', "c"]
    commands = "\n".join([*of_first, "c", *of_second, "c", ""])
    stdout, stderr = shell.debug("third=other/c1", commands=commands)
    assert "third=other/c1/0 of batch" in stdout
    assert "from its start" in stdout
    assert stops(stdout) == ["first", "beside", "second", "<lambda>"]
    assert "('I am', 'sync')" in stdout
    assert "('I am', 'after waiting')" in stdout
    assert "ended: completed\nrecorded: completed\nstate: as recorded\nfiles: as recorded" in stdout
    assert "stdin is no terminal" in stderr
    assert ledger(shell.folder) == before
    assert threads(shell.folder) == saved
    assert not [p for p in (shell.folder / "out" / "workspaces").rglob("*") if p.is_file()]


def test_a_failed_cell_begins_before_its_failure_and_stops_where_it_raises(
    shell: Debugged,
) -> None:
    """Its prefix is a trunk's: the checkpoint is in another thread."""
    before = ledger(shell.folder)
    stdout, _ = shell.debug(
        "second=broken/c1", "--post-mortem", commands='p "missing is", missing\nq\n', status=1
    )
    assert "(after first)" in stdout
    assert "node 'second' raised KeyError: 'key'; post-mortem" in stdout
    assert stops(stdout) == ["broken"]
    assert "('missing is', {})" in stdout
    assert "ended: failed: node 'second': KeyError: 'key'" in stdout
    assert ledger(shell.folder) == before


def test_from_a_checkpoint_with_changed_code(shell: Debugged) -> None:
    """What differs from the recorded end is named; --keep keeps the run, --json is one document."""
    cells = shell.json("results", P, "--cells")["cells"]
    cell = next(c for c in cells if c["combination"] == "baseline")
    history = shell.json("history", P, cell["execution_id"])["checkpoints"]
    at = next(point["checkpoint_id"] for point in history if "second" in point["nodes"])
    (shell.folder / "changed").touch()
    try:
        stdout, _ = shell.debug(cell["execution_id"][:13], "--at", at, "--keep", commands="c\n")
        assert stops(stdout) == ["third"]
        assert "state: not as recorded: log\nfiles: as recorded" in stdout
        kept = str(re.findall(r"kept: wtb history \S+ (\S+)", stdout)[0])
        state = shell.json("state", P, kept)["values"]
        assert state["log"][-1] == "third changed"
        assert state["log"][0] == "first 2"
        assert [p["nodes"] for p in shell.json("history", P, kept)["checkpoints"]][-1] == ["third"]
        stdout, _ = shell.debug("baseline/c1/0", "--node", "third", "--json", commands="c\n")
        document = json.loads(stdout)
        assert document["different"] == {"state": ["log"], "files": []}
        assert document["execution_id"] is None
    finally:
        (shell.folder / "changed").unlink()
    (batch,) = shell.json("list", P)
    assert batch["cells"] == {"completed": 2, "failed": 2}


def test_leaving_ends_the_run_also_in_a_node_that_is_tried_again(shell: Debugged) -> None:
    """And so does the end of stdin."""
    before = ledger(shell.folder)
    for commands in ("q\n", ""):
        stdout, _ = shell.debug("baseline/c1", commands=commands)
        assert stops(stdout) == ["first"]
        assert stdout.count("-- node") == 1
        assert stdout.rstrip().endswith("left before the end")
    assert ledger(shell.folder) == before


BAD = {
    "no such place": (("baseline/c9",), "'baseline/c9'; there is: baseline/c1/0, second=broken"),
    "no such id": (("zzz",), "no execution 'zzz'"),
    "no such node": (("baseline/c1", "--node", "fourth"), "no node 'fourth'; there is: "),
    "no such checkpoint": (("baseline/c1", "--at", "zzz"), "'zzz'; there is: "),
    "no such batch": (("baseline/c1", "--batch", "zzz"), "no batch 'zzz'; there is: "),
}


@pytest.fixture(scope="module")
def mistakes(shell: Debugged) -> dict[str, tuple[int, str, str]]:
    """What `wtb debug` answers to each of `BAD`."""
    return answers(shell, {name: ("debug", P, *args) for name, (args, _) in BAD.items()})


@pytest.mark.parametrize("name", BAD)
def test_unknown_names(mistakes: dict[str, tuple[int, str, str]], name: str) -> None:
    status, _, stderr = mistakes[name]
    assert status == 2
    assert BAD[name][1] in stderr
    assert stderr.count("\n") == 1
