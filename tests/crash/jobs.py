"""What children of the warm process can be asked to do; arguments and answers are JSON."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import langgraph.checkpoint.base.id as checkpoint_ids
import oracle
from bench_project import HERE, project, ten
from operations import (
    OPERATIONS,
    ShiftedClock,
    blob_path,
    digest_of,
    ledger,
    noted,
    shift_clock,
)

from wtb_prefect import TestBench
from wtb_prefect.application.collect_garbage import GarbageStores, collect_garbage
from wtb_prefect.application.process_outbox import process_pending
from wtb_prefect.application.verify_claims import ClaimVerifier
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.domain.file_processing import FileMemento
from wtb_prefect.domain.outbox import LEASE_SECONDS
from wtb_prefect.errors import FileTrackingError


def prepare(name: str) -> None:
    with TestBench(project) as bench:
        OPERATIONS[name].prepare(bench)


def run(name: str) -> None:
    with TestBench(project) as bench:
        OPERATIONS[name].run(bench)


def undisturbed(name: str) -> Any:
    return oracle.undisturbed(name)


def judge(name: str, expected: Any, killed: bool, acknowledged: bool) -> list[str]:
    return oracle.judge(name, expected, killed, acknowledged)


def run_ten() -> None:
    with TestBench(ten) as bench:
        bench.run(initial_state={"log": ["in"]})


def resume_ten() -> dict[str, Any]:
    with TestBench(ten) as bench:
        with bench.session.open_uow() as uow:
            (known,) = [execution.execution_id for execution in uow.executions.list()]
        done = bench.resume(known)
        files = bench.files(known)
        return {
            "log": done.state["log"],
            "files": {path: blob_path(found.blob_id).read_text() for path, found in files.items()},
            "bodies": sorted(map(int, (HERE / "bodies.txt").read_text().split())),
            "issues": [str(issue) for issue in bench.check_integrity(deep=True).issues],
        }


# Damaged contents.


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << (len(data) % 8)
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def deleted(path: Path) -> None:
    path.unlink()


def damage_all() -> dict[str, int]:
    """Every content of a commit, each way; how many were found, and how many restores were wrong
    without a word."""
    counts = dict.fromkeys(("damaged", "restores that say so", "found by the deep check"), 0)
    counts["silent"] = 0
    with TestBench(project) as bench:
        files = bench.files(noted()["id"])
        for damage in (flipped, truncated, deleted):
            with damaged(files, damage):
                for memento in files.values():
                    said = restore_says_so(bench, memento)
                    counts["restores that say so"] += said
                    counts["silent"] += not said
                found = {issue.subject for issue in bench.check_integrity(deep=True).issues}
                counts["found by the deep check"] += sum(
                    memento.blob_id in found for memento in files.values()
                )
                counts["damaged"] += len(files)
        assert bench.check_integrity(deep=True).issues == ()
    return counts


@contextmanager
def damaged(files: dict[str, FileMemento], damage: Callable[[Path], None]) -> Iterator[None]:
    kept = {path: path.read_bytes() for path in (blob_path(m.blob_id) for m in files.values())}
    for path in kept:
        path.chmod(0o644)
        damage(path)
    yield
    for path, data in kept.items():
        path.write_bytes(data)


def restore_says_so(bench: TestBench, memento: FileMemento) -> bool:
    """Whether a restore of a damaged file is refused and leaves nothing."""
    folder = HERE / "restored"
    try:
        bench.session.tracker.restore({memento.path: memento}, folder)
    except FileTrackingError as exc:
        return memento.blob_id in str(exc) and not folder.exists()
    good = digest_of(folder / memento.path) == memento.blob_id[:16]
    shutil.rmtree(folder)
    assert not good, "it was not damaged"
    return False


# Claims, and the clock.


def two_processors() -> dict[str, int]:
    """While one has claims and has not settled them, another one looks for some."""
    taken: list[set[str]] = []
    check = ClaimVerifier.check

    def noted_check(self: ClaimVerifier, events: Any) -> Any:
        taken.append({event.event_id for event in events})
        if len(taken) == 1:
            with TestBench(project) as other:
                other.process_pending()
        return check(self, events)

    ClaimVerifier.check = noted_check  # type: ignore[method-assign]
    with TestBench(project) as bench:
        bench.process_pending()
    second = taken[1] if len(taken) > 1 else set()
    return {"first": len(taken[0]), "both": len(taken[0] & second)}


def leases_and_clocks() -> dict[str, int]:
    """How many claims others get, by their clocks, while one holds all of them."""
    found: dict[str, int] = {}
    check = ClaimVerifier.check

    def others_look(self: ClaimVerifier, events: Any) -> Any:
        ClaimVerifier.check = check  # type: ignore[method-assign]
        found["claims"] = len(events)
        hours = {"an hour back": -1.0, "now": 0.0, "after the lease": LEASE_SECONDS / 3600 + 0.01}
        for name, by in hours.items():
            with TestBench(project) as other:
                shift_clock(other, by)
                found[name] = other.process_pending().processed
        # The claims of the late one would be wrong: they are not to be heard any more.
        return {event.event_id: "the late one says it is wrong" for event in events}

    ClaimVerifier.check = others_look  # type: ignore[method-assign]
    with TestBench(project) as bench:
        process_pending(bench.session)
    wrong = "SELECT count(*) FROM outbox_events WHERE status <> 'PROCESSED' OR last_error NOTNULL"
    found["settled by the late one"] = ledger(wrong)[0][0]
    return found


def at_another_time(name: str, hours: float) -> Any:
    """Goes on in two steps by another clock, of which ids of checkpoints are made, too."""
    real = checkpoint_ids.time.time_ns
    by = int(timedelta(hours=hours).total_seconds() * 1e9)
    checkpoint_ids.time = SimpleNamespace(time_ns=lambda: real() + by)  # type: ignore[assignment]
    checkpoint_ids._last_v6_timestamp = None  # of the process this one was forked from
    with TestBench(project) as bench:
        shift_clock(bench, hours)
        bench.resume(noted()["id"], breakpoints=["d"])
        OPERATIONS[name].run(bench)
        issues = [str(issue) for issue in bench.check_integrity(deep=True, repair=True).issues]
        issues += [str(issue) for issue in bench.check_integrity(deep=True).issues]
        return [OPERATIONS[name].outcome(bench), issues]


def grace_and_clocks() -> dict[str, Any]:
    """Whether a named content and one that nothing names are there after a clean-up, by clock."""
    found: dict[str, Any] = {}
    with TestBench(project) as bench:
        tracker = bench.session.tracker
        (unnamed,) = tracker.store_texts([("x.txt", b"of nothing")])
        named = [memento.blob_id for memento in bench.files(noted()["id"]).values()]
        hours = {"an hour back": -1, "now": 0, "23 hours on": 23, "25 hours on": 25}
        for name, by in hours.items():
            with open_garbage(bench.session.project.locations) as stores:
                collect_garbage(
                    GarbageStores(
                        ledgers=stores.ledgers, blobs=stores.blobs, clock=ShiftedClock(by)
                    )
                )
            there = all(blob_path(blob_id).exists() for blob_id in named)
            found[name] = [there, blob_path(unnamed.blob_id).exists()]
        found["issues"] = [str(i) for i in bench.check_integrity(deep=True).issues]
    return found
