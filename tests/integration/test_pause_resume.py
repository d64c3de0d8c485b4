"""Holding an execution and going on with it: in this process, in another one, after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from controlled import START, STRAIGHT, Place, until

from wtb_prefect import TestBench
from wtb_prefect.errors import (
    GraphError,
    IllegalMoveError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from wtb_prefect.sdk.run_result import RunResult


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def start_elsewhere(place: Place, node: str, then: str = "") -> tuple[str, subprocess.Popen[str]]:
    """A run in another process that is inside `node` now: (execution id, process)."""
    place.hold(node)
    process = place.elsewhere(f"""
        r = bench.run(initial_state={START!r})
        print(r.status, r.state["log"])
        {then}
    """)
    until(lambda: node in (place.folder / "bodies.txt").read_text().split())
    with place.bench() as bench, bench.session.open_uow() as uow:
        (execution,) = uow.executions.list()
    return execution.execution_id, process


class TestBreakpoints:
    def test_stops_before_the_node_and_goes_on_without_running_anything_twice(
        self, place: Place
    ) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["c"])
            assert (held.status, held.next) == ("paused", ("c",))
            assert sorted(place.bodies()) == ["a", "b", "j", "p", "q", "x", "y"]
            done = bench.resume(held.execution_id)
        assert (done.status, done.next, done.state["log"]) == ("completed", (), STRAIGHT)
        assert place.bodies() == ["c", "d"]

    def test_one_of_two_siblings_holds_both(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["y"])
            assert set(held.next) == {"x", "y"}
            assert place.bodies() == ["a", "b"]
            assert bench.resume(held.execution_id).state["log"] == STRAIGHT

    def test_holds_at_every_visit_of_a_loop(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state={**START, "rounds": 3}, breakpoints=["b"])
            visits = 0
            while held.status == "paused":
                assert held.next == ("b",)
                visits += 1
                held = bench.resume(held.execution_id)
        assert (held.status, visits) == ("completed", 3)

    def test_inside_a_subgraph(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["sub|q"])
            assert (held.status, held.next) == ("paused", ("sub",))
            assert place.bodies()[-1] == "p"
            done = bench.resume(held.execution_id)
        assert done.state["log"] == STRAIGHT
        assert place.bodies() == ["q", "c", "d"]

    def test_before_the_first_node(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["a"])
            assert (held.next, place.bodies()) == (("a",), [])
            assert bench.resume(held.execution_id).state["log"] == STRAIGHT

    def test_new_ones_take_the_place_of_the_old_ones(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["b"])
            held = bench.resume(held.execution_id, breakpoints=["d"])
            assert held.next == ("d",)

    def test_one_that_the_graph_does_not_have(self, place: Place) -> None:
        with place.bench() as bench, pytest.raises(NotFoundError, match="no node 'z'; there is: a"):
            bench.run(initial_state=START, breakpoints=["z"])
        assert place.bodies() == []


def test_stepping_runs_one_super_step_at_a_time_and_ends_like_a_straight_run(place: Place) -> None:
    with place.bench() as bench:
        held = bench.run(initial_state=START, breakpoints=["a"])
        ran = []
        while held.status == "paused":
            held = bench.step(held.execution_id)
            ran.append(place.bodies())
        straight = bench.run(initial_state=START)
        paths = (
            [(point.step, point.nodes) for point in bench.history(run.execution_id)]
            for run in (held, straight)
        )
        steps, expected = paths
        assert bench.diff(held.execution_id, None, None, straight.execution_id).is_empty
    assert held.state["log"] == STRAIGHT
    assert [sorted(one) for one in ran] == [
        ["a"], ["b"], ["x", "y"], ["j"], ["p", "q"], ["c"], ["d"]
    ]  # fmt: skip
    assert steps == expected


class TestFromAnotherProcess:
    def test_pauses_before_the_next_super_step_and_resumes_here(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "b")
        with place.bench() as bench:
            assert bench.pause(execution_id, wait=0).status == "running"
            place.let_go()
            held = _wait_left(bench, execution_id)
            assert (held.status, set(held.next)) == ("paused", {"x", "y"})
            out, err = process.communicate(timeout=60)
            assert out.startswith("paused"), err
            assert place.bodies() == ["a", "b"]
            done = bench.resume(execution_id)
        assert (done.status, done.state["log"]) == ("completed", STRAIGHT)
        assert sorted(place.bodies()) == sorted(["x", "y", "j", "p", "q", "c", "d"])

    def test_pause_waits_until_it_has_taken_effect(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "b")
        threading.Timer(0.3, place.let_go).start()
        with place.bench() as bench:
            assert bench.pause(execution_id).status == "paused"
        process.communicate(timeout=60)

    def test_a_stopped_one_stays_cancelled(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "b")
        threading.Timer(0.3, place.let_go).start()
        with place.bench() as bench:
            assert bench.stop(execution_id).status == "cancelled"
            out, err = process.communicate(timeout=60)
            assert out.startswith("cancelled"), err
            assert place.bodies() == ["a", "b"]
            with pytest.raises(IllegalMoveError, match="it is cancelled"):
                bench.resume(execution_id)
            assert bench.execution(execution_id).status == "cancelled"

    def test_stopped_in_its_last_node_it_is_cancelled_too(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "d")
        threading.Timer(0.3, place.let_go).start()
        with place.bench() as bench:
            assert bench.stop(execution_id).status == "cancelled"
        process.communicate(timeout=60)

    def test_paused_in_its_last_node_it_completes(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "d")
        threading.Timer(0.3, place.let_go).start()
        with place.bench() as bench:
            assert bench.pause(execution_id).status == "completed"
        process.communicate(timeout=60)

    def test_one_that_runs_elsewhere_is_not_resumed_or_rolled_back(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "b")
        with place.bench() as bench:
            with pytest.raises(IllegalMoveError, match="another process is running it"):
                bench.resume(execution_id)
            with pytest.raises(IllegalMoveError, match="another process is running it"):
                bench.rollback(execution_id, node="a")
        place.let_go()
        out, err = process.communicate(timeout=60)
        assert out.startswith("completed"), err

    def test_after_kill_9_it_goes_on_from_its_last_record(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "c")
        process.kill()
        process.communicate()
        place.let_go()
        place.bodies()
        with place.bench() as bench:
            with pytest.raises(IllegalMoveError, match="the process that ran it is gone"):
                bench.pause(execution_id)
            done = bench.resume(execution_id)
        assert (done.status, done.state["log"]) == ("completed", STRAIGHT)
        assert place.bodies() == ["c", "d"]  # only the one that was cut off runs again

    def test_after_ctrl_c_it_is_paused(self, place: Place) -> None:
        execution_id, process = start_elsewhere(place, "c")
        os.kill(process.pid, signal.SIGINT)
        place.let_go()
        process.communicate(timeout=60)
        with place.bench() as bench:
            assert bench.execution(execution_id).status == "paused"
            assert bench.resume(execution_id).state["log"] == STRAIGHT

    def test_of_two_that_resume_at_once_one_does(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["c"])
        code = f"""
            import time
            from wtb_prefect import WTBError
            bench.session
            print("ready", flush=True)
            time.sleep(max(0, {{at}} - time.time()))
            try:
                print(bench.resume({held.execution_id!r}).status)
            except WTBError as error:
                print(type(error).__name__)
        """
        at = time.time() + 6
        both = [place.elsewhere(code.replace("{at}", str(at))) for _ in range(2)]
        ends = sorted(process.communicate(timeout=60)[0].split()[-1] for process in both)
        assert ends == ["IllegalMoveError", "completed"]
        assert place.bodies()[-2:] == ["c", "d"]


def _wait_left(bench: TestBench, execution_id: str) -> RunResult:
    until(lambda: bench.execution(execution_id).status != "running")
    return bench.execution(execution_id)


class TestQuestions:
    def test_resumed_with_the_answer_in_another_process(self, place: Place) -> None:
        with place.bench("asks") as bench:
            held = bench.run(initial_state=START)
        assert (held.status, held.next) == ("paused", ("ask",))
        assert [question.value for question in held.questions] == ["fine?"]
        code = f"r = bench.resume({held.execution_id!r}, value='yes'); print(r.status, r.state)"
        process = place.elsewhere(code, "asks")
        out, err = process.communicate(timeout=60)
        assert out.startswith("completed {'log': ['in', 'a', 'ask=yes', 'd']"), err
        assert place.bodies() == ["a", "ask", "ask", "d"]  # LangGraph runs it again with the answer

    def test_without_an_answer_nothing_is_run(self, place: Place) -> None:
        with place.bench("asks") as bench:
            held = bench.run(initial_state=START)
            place.bodies()
            with pytest.raises(InvalidInputError, match=r"waits for an answer.*'fine\?'"):
                bench.resume(held.execution_id)
            assert (bench.execution(held.execution_id), place.bodies()) == (held, [])

    def test_an_answer_to_nothing(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["c"])
            with pytest.raises(InvalidInputError, match="no question is open"):
                bench.resume(held.execution_id, value=1)


class TestStateEdits:
    def test_go_through_the_reducers_once(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["d"])
            done = bench.resume(held.execution_id, update={"log": ["by hand"]})
            assert done.state["log"] == [*STRAIGHT[:-1], "by hand", "d"]
            steps = [(point.nodes, point.next) for point in bench.history(done.execution_id)]
        assert steps[-3:] == [(("c",), ("d",)), ((), ("d",)), (("d",), ())]

    def test_of_a_key_that_the_state_does_not_have(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["d"])
            with pytest.raises(StateError, match="state has no key 'nope'"):
                bench.resume(held.execution_id, update={"nope": 1})
            assert bench.execution(held.execution_id) == held

    def test_that_langgraph_cannot_place(self, place: Place) -> None:
        """After two siblings it cannot say which of them the change would be from."""
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["j"])
            with pytest.raises(InvalidInputError, match="cannot be changed here"):
                bench.resume(held.execution_id, update={"log": ["by hand"]})
            left = bench.execution(held.execution_id)
            assert left.status == "paused"
            assert bench.resume(held.execution_id).state["log"] == STRAIGHT


class TestIllegalMoves:
    def test_change_nothing(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            for move in (bench.resume, bench.step, bench.pause, bench.stop):
                with pytest.raises(IllegalMoveError, match="it is completed"):
                    move(done.execution_id)
            held = bench.run(initial_state=START, breakpoints=["c"])
            with pytest.raises(IllegalMoveError, match="only a running one can be paused"):
                bench.pause(held.execution_id)
            assert bench.execution(done.execution_id) == done
            assert bench.execution(held.execution_id) == held

    def test_of_an_execution_of_a_batch(self, place: Place) -> None:
        with place.bench() as bench:
            cell = bench.batch(cases=[{"id": "q", "state": START}], runner="inline").cells[0]
            for move in (bench.resume, bench.stop):
                with pytest.raises(IllegalMoveError, match=r"belongs to batch .* branch from one"):
                    move(str(cell.execution_id))

    def test_of_one_that_does_not_exist(self, place: Place) -> None:
        with place.bench() as bench, pytest.raises(NotFoundError, match="no execution 'zz'"):
            bench.resume("zz")


class TestGraphsGivenToARun:
    def test_are_found_again_by_their_import_path(self, place: Place) -> None:
        with place.bench("bare") as bench:
            graph = place.project().graph
            held = bench.run(graph, initial_state=START, breakpoints=["c"])
        code = f"print(bench.resume({held.execution_id!r}).state['log'])"
        out, err = place.elsewhere(code, "bare").communicate(timeout=60)
        assert out == f"{STRAIGHT}\n", err

    def test_that_cannot_be_imported_are_asked_for(self, place: Place) -> None:
        graph = place.project().graph()
        with place.bench("bare") as bench:
            held = bench.run(graph, initial_state=START, breakpoints=["c"])
            assert held.next == ("c",)
        with place.bench("bare") as bench, pytest.raises(GraphError, match="give it to Workflow"):
            bench.resume(held.execution_id)
        with place.bench() as bench:
            assert bench.resume(held.execution_id).state["log"] == STRAIGHT
