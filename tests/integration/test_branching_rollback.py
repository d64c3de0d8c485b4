"""Going back in an execution, and another way from there: state, next nodes and files exactly."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from controlled import START, STRAIGHT, Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wtb_prefect import TestBench
from wtb_prefect.application import drive_execution
from wtb_prefect.application import roll_back as use_case
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.errors import (
    FileTrackingError,
    IllegalMoveError,
    InvalidInputError,
    NotFoundError,
)

FILES_AFTER_C = {"b.txt", "x.txt", "y.txt", "p.txt", "q.txt", "c.txt", "run.sh"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def points(bench: TestBench, execution_id: str) -> dict[str, str]:
    """Node -> the checkpoint just after its last visit."""
    history = bench.history(execution_id)
    return {node: point.checkpoint_id for point in history for node in point.nodes}


def contents(bench: TestBench, execution_id: str, at: str | None = None) -> dict[str, Any]:
    """Path -> (content, mode) of an execution's files."""
    found = bench.files(execution_id, at)
    return {
        path: (bench.session.tracker.contents(memento.blob_id), memento.mode)
        for path, memento in found.items()
    }


class TestRollback:
    def test_puts_back_state_next_nodes_and_files(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)
            before = contents(bench, done.execution_id, at["j"])
            back = bench.rollback(done.execution_id, at["j"])
            assert (back.status, back.next) == ("paused", ("sub",))
            assert back.state["log"] == ["in", "a", "b", "x", "y", "j"]
            assert contents(bench, done.execution_id) == before
            assert set(before) == {"a.txt", "b.txt", "x.txt", "y.txt"}
            assert bench.history(done.execution_id)[-1].checkpoint_id == at["j"]

    def test_shows_in_langgraphs_own_thread(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)
            bench.rollback(done.execution_id, at["b"])
            stored = bench.session.checkpoints.latest(thread_id(done.execution_id))
            assert stored is not None
            assert (stored.checkpoint_id, stored.pending_tasks) == (at["b"], ())

    def test_resume_runs_only_what_follows_and_ends_as_before(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            whole = contents(bench, done.execution_id)
            place.bodies()
            bench.rollback(done.execution_id, node="sub")
            again = bench.resume(done.execution_id)
            assert (again.status, again.state["log"]) == ("completed", STRAIGHT)
            assert place.bodies() == ["c", "d"]
            assert contents(bench, done.execution_id) == whole
            assert set(whole) == FILES_AFTER_C | {"d.txt"}
            assert stat.filemode(0o100000 | whole["run.sh"][1]) == "-rwxr-xr-x"

    def test_to_a_node_is_to_just_after_its_last_visit(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state={**START, "rounds": 2})
            back = bench.rollback(done.execution_id, node="b")
            assert set(back.next) == {"x", "y"}
            assert back.state["log"].count("b") == 2
            with pytest.raises(NotFoundError, match="no completed visit of node 'zz'; there is: a"):
                bench.rollback(done.execution_id, node="zz")
            with pytest.raises(InvalidInputError, match="give one of the two"):
                bench.rollback(done.execution_id)

    def test_between_siblings_runs_both_again(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            bench.rollback(done.execution_id, node="b")
            place.bodies()
            held = bench.step(done.execution_id)
            assert sorted(place.bodies()) == ["x", "y"]
            assert held.state["log"][-2:] == ["x", "y"]

    def test_what_it_left_behind_can_be_read_and_branched_from(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)
            left = contents(bench, done.execution_id, at["c"])
            bench.rollback(done.execution_id, at["a"])
            assert bench.state(done.execution_id, at["c"])["log"] == STRAIGHT[:-1]
            assert contents(bench, done.execution_id, at["c"]) == left
            with pytest.raises(IllegalMoveError, match=r"left behind .* branch from it instead"):
                bench.rollback(done.execution_id, at["c"])
            place.bodies()
            other = bench.branch(done.execution_id, at["c"], variants={"d": "loud"})
            assert other.state["log"] == [*STRAIGHT[:-1], "d!"]
            assert place.bodies() == ["d!"]

    def test_branches_from_what_it_left_behind_stay_whole(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)
            other = bench.branch(done.execution_id, at["c"], variants={"d": "loud"})
            history = [(p.checkpoint_id, p.nodes) for p in bench.history(other.execution_id)]
            bench.rollback(done.execution_id, at["a"])
            after = [(p.checkpoint_id, p.nodes) for p in bench.history(other.execution_id)]
            assert after == history
            assert bench.state(other.execution_id, at["b"])["log"] == ["in", "a", "b"]

    def test_again_and_again(self, place: Place) -> None:
        with place.bench() as bench:
            run = bench.run(initial_state=START)
            for node in ("c", "b", "a", "b", "c"):
                back = bench.rollback(run.execution_id, node=node)
                assert back.state["log"][-1] == node
                run = bench.resume(run.execution_id)
                assert run.state["log"] == STRAIGHT

    def test_is_written_down(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)
            bench.rollback(done.execution_id, at["b"])
            with bench.session.open_uow() as uow:
                (entry,) = [
                    entry
                    for entry in uow.audit_log.list(done.execution_id)
                    if entry.action == "checkpoint.rolled_back"
                ]
                claims = [e for e in uow.outbox.list() if e.type == "ROLLBACK_FILE_RESTORE"]
            assert entry.details["checkpoint_id"] == at["b"]
            assert entry.details["left"] == at["d"]
            assert [claim.aggregate_id for claim in claims] == [done.execution_id]

    def test_to_a_checkpoint_of_another_execution(self, place: Place) -> None:
        with place.bench() as bench:
            one, two = (bench.run(initial_state=START) for _ in range(2))
            theirs = points(bench, two.execution_id)["b"]
            with pytest.raises(NotFoundError, match=f"no checkpoint of execution .*{theirs}"):
                bench.rollback(one.execution_id, theirs)
            assert bench.execution(one.execution_id) == one

    def test_of_a_cell_of_a_batch_is_refused(self, place: Place) -> None:
        with place.bench() as bench:
            cell = bench.batch(cases=[{"id": "q", "state": START}], runner="inline").cells[0]
            with pytest.raises(IllegalMoveError, match="whose results would change; branch"):
                bench.rollback(str(cell.execution_id), node="b")

    def test_puts_a_folder_back_that_is_there(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["d"])
            (folder,) = (place.folder / "out/workspaces").glob("*/run-*")
            assert {path.name for path in folder.iterdir()} == FILES_AFTER_C
            bench.rollback(held.execution_id, node="a")
            assert {path.name for path in folder.iterdir()} == {"a.txt"}

    def test_of_files_that_are_damaged_changes_nothing(self, place: Place) -> None:
        with place.bench() as bench:
            held = bench.run(initial_state=START, breakpoints=["d"])
            (folder,) = (place.folder / "out/workspaces").glob("*/run-*")
            (folder / "mine.txt").write_text("not recorded")
            before = {p.name: p.read_text() for p in folder.iterdir()}
            lost = bench.files(held.execution_id, points(bench, held.execution_id)["b"])["b.txt"]
            blob = place.folder / "out/blobs/objects" / lost.blob_id[:2] / lost.blob_id[2:]
            blob.chmod(0o644)
            blob.write_text("damaged")
            with pytest.raises(FileTrackingError, match=f"'b.txt'.*{lost.blob_id}"):
                bench.rollback(held.execution_id, node="b")
            assert bench.execution(held.execution_id) == held
            assert {p.name: p.read_text() for p in folder.iterdir()} == before


class TestCrashesWhileRollingBack:
    def test_before_the_ledger_has_it_nothing_has_changed(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)

            def die(*_: Any) -> None:
                raise KeyboardInterrupt

            with monkeypatch.context() as patched:
                patched.setattr(use_case, "_rolled_back", die)
                with pytest.raises(KeyboardInterrupt):
                    bench.rollback(done.execution_id, node="b")
            assert bench.execution(done.execution_id) == done
            assert bench.rollback(done.execution_id, node="b").state["log"] == ["in", "a", "b"]

    @pytest.mark.parametrize("before_the_fork", [False, True])
    def test_before_the_stores_follow_resuming_puts_them_back(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, before_the_fork: bool
    ) -> None:
        with place.bench() as bench:
            run = bench.run(initial_state=START)
            if before_the_fork:
                at = points(bench, run.execution_id)["c"]
                run = bench.branch(run.execution_id, at)

            def die(*_: Any) -> None:
                raise KeyboardInterrupt

            with monkeypatch.context() as patched:
                patched.setattr(use_case, "stores_follow", die)
                with pytest.raises(KeyboardInterrupt):
                    bench.rollback(run.execution_id, node="b")
            place.bodies()
            assert bench.resume(run.execution_id).state["log"] == STRAIGHT
            assert sorted(place.bodies()) == sorted(["x", "y", "j", "p", "q", "c", "d"])


class TestBranch:
    def test_runs_only_what_follows_in_a_workspace_of_its_own(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            before = contents(bench, done.execution_id)
            at = points(bench, done.execution_id)
            place.bodies()
            other = bench.branch(done.execution_id, at["sub"], variants={"d": "loud"})
            assert (other.status, other.parent_id) == ("completed", done.execution_id)
            assert place.bodies() == ["c", "d!"]
            assert other.node_executions == 2
            assert other.state["log"] == [*STRAIGHT[:-1], "d!"]
            assert contents(bench, done.execution_id) == before
            assert bench.execution(done.execution_id) == done
            found = bench.diff(done.execution_id, None, None, other.execution_id)
            assert list(found.state) == ["log"]
            assert found.files.changed == ("d.txt",)

    def test_with_another_state(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)
            other = bench.branch(done.execution_id, at["c"], update={"log": ["by hand"]})
            assert other.state["log"] == [*STRAIGHT[:-1], "by hand", "d"]

    def test_from_a_shared_prefix_of_a_batch(self, place: Place) -> None:
        with place.bench() as bench:
            cases = [{"id": "q", "state": START}]
            result = bench.batch({"d": "*"}, cases, runner="inline")
            cell = next(cell for cell in result.cells if cell.combination == "d=loud")
            shared = points(bench, str(cell.execution_id))["b"]
            place.bodies()
            other = bench.branch(str(cell.execution_id), shared)
            assert other.state["log"] == [*STRAIGHT[:-1], "d!"]  # the cell's own variant
            assert sorted(place.bodies()) == sorted(["x", "y", "j", "p", "q", "c", "d!"])
            assert [c.status for c in bench.results().cells] == ["completed", "completed"]

    @pytest.mark.parametrize("name", [None, "mine"])
    def test_every_cell_of_a_batch_at_once(self, place: Place, name: str | None) -> None:
        """Also of a named batch, which shares nothing with others: this one is made of it."""
        with place.bench() as bench:
            cases = [{"id": case, "state": START} for case in ("q", "r")]
            first = bench.batch(None, cases, repeats=2, runner="inline", batch_id=name)
            place.bodies()
            forked = bench.branch_all(first.batch_id[:8], "d", "loud", runner="inline")
            assert place.bodies() == ["d!"] * 4
            assert forked.batch_id != first.batch_id
            assert {c.combination for c in forked.cells} == {"d=loud"}
            assert len(forked.cells) == 4
            for cell in forked.cells:
                assert cell.state["log"] == [*STRAIGHT[:-1], "d!"]
            again = bench.branch_all(first.batch_id, "d", "loud", runner="inline")
            assert (again.batch_id, again.node_executions) == (forked.batch_id, 0)
            back = bench.branch_all(forked.batch_id, "d", "original", runner="inline")
            assert {c.combination for c in back.cells} == {"baseline"}
            assert back.node_executions == 0

    @pytest.mark.parametrize(("node", "variant"), [("e", "loud"), ("d", "quiet")])
    def test_every_cell_with_a_wrong_name(self, place: Place, node: str, variant: str) -> None:
        with place.bench() as bench:
            first = bench.batch(None, [{"id": "q", "state": START}], runner="inline")
            with pytest.raises(NotFoundError, match=r"no node .e.|quiet.*loud"):
                bench.branch_all(first.batch_id, node, variant, runner="inline")
            with pytest.raises(NotFoundError, match="no batch 'nobody'"):
                bench.branch_all("nobody", "d", "loud", runner="inline")

    def test_can_be_rolled_back_to_before_its_own_beginning(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            other = bench.branch(done.execution_id, points(bench, done.execution_id)["c"])
            ends = points(bench, other.execution_id)
            back = bench.rollback(other.execution_id, node="a")
            assert (back.next, back.state["log"]) == (("b",), ["in", "a"])
            assert set(bench.files(other.execution_id)) == {"a.txt"}
            assert bench.state(other.execution_id, ends["d"])["log"] == STRAIGHT
            assert bench.resume(other.execution_id).state["log"] == STRAIGHT
            assert bench.execution(done.execution_id) == done

    def test_killed_before_its_first_record_it_can_be_resumed(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def die(*_: Any) -> None:
            raise KeyboardInterrupt

        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)["sub"]
            with monkeypatch.context() as patched:
                patched.setattr(drive_execution, "run_attempts", die)
                with pytest.raises(KeyboardInterrupt):
                    bench.branch(done.execution_id, at)
            with bench.session.open_uow() as uow:
                (left,) = uow.executions.list_children([done.execution_id])
            assert bench.resume(left.execution_id).state["log"] == STRAIGHT

    def test_of_unknown_things(self, place: Place) -> None:
        with place.bench() as bench:
            done = bench.run(initial_state=START)
            at = points(bench, done.execution_id)["c"]
            with pytest.raises(NotFoundError, match="no variant of node 'd' 'zz'"):
                bench.branch(done.execution_id, at, variants={"d": "zz"})
            with pytest.raises(NotFoundError, match="no checkpoint of execution"):
                bench.branch(done.execution_id, "zz")


MOVES = st.lists(
    st.one_of(
        st.just(("step", 0, False)),
        st.tuples(st.just("resume"), st.integers(0, 9), st.just(False)),
        st.tuples(st.just("rollback"), st.integers(0, 99), st.just(False)),
        st.tuples(st.just("branch"), st.integers(0, 99), st.booleans()),
    ),
    max_size=8,
)
"""What is done, where (a breakpoint's node, a checkpoint of the history), with a variant of d."""

NODES = ["a", "b", "x", "y", "j", "sub", "c", "d", "sub|p", "sub|q"]


@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=MOVES)
def test_any_moves_end_like_a_straight_run(
    moves: list[tuple[str, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever was done before, going on gives the state and files of a straight run with the
    variants in force, and so does every checkpoint on the way."""
    folder = tmp_path_factory.mktemp("moves")
    place = Place(folder)
    with place.bench() as bench:
        expected = {}
        for variant in ("original", "loud"):
            run = bench.run(initial_state=START, variants={"d": variant})
            expected[variant] = [
                (p.nodes, bench.state(run.execution_id, p.checkpoint_id)["log"],
                 contents(bench, run.execution_id, p.checkpoint_id))
                for p in bench.history(run.execution_id)
            ]  # fmt: skip
        now, variant = bench.run(initial_state=START, breakpoints=["b"]), "original"
        for move, where, loud in moves:
            if move in ("step", "resume") and now.status == "paused":
                if move == "step":
                    now = bench.step(now.execution_id)
                else:
                    now = bench.resume(now.execution_id, breakpoints=[NODES[where]])
            elif move == "rollback":
                history = bench.history(now.execution_id)[1:]
                point = history[where % len(history)].checkpoint_id
                now = bench.rollback(now.execution_id, point)
            elif move == "branch":
                history = [p for p in bench.history(now.execution_id)[1:] if "d" not in p.nodes]
                point = history[where % len(history)].checkpoint_id
                variant = "loud" if loud else "original"
                now = bench.branch(
                    now.execution_id, point, variants={"d": variant}, breakpoints=["c"]
                )
        if now.status == "paused":
            now = bench.resume(now.execution_id, breakpoints=[])
        assert now.status == "completed"
        seen = [
            (p.nodes, bench.state(now.execution_id, p.checkpoint_id)["log"],
             contents(bench, now.execution_id, p.checkpoint_id))
            for p in bench.history(now.execution_id)
        ]  # fmt: skip
        assert seen == expected[variant]
    shutil.rmtree(folder)
