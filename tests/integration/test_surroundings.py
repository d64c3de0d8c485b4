"""Secrets, the current directory and traces around user code, on the inline runner."""

from __future__ import annotations

import json
import logging
import operator
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.context import register_configure_hook
from langgraph.graph import START, StateGraph

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.errors import FilesOutsideWarning, InfrastructureError, InvalidInputError
from wtb_prefect.infrastructure.workspace.current_directory import working_in

CANARY = "sk-canary-0123456789"
CASES: list[dict[str, Any]] = [{"id": "c", "state": {"log": []}}]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


Make = Callable[..., TestBench]


@pytest.fixture
def make_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Benches whose stores are below `.wtb` and whose current directory is `here`."""
    opened = []
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def make(bodies: dict[str, Any], where: Path = tmp_path / ".wtb", **options: Any) -> TestBench:
        builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        before = START
        for name, body in bodies.items():
            builder.add_node(name, body)
            builder.add_edge(before, name)
            before = name
        project = WorkflowProject(
            "p", builder, db_path=where / "w.db", output_dir=where / "out", **options
        )
        opened.append(TestBench(project))
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


def stored(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_secret_reaches_nodes_and_no_store(
    make_bench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_API_KEY", CANARY)

    def leaks(state: State) -> dict[str, Any]:
        key = os.environ["FAKE_API_KEY"]
        print("printed", key)
        logging.getLogger("client").error("logged %s", key)
        return {"log": [f"{len(key)} characters"]}

    def raises(state: State) -> dict[str, Any]:
        raise RuntimeError("refused: " + os.environ["FAKE_API_KEY"])

    def inner(state: State) -> dict[str, Any]:
        return raises(state)

    subgraph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    subgraph.add_node("inner", inner)
    subgraph.add_edge(START, "inner")
    bench = make_bench({"leaks": leaks, "last": lambda state: {}})
    bench.project.variant("last", "raises", raises)
    bench.project.variant("last", "below", subgraph.compile())

    @bench.project.evaluator
    def score(state: State) -> int:
        raise ValueError(os.environ["FAKE_API_KEY"])

    result = bench.batch({"last": "*"}, CASES, runner="inline")
    done, *failed = sorted(result.cells, key=lambda cell: cell.combination)
    assert done.state["log"] == [f"{len(CANARY)} characters"]
    assert done.result.score_errors == {"score": "ValueError: ***FAKE_API_KEY***"}
    assert [str(cell.error and cell.error.message) for cell in failed] == [
        "refused: ***FAKE_API_KEY***"
    ] * 2
    texts = [line.text for line in bench.logs(str(done.execution_id))]
    assert texts[:2] == ["printed ***FAKE_API_KEY***", "client: logged ***FAKE_API_KEY***"]
    bench.close()
    assert b"***FAKE_API_KEY***" in stored(tmp_path / ".wtb")
    assert CANARY.encode() not in stored(tmp_path / ".wtb")


def test_a_record_with_a_secret_is_masked_for_every_handler(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Prefect's handler, for one, sends records to a server."""
    monkeypatch.setenv("FAKE_API_KEY", CANARY)

    def node(state: State) -> dict[str, Any]:
        try:
            raise ValueError(CANARY)
        except ValueError:
            logging.getLogger("client").exception("with %s", CANARY)
        return {}

    make_bench({"node": node}).batch(cases=CASES, runner="inline")
    assert "with ***FAKE_API_KEY***" in caplog.text
    assert CANARY not in caplog.text


def writes(name: str, **options: Any) -> Callable[[State], dict[str, Any]]:
    def node(state: State) -> dict[str, Any]:
        Path(f"{name}.txt").write_text(f"{len(state['log'])}")
        seen = sorted(path.name for path in Path.cwd().iterdir())
        os.chdir(options.get("goes_to", "."))
        if options.get("raises"):
            raise ValueError(name)
        return {"log": [",".join(seen)]}

    return node


