"""The command line as a user meets it: real processes, exit statuses, a clear line per mistake."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PROJECT = """
import operator
import os
import time
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph

from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent
print("a project that prints when it is imported")


class State(TypedDict):
    question: str
    log: Annotated[list[str], operator.add]


def step(name, tag=""):
    def node(state: State):
        print("a node that prints")
        if name in os.environ.get("SLOW", "").split():
            (HERE / "started").touch()
            while not (HERE / "go").exists():
                time.sleep(0.05)
        if state["question"] == f"break {name}{tag}":
            raise ValueError(f"no way with\\n{tag}")
        (current_workspace() / f"{name}.txt").write_text(tag)
        return {"log": [name + tag]}

    return node


def build():
    graph = StateGraph(State)
    for before, name in ((START, "first"), ("first", "second"), ("second", "third")):
        graph.add_node(name, step(name))
        graph.add_edge(before, name)
    return graph


project = WorkflowProject("little", build, db_path=HERE / "data" / "wtb.db",
                          output_dir=HERE / "data" / "outputs")
project.variant("second", "loud", step("second", "!"))
project.variant("third", "longer", step("third", "??"))


@project.evaluator(primary=True)
def size(state):
    return len("".join(state["log"]))


not_a_project = 7
"""

DOUBLE = """
from wtb_prefect import WorkflowProject
project = WorkflowProject("double")
project.variant("a", "x", print)
project.variant("a", "x", print)
"""

CASES = [
    {"id": "c1", "state": {"question": "fine", "log": []}},
    {"id": "c2", "state": {"question": "break second!", "log": []}, "tags": ["odd"]},
]

MATRIX = ("--variant", "second=*", "--variant", "third=original,longer")
RUN = ("run", "project.py:project", "--cases", "cases.jsonl", "--runner", "inline")


class Shell:
    """A folder in which `wtb` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        foreign = ("PREFECT", "RAY", "PYTEST")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        self.env = {**kept, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
        self.env.pop("NO_COLOR", None)

    def start(self, *args: str, stdin: Any = None, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "wtb_prefect.cli", *args],
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wtb(self, *args: str, status: int = 0, **env: str) -> tuple[str, str]:
        return self.fed(None, *args, status=status, **env)

    def fed(self, stdin: Any, *args: str, status: int = 0, **env: str) -> tuple[str, str]:
        """With a file as its stdin."""
        with self.start(*args, stdin=stdin, **env) as process:
            stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == status, stderr
        return stdout, stderr

    def json(self, *args: str, status: int = 0) -> Any:
        return json.loads(self.wtb(*args, "--json", status=status)[0])


def make_shell(folder: Path) -> Shell:
    (folder / "project.py").write_text(PROJECT)
    (folder / "double.py").write_text(DOUBLE)
    (folder / "broken.py").write_text("project = 1 / 0\n")
    (folder / "empty.jsonl").write_text("\n")
    (folder / "bad.jsonl").write_text('{"id": "c1"}\n{"id": "c2", "state": }\n')
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES))
    return Shell(folder)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A project that was never run."""
    return make_shell(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, str, str]:
    """A project with one batch, and what its run said."""
    shell = make_shell(tmp_path_factory.mktemp("done"))
    return shell, *shell.wtb(*RUN, *MATRIX, status=1)


def test_run_shows_plan_comparison_and_failures(done: tuple[Shell, str, str]) -> None:
    _, stdout, _ = done
    assert "4 combinations x 2 cases x 1 repeat = 8 cells: 8 new" in stdout
    assert "best: third=longer" in stdout
    assert any(line.split()[:2] == ["*", "third=longer"] for line in stdout.splitlines())
    assert "failed: second=loud on c2: node 'second': ValueError: no way with" in stdout
    assert "node bodies of the batch: 12, against 22 unshared" in stdout
    assert "\x1b" not in stdout


def test_the_same_run_again_runs_nothing(done: tuple[Shell, str, str]) -> None:
    document = done[0].json(*RUN, *MATRIX, "--cells", status=1)
    assert document["run_now"] == 0
    assert document["node_executions"] == 12
    assert len(document["cells"]) == 8
    assert {cell["combination"] for cell in document["not_completed"]} == {
        "second=loud",
        "second=loud,third=longer",
    }
    assert document["not_completed"][0]["error"]["type"] == "ValueError"


def test_plan_counts_and_runs_nothing(done: tuple[Shell, str, str]) -> None:
    document = done[0].json(
        "plan", "project.py:project", "--cases", "cases.jsonl", "--repeats", "2", *MATRIX
    )
    assert document["counts"]["adopted"] == 6
    assert document["to_run"] == 10
    assert len(document["cells"]) == 16
    assert [node["runs"] for node in document["nodes"]] == [1, 2, 4]
    assert len(done[0].json("list", "project.py:project")) == 1


def test_a_matrix_can_be_read_from_a_file(done: tuple[Shell, str, str]) -> None:
    shell = done[0]
    (shell.folder / "matrix.json").write_text('[{"second": "loud"}, {}]')
    document = shell.json(
        "plan", "project.py:project", "--cases", "cases.jsonl", "--matrix", "@matrix.json"
    )
    assert document["combinations"] == ["second=loud", "baseline"]


def test_list_and_results(done: tuple[Shell, str, str]) -> None:
    shell = done[0]
    (batch,) = shell.json("list", "project.py:project")
    assert batch["cells"] == {"completed": 6, "failed": 2}
    assert (batch["status"], batch["runner"], batch["owner_alive"]) == ("completed", "inline", None)
    stdout, _ = shell.wtb("list", "project.py:project")
    assert f"{batch['batch_id']}  completed  6 completed, 2 failed" in stdout
    report = shell.json("results", "project.py:project", batch["batch_id"][:6])
    row = next(row for row in report["table"] if row["combination"] == "third=longer")
    assert row["metrics"]["size"] == {
        "mean": 18.0,
        "spread": 0.0,
        "n": 2,
        "goal": "max",
        "primary": True,
        "labels": {},
    }
    cells, _ = shell.wtb("results", "project.py:project", "--cells")
    assert "no way with" in cells
    assert cells.count("failed") == 2


def test_history_state_and_files(done: tuple[Shell, str, str]) -> None:
    shell = done[0]
    cells = shell.json("results", "project.py:project", "--cells")["cells"]
    cell = next(c for c in cells if (c["combination"], c["case_id"]) == ("third=longer", "c1"))
    short = cell["execution_id"][:13]
    history = shell.json("history", "project.py:project", short)["checkpoints"]
    after_first = next(point for point in history if point["nodes"] == ["first"])
    at = ("--at", after_first["checkpoint_id"])
    assert after_first["next"] == ["second"]
    assert shell.json("state", "project.py:project", short)["values"]["log"] == [
        "first",
        "second",
        "third??",
    ]
    assert shell.json("state", "project.py:project", short, *at)["values"]["log"] == ["first"]
    files = shell.json("files", "project.py:project", short, *at)["files"]
    assert [file["path"] for file in files] == ["first.txt"]
    stdout, _ = shell.wtb("files", "project.py:project", short)
    assert "third.txt" in stdout


def test_logs_of_a_cell(done: tuple[Shell, str, str]) -> None:
    """By place or by id; nodes print nothing into the output of the run itself."""
    shell, run_stdout, run_stderr = done
    assert "a node that prints" not in run_stdout + run_stderr
    stdout, _ = shell.wtb("logs", "project.py:project", "second=loud/c2")
    assert "failed, 3 lines" in stdout
    timed = [line.split() for line in stdout.splitlines() if line[:2].isdigit()]
    assert [words[1] for words in timed] == ["first", "second", "second"]
    assert "ValueError: no way with" in stdout
    document = shell.json("logs", "project.py:project", "third=longer/c1/0", "--node", "third")
    assert [(line["level"], line["text"]) for line in document["lines"]] == [
        ("stdout", "a node that prints")
    ]
    for cell in shell.json("results", "project.py:project", "--cells")["cells"][:2]:
        by_cell = shell.json("logs", "project.py:project", cell["cell_id"][:20])
        by_execution = shell.json("logs", "project.py:project", cell["execution_id"][:20])
        assert by_cell == by_execution
    _, stderr = shell.wtb("logs", "project.py:project", "second=loud/c9", status=2)
    assert "'second=loud/c9'; there is: " in stderr


@pytest.mark.parametrize("command", ["list", "results"])
def test_looking_is_quick_and_imports_only_the_ledger(
    done: tuple[Shell, str, str], command: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done[0].wtb(command, "project.py:project")
    # CPU time: the wall clock of a machine that does other things says little.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.5
    # Python says of each module it imports when.
    _, imported = done[0].wtb(command, "project.py:project", PYTHONVERBOSE="1")
    assert "import 'sqlalchemy'" in imported
    for heavy in ("prefect", "ray", "langgraph", "alembic"):
        assert f"import '{heavy}'" not in imported


def test_a_project_that_moved_its_ledger_is_looked_up_again(tmp_path: Path) -> None:
    shell = make_shell(tmp_path)
    shell.wtb(*RUN, *MATRIX, status=1)
    assert len(shell.json("list", "project.py:project")) == 1
    (tmp_path / "project.py").write_text(PROJECT.replace('"data"', '"elsewhere"'))
    assert shell.json("list", "project.py:project") == []
    assert not (tmp_path / "elsewhere").exists()


def test_some_cells_and_then_the_rest(tmp_path: Path) -> None:
    shell = make_shell(tmp_path)
    stdout, _ = shell.wtb(*RUN, *MATRIX, "--limit", "1")
    assert "8 cells: 4 new, 4 left out by the filter" in stdout
    assert "4 cells were left out by the filter" in stdout
    (batch,) = shell.json("list", "project.py:project")
    assert (batch["status"], batch["cells"]) == ("partial", {"completed": 4, "pending": 4})
    document = shell.json(*RUN, *MATRIX, "--combination", "*longer", "--case", "c?", status=1)
    assert (document["batch_id"], document["run_now"]) == (batch["batch_id"], 4)
    assert shell.json(*RUN, *MATRIX, status=1)["run_now"] == 1
    look = ("results", "project.py:project", "--cells", "--case", "c2", "--combination", "second*")
    cells = shell.json(*look)["cells"]
    assert [(cell["case_id"], cell["status"]) for cell in cells] == [("c2", "failed")] * 2
    tagged = shell.json("results", "project.py:project", "--tag", "odd", "--cells")["cells"]
    assert {cell["case_id"] for cell in tagged} == {"c2"}
    _, stderr = shell.wtb(*look, "--tag", "even", status=2)
    assert "no tag of a case 'even'; there is: odd" in stderr


PLAN = ("plan", "project.py:project", "--cases", "cases.jsonl")

BAD = {
    "no such file": (("plan", "nowhere.py:project", "--cases", "cases.jsonl"), "nowhere.py"),
    "no such module": (("list", "no_such_package.module:project"), "no_such_package.module"),
    "no such attribute": (("list", "project.py:projcet"), "'projcet'; there is: "),
    "no attribute": (("list", "project.py"), "path/to/file.py:project"),
    "something else": (("list", "project.py:not_a_project"), "is a int, not a WorkflowProject"),
    "a project that raises": (("list", "broken.py:project"), "ZeroDivisionError"),
    "a variant twice": (("list", "double.py:project"), "node 'a' has a variant 'x' already"),
    "no such node": ((*PLAN, "--variant", "fourth=*"), "'fourth'; there is: first, second, third"),
    "no such variant": ((*PLAN, "--variant", "second=quiet"), "'quiet'; there is: loud, original"),
    "no such runner": ((*RUN[:-1], "fast"), "'fast'; there is: inline, ray, threads"),
    "no such case file": ((*RUN, "--cases", "nothing.jsonl"), "'nothing.jsonl'; there is: "),
    "no case": ((*RUN, "--cases", "empty.jsonl"), "there are no cases"),
    "no case file": (("plan", "project.py:project"), "--cases FILE"),
    "no repeats": ((*RUN, "--repeats", "0"), "at least 1"),
    "repeats in words": ((*RUN, "--repeats", "two"), "invalid int value: 'two'"),
    "nothing in flight": ((*RUN, "--max-parallel", "0"), "max_parallel is 0"),
    "a node twice": ((*PLAN, "--matrix", '{"second": "*", "second": "*"}'), "'second' twice"),
    "a variant option twice": ((*PLAN, *MATRIX, "--variant", "second=*"), "'second' twice"),
    "an empty choice": ((*PLAN, "--variant", "second="), "no variant for node 'second'"),
    "an empty matrix": ((*PLAN, "--matrix", "[]"), "empty list"),
    "no JSON": ((*PLAN, "--matrix", "{second}"), "--matrix is not JSON"),
    "no matrix file": ((*PLAN, "--matrix", "@nothing.json"), "nothing.json cannot be read"),
    "two matrices": ((*PLAN, *MATRIX, "--matrix", "{}"), "not both"),
    "no such case": ((*PLAN, "--case", "c9*"), "no case 'c9*'; there is: c1, c2"),
    "no such combination": ((*RUN, "--combination", "loud"), "'loud'; there is: baseline"),
    "no such tag": ((*RUN, "--tag", "even"), "'even'; there is: odd"),
    "no case at all": ((*RUN, "--limit", "0"), "limit is 0"),
    "no batch": (("results", "project.py:project"), "has no batch yet"),
    "no such command": (("rnu",), "invalid choice: 'rnu'"),
    "no command": ((), "required: COMMAND"),
}


MANY = """
import contextlib, io, json, sys
from wtb_prefect.cli import main

