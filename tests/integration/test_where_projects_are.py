"""Projects written where other processes may not find them: scripts, notebooks, functions."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.errors import GraphError, InvalidInputError
from wtb_prefect.infrastructure.workflow.graph_source import file_being_loaded, load_attribute

SCRIPT = """
from pathlib import Path
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject

builder = StateGraph(dict)
builder.add_node("node", lambda state: {"answer": 42})
builder.add_edge(START, "node")
project = WorkflowProject("p", builder, db_path="w.db", output_dir="out")
bench = TestBench(project)
"""
RUN = 'print(bench.batch(cases=[{"id": "c", "state": {}}], runner="RUNNER").status)\n'
NOBODY = "runner 'ray' imports the project in other processes, but project 'p' "
ADVICE = "assign it to a name at the top level of a .py file, or use runner='inline'"


def refusal(project: WorkflowProject) -> str:
    with TestBench(project) as bench, pytest.raises(InvalidInputError) as caught:
        bench.batch(cases=[{"id": "c", "state": {}}], runner="ray")
    return str(caught.value)


def test_a_project_inside_a_function_is_refused_in_one_line() -> None:
    message = refusal(WorkflowProject("p"))
    assert message == f"{NOBODY}is not a name at the top level of {__name__}: {ADVICE}"


def test_a_project_made_by_exec_is_refused_in_one_line() -> None:
    made: dict[str, WorkflowProject] = {}
    code = "from wtb_prefect import WorkflowProject; project = WorkflowProject('p')"
    exec(code, made | {"__name__": "nowhere"}, made)
    assert "was made by exec() in 'nowhere', which is no module" in refusal(made["project"])


def test_a_module_without_a_file_that_can_be_imported_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("made_up")
    exec("from wtb_prefect import WorkflowProject; p = WorkflowProject('p')", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_up", module)
    assert module.__dict__["p"].import_path == "made_up:p"


@pytest.mark.parametrize(
    ("begin", "options", "where"),
    [
        ("import sys; sys.modules['ipykernel'] = sys\n", ("-c",), "a notebook"),
        ("", ("-c",), "code that was not read from a .py file"),
        ("", ("-i",), "an interactive session"),
    ],
)
def test_notebooks_and_prompts_are_named(
    tmp_path: Path, begin: str, options: tuple[str, ...], where: str
) -> None:
    code = f"{begin}{SCRIPT}{RUN.replace('RUNNER', 'inline')}{RUN.replace('RUNNER', 'ray')}"
    command = [sys.executable, *options, *([code] if options == ("-c",) else [])]
    ended = subprocess.run(
        command, cwd=tmp_path, input=code, capture_output=True, text=True, check=False
    )
    assert "completed" in ended.stdout, ended.stderr
    assert f"{NOBODY}was defined in {where}: {ADVICE}" in ended.stderr
    assert not (tmp_path / "out" / "prefect").exists()


def test_a_file_that_runs_a_batch_at_its_top_level_is_not_a_project(tmp_path: Path) -> None:
    """Each worker would run it again."""
    file = tmp_path / "unguarded.py"
    file.write_text(
        SCRIPT.replace('"w.db"', f'"{tmp_path}/w.db"') + RUN.replace("RUNNER", "inline")
    )
    with pytest.raises(GraphError, match=r"below `if __name__ == \"__main__\":`") as caught:
        load_attribute(f"{file}:project")
    assert "\n" not in str(caught.value)
    assert file_being_loaded() is None
    assert not (tmp_path / "w.db").exists()


def test_the_same_file_as_a_script_runs_inline(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + RUN.replace("RUNNER", "inline"))
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "completed\n"