def test_nodes_and_evaluators_work_in_their_workspace(make_bench: Make, tmp_path: Path) -> None:
    """Relative files are committed, forked and isolated; the directory is given back."""
    bench = make_bench(
        {"a": writes("a", goes_to="/"), "b": writes("b"), "c": writes("c")}, cwd="workspace"
    )
    bench.project.variant("b", "other", writes("other", goes_to="/"))
    bench.project.variant("b", "bad", writes("bad", raises=True))

    @bench.project.evaluator
    def files(state: State) -> int:
        assert Path.cwd() == current_workspace()
        return len(list(Path.cwd().iterdir()))

    result = bench.batch({"b": "*"}, CASES, runner="inline")
    by_name = {cell.combination: cell for cell in result.cells}
    assert by_name["baseline"].state["log"] == ["a.txt", "a.txt,b.txt", "a.txt,b.txt,c.txt"]
    assert by_name["b=other"].state["log"] == [
        "a.txt",
        "a.txt,other.txt",
        "a.txt,c.txt,other.txt",
    ]
    assert by_name["b=bad"].status == "failed"
    assert by_name["baseline"].scores == {"files": 3.0}
    assert sorted(bench.files(str(by_name["b=other"].execution_id))) == [
        "a.txt",
        "c.txt",
        "other.txt",
    ]
    assert Path.cwd() == tmp_path / "here"
    assert not list(Path.cwd().iterdir())


def test_parallel_siblings_share_one_workspace(make_bench: Make) -> None:
    meet = threading.Barrier(2, timeout=10)

    def sibling(name: str) -> Callable[[State], dict[str, Any]]:
        def node(state: State) -> dict[str, Any]:
            meet.wait()
            Path(name).touch()
            meet.wait()
            return {"log": [name]}

        return node

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for name in ("left", "right"):
        builder.add_node(name, sibling(name))
        builder.add_edge(START, name)
    bench = make_bench({}, cwd="workspace")
    bench.project.graph = builder
    (cell,) = bench.batch(cases=CASES, runner="inline").cells
    assert sorted(bench.files(str(cell.execution_id))) == ["left", "right"]


