"""A process that has imported everything, and forks a child for every job: a few ms each.

Jobs come as lines of JSON on its standard input, answers go to its standard output.
`{"job": ..., "hold": true}` has the child wait until `{"go": true}`, for strace to attach to it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jobs
from bench_project import HERE, project
from mutants import MUTANTS

from wtb_prefect import TestBench
from wtb_prefect.infrastructure.node_threads import NodeThreads

ANYBODY = ctypes.c_ulong(-1)
PR_SET_PTRACER = 0x59616D61


async def _in_place(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    return function(*args, **options)


def _submitted_in_place(_: NodeThreads, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(function(*args))
    except BaseException as exc:
        done.set_exception(exc)
    return done


def in_one_thread() -> None:
    """strace counts calls by thread: only in one thread each call is a point of its own."""
    asyncio.to_thread = _in_place
    NodeThreads.submit = _submitted_in_place  # type: ignore[method-assign,assignment]


def child(asked: dict[str, Any], go: int) -> None:
    """Does the job and leaves its answer; ends the process."""
    code = 1
    try:
        if (mutant := asked.get("mutant")) is not None:
            MUTANTS[mutant]()
        if asked.get("hold"):
            # Where only parents may trace (Yama), anybody may trace this one.
            ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
            in_one_thread()
            os.read(go, 1)
        answer = getattr(jobs, asked["job"])(*asked.get("args", ()))
        (HERE / "answer.json").write_text(json.dumps({"answer": answer}))
        code = 0
    except BaseException:
        (HERE / "answer.json").write_text(json.dumps({"error": traceback.format_exc()}))
        if os.environ.get("WTB_CRASH_SHOW"):
            traceback.print_exc()
    finally:
        os._exit(code)


def warm_up() -> None:
    """Once through everything, so that children find it all imported and compiled."""
    with TestBench(project) as bench:
        done = bench.run(initial_state={"log": []}, breakpoints=["d"])
        bench.rollback(done.execution_id, node="a")
        bench.process_pending(deep=True)
        bench.check_integrity(deep=True)
        bench.collect_garbage()
    gc.collect()
    gc.freeze()


def main() -> None:
    warm_up()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            child(asked, reading)
        os.close(reading)
        if asked.get("hold"):
            print(json.dumps({"pid": pid}), flush=True)
            sys.stdin.readline()
            os.write(writing, b"g")
        os.close(writing)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"ended": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