answers = []
for args in json.load(sys.stdin):
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = main(args)
    answers.append([status, stdout.getvalue(), stderr.getvalue()])
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def mistakes(fresh: Shell) -> dict[str, tuple[int, str, str]]:
    """What `wtb` answers to each of `BAD`."""
    return answers(fresh, {name: args for name, (args, _) in BAD.items()})


def answers(shell: Shell, commands: dict[str, tuple[str, ...]]) -> dict[str, tuple[int, str, str]]:
    """Status, stdout and stderr of commands; one process, because importing LangGraph is slow."""
    answered = subprocess.run(
        [sys.executable, "-c", MANY],
        cwd=shell.folder,
        env=shell.env,
        input=json.dumps(list(commands.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [(status, out, err) for status, out, err in json.loads(answered.stdout)]
    return dict(zip(commands, found, strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(
    fresh: Shell, mistakes: dict[str, tuple[int, str, str]], name: str
) -> None:
    status, stdout, stderr = mistakes[name]
    assert status == 2
    assert BAD[name][1] in stderr
    assert stderr.count("\n") == 1
    assert "a node that prints" not in stdout
    assert not (fresh.folder / "data" / "outputs" / "workspaces").exists()


def test_bad_cases_are_one_line_each(fresh: Shell) -> None:
    _, stderr = fresh.wtb(*RUN, "--cases", "bad.jsonl", status=2)
    assert stderr.splitlines()[0] == "wtb: bad.jsonl:1: the field 'state' is missing"
    assert stderr.splitlines()[1].startswith("bad.jsonl:2: not JSON")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("results", "project.py:project", "nothing"), "no batch 'nothing'; there is: "),
        (("history", "project.py:project", "zzz"), "no execution 'zzz'; there is: "),
    ],
)
def test_unknown_ids_name_those_that_exist(
    done: tuple[Shell, str, str], args: tuple[str, ...], expected: str
) -> None:
    assert expected in done[0].wtb(*args, status=2)[1]


def test_an_unknown_checkpoint(done: tuple[Shell, str, str]) -> None:
    shell = done[0]
    cell = shell.json("results", "project.py:project", "--cells")["cells"][0]
    look = ("files", "project.py:project", cell["execution_id"], "--at")
    assert "'zzz'; there is: " in shell.wtb(*look, "zzz", status=2)[1]
    assert "give more of it" in shell.wtb(*look, "1", status=2)[1]


def test_debug_shows_the_traceback(fresh: Shell) -> None:
    _, stderr = fresh.wtb("list", "nowhere.py:project", "--debug", status=1)
    assert "Traceback" in stderr


def test_a_ledger_that_is_no_database_is_infrastructure(tmp_path: Path) -> None:
    shell = make_shell(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wtb.db").write_text("no database" * 100)
    _, stderr = shell.wtb("list", "project.py:project", status=4)
    assert "wtb: the ledger" in stderr
    assert stderr.count("\n") == 1


def test_ctrl_c_keeps_what_ran_and_a_second_terminal_is_refused(tmp_path: Path) -> None:
    shell = make_shell(tmp_path)
    args = (*RUN, *MATRIX, "--max-parallel", "1")
    with shell.start(*args, SLOW="second third") as first:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        _, refused = shell.wtb(*args, status=4)
        first.send_signal(signal.SIGINT)
        time.sleep(1)  # a node that runs in a thread is waited for: it ends after the signal
        (tmp_path / "go").touch()
        _, stderr = first.communicate(timeout=60)
    assert f"process {first.pid} on {socket.gethostname()}" in refused
    assert refused.count("\n") == 1
    assert first.returncode == 130
    assert "has 0 of 8 cells and 1 node bodies saved: run the same command again" in stderr
    assert "Traceback" not in stderr
    (batch,) = shell.json("list", "project.py:project")
    assert (batch["status"], batch["owner_alive"]) == ("interrupted", None)
    shell.wtb("check", "project.py:project")  # nothing says that it still runs
    document = shell.json(*args, status=1)
    assert document["node_executions"] == 12
    assert document["run_now"] == 11
    assert sum(row["completed"] for row in document["table"]) == 6


def test_a_narrow_terminal_hides_no_combination(done: tuple[Shell, str, str]) -> None:
    from rich.console import Console

    from wtb_prefect import terminal
    from wtb_prefect.application.read_results import read_report
    from wtb_prefect.bootstrap.ledger import open_ledger
    from wtb_prefect.commands.projects import find_project

    shell = done[0]
    project = find_project(f"{shell.folder / 'project.py'}:project")
    with open_ledger(project.locations.database_url) as open_uow:
        assert open_uow is not None
        with open_uow() as uow:
            (batch,) = uow.batch_tests.list(project.workflow_id)
        report = read_report(open_uow, batch.batch_id)
    console = Console(width=60, record=True, force_terminal=True, file=io.StringIO())
    console.print(terminal.comparison_table(report, console))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 60
    assert any("second=loud," in line for line in lines)
    assert "…" not in "".join(lines)


def test_init_writes_a_project_and_never_overwrites(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    document = shell.json("init", "rag")
    assert {path.name for path in (tmp_path / "rag").iterdir()} == {
        "project.py",
        "questions.jsonl",
        "README.md",
        "base_workspace",
    }
    assert document["next"][0] == "cd rag"
    assert shell.json("init", "rag")["written"] == []
    (tmp_path / "rag" / "project.py").write_text("mine")
    assert "is not the starter's" in shell.wtb("init", "rag", status=2)[1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert "is not empty: there is notes.txt" in shell.wtb("init", "other", status=2)[1]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_doctor(fresh: Shell) -> None:
    document = fresh.json("doctor")
    checks = {check["name"]: check for check in document["checks"]}
    assert document["healthy"]
    assert checks["prefect"]["status"] == "ok"
    assert checks["PREFECT_API_URL"]["value"] == "not set"
    stdout, _ = fresh.wtb("doctor", status=4, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "missing or broken: PREFECT_API_URL" in stdout


def test_help_names_every_command(fresh: Shell) -> None:
    stdout, _ = fresh.wtb("--help")
    names = ("init", "demo", "plan", "run", "list", "results", "history", "state", "files", "logs")
    for name in (*names, "debug", "delete", "doctor"):
        assert f"    {name} " in stdout