def test_what_one_current_directory_cannot_do_is_refused(make_bench: Make, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cwd is 'workspace' or None, not 'elsewhere'"):
        WorkflowProject("p", cwd="elsewhere")  # type: ignore[arg-type]
    bench = make_bench({"a": writes("a")}, cwd="workspace")
    with pytest.raises(InvalidInputError, match="use the runner 'ray' or 'inline'"):
        bench.batch(cases=CASES, runner="threads")
    with pytest.raises(InvalidInputError, match="max_parallel is 2, but project 'p' has cwd"):
        bench.batch(cases=CASES, runner="inline", max_parallel=2)
    (tmp_path / "taken").mkdir()
    with working_in(tmp_path / "taken"):
        with pytest.raises(InfrastructureError, match=r"works in .*taken already"):
            bench.batch(cases=CASES, runner="inline")
        assert Path.cwd() == tmp_path / "taken"
    assert bench.batch(cases=CASES, runner="inline", max_parallel=1).status == "completed"


def test_files_beside_the_workspaces_give_one_warning(make_bench: Make) -> None:
    def node(state: State) -> dict[str, Any]:
        for number in range(7):
            Path(f"stray-{number}.txt").touch()
        Path("kept.txt").write_text("changed")
        Path(".hidden").touch()
        Path("__pycache__").mkdir(exist_ok=True)
        return {"log": ["x"]}

    Path("kept.txt").write_text("as before")
    Path("untouched.txt").touch()
    bench = make_bench({"node": node})
    with pytest.warns(FilesOutsideWarning) as caught:
        bench.batch(cases=CASES, repeats=3, runner="inline")
    (message,) = [str(warning.message) for warning in caught]
    assert "kept.txt, stray-0.txt, stray-1.txt, stray-2.txt, stray-3.txt and 3 more" in message
    assert "current_workspace()" in message
    assert 'cwd="workspace"' in message


def test_no_warning_for_output_that_goes_to_a_file(tmp_path: Path) -> None:
    """`python bench.py > out.txt`, with the ledger beside it."""
    (tmp_path / "bench.py").write_text(SCRIPT)
    with (tmp_path / "out.txt").open("w") as output:
        ended = subprocess.run(
            [sys.executable, "bench.py", str(tmp_path)],
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    assert (tmp_path / "out.txt").read_text() == "printed\n"
    assert ended.stderr == ""


def test_no_warning_for_the_projects_own_stores(make_bench: Make, tmp_path: Path) -> None:
    def node(state: State) -> dict[str, Any]:
        (current_workspace() / "mine.txt").touch()
        return {"log": ["x"]}

    bench = make_bench({"node": node}, where=Path.cwd())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.batch(cases=CASES, runner="inline")
    Path("new-since.txt").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bench.batch(cases=CASES, runner="inline").node_executions == 0


class Traces(BaseTracer):
    """Every run a tracer sees, as (name, tags, metadata)."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.runs.append(run)


tracer_of_tests: ContextVar[Traces | None] = ContextVar("tracer_of_tests", default=None)
register_configure_hook(tracer_of_tests, inheritable=True)


def test_every_run_of_a_graph_is_labelled_by_its_cell(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sync and async nodes, trunk and leaves; a trunk carries the combinations it stands for."""
    monkeypatch.setenv("FAKE_API_KEY", CANARY)

    async def second(state: State) -> dict[str, Any]:
        return {"log": ["second"]}

    bench = make_bench({"first": lambda state: {"log": ["first"]}, "second": second})
    for number in range(7):
        bench.project.variant("second", f"v{number}", second)
    tracer = Traces()
    token = tracer_of_tests.set(tracer)
    try:
        result = bench.batch({"second": "*"}, CASES, runner="inline", batch_id="traced")
    finally:
        tracer_of_tests.reset(token)
    roots = {run.metadata["wtb_execution_id"]: run for run in tracer.runs}
    assert len(roots) == 1 + 8
    for cell in result.cells:
        root = roots.pop(str(cell.execution_id))
        assert root.metadata["wtb_combinations"] == [cell.combination]
        assert root.metadata["wtb_batch_id"] == "traced"
        assert (root.metadata["wtb_case_id"], root.metadata["wtb_repeat"]) == ("c", 0)
        assert {"wtb", "batch:traced", "case:c", f"combination:{cell.combination}"} <= set(
            root.tags
        )
        assert root.name == f"p c-0 {cell.combination}"
        assert root.child_runs
        assert {child.metadata["wtb_execution_id"] for child in root.child_runs} == {
            str(cell.execution_id)
        }
    (trunk,) = roots.values()
    assert trunk.name == "p c-0 8 combinations"
    assert trunk.metadata["wtb_combinations"][-1] == "and 3 more"
    assert CANARY not in str([run.metadata for run in tracer.runs])


@pytest.fixture
def langsmith_server() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """What LangSmith's client posts, on this machine."""
    posted: list[tuple[str, bytes]] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(1)  # the client asks first what the server can, and posts after
            self._answer(json.dumps({"batch_ingest_config": {}}).encode())

        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"{}")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()


SCRIPT = """
import os, sys
from pathlib import Path
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject

async def node(state):
    print("printed", flush=True)
    return {"answer": 42}

where = Path(sys.argv[1])
if os.environ.get("LANGSMITH_OTEL_ENABLED"):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    provider = TracerProvider()
    exporter = ConsoleSpanExporter(out=(where / "spans.json").open("w"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

builder = StateGraph(dict)
builder.add_node("node", node)
builder.add_edge(START, "node")
project = WorkflowProject("traced", builder, db_path=where / "w.db", output_dir=where)
with TestBench(project) as bench:
    bench.batch(cases=[{"id": "c1", "state": {}}], runner="inline", batch_id="smith")
os._exit(0)  # as a worker that is stopped: nothing is sent at the interpreter's end
"""


def run_traced(folder: Path, **options: str) -> None:
    tracing = ("LANGSMITH", "LANGCHAIN", "OTEL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(tracing)}
    env |= {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": CANARY, **options}
    subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], env=env, check=True)


def test_langsmith_gets_the_runs_of_a_batch_before_it_ends(
    langsmith_server: tuple[str, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    url, posted = langsmith_server
    run_traced(tmp_path, LANGSMITH_ENDPOINT=url)
    sent = b"".join(body for _, body in posted)
    for label in (b'"wtb_batch_id":"smith"', b'"wtb_case_id":"c1"', b'"case:c1"', b"traced c1-0"):
        assert label in sent, (label, [path for path, _ in posted])
    assert CANARY.encode() not in sent


def test_opentelemetry_gets_spans_labelled_by_cell(tmp_path: Path) -> None:
    """LangChain's way to OpenTelemetry is LangSmith's client; the provider is the program's own."""
    run_traced(tmp_path, LANGSMITH_OTEL_ENABLED="true", LANGSMITH_OTEL_ONLY="true")
    spans = (tmp_path / "spans.json").read_text()
    assert '"name": "node"' in spans
    assert '"name": "traced c1-0 baseline"' in spans
    assert spans.count('"langsmith.metadata.wtb_batch_id": "smith"') >= 2
    assert spans.count('"langsmith.metadata.wtb_case_id": "c1"') >= 2
    assert "combination:baseline" in spans
