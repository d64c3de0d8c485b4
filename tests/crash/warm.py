"""The suite's side of the warm process: folders, jobs, and strace on a child that waits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Warm:
    """A warm process and its folder, which is put back to a state that was kept before each job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "stores"
        self._kept = folder / "kept"
        self._old = folder / "old"
        self._old.mkdir(parents=True)
        self._count = 0
        self.folder.mkdir()
        environment = {
            **os.environ,
            "WTB_CRASH_FOLDER": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._log = (folder / "stderr.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "warm_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )
        assert self._answer()["ready"] == self._process.pid

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self._old)

    def keep(self, name: str) -> None:
        """The folder as it is now is what `put_back` gives."""
        self._kept.mkdir(exist_ok=True)
        shutil.copytree(self.folder, self._kept / name, symlinks=True)

    def put_back(self, name: str) -> None:
        """The stores as they were kept.

        The old ones are moved away and deleted at the end: on ext4 creating files soon after
        deleting many is up to 20 times slower.
        """
        self.clear()
        self.folder.rmdir()
        command = ["cp", "-a", str(self._kept / name), str(self.folder)]
        subprocess.run(command, check=True)

    def clear(self) -> None:
        """Empty stores."""
        self._count += 1
        self.folder.rename(self._old / str(self._count))
        self.folder.mkdir()

    def do(self, job: str, *args: Any, mutant: str | None = None) -> Any:
        """What a job answers; its failure is one of the test."""
        self._ask({"job": job, "args": args, "mutant": mutant})
        ended = self._answer()["ended"]
        found = json.loads((self.folder / "answer.json").read_text())
        assert "error" not in found, found["error"]
        assert ended == 0
        return found["answer"]

    def ended(self, job: str, *args: Any, mutant: str | None = None) -> int:
        """How a job ended that may fail, or be killed."""
        self._ask({"job": job, "args": args, "mutant": mutant})
        return int(self._answer()["ended"])

    def under_strace(
        self, job: str, *args: Any, options: list[str], mutant: str | None = None
    ) -> tuple[int, str]:
        """Does a job with strace attached; how the child ended, and the log."""
        self._ask({"job": job, "args": args, "mutant": mutant, "hold": True})
        pid = self._answer()["pid"]
        log = self.folder.parent / "strace.txt"
        command = ["strace", "-f", "-p", str(pid), "-o", str(log), *options]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        with tracer.stderr:
            said = tracer.stderr.readline()
            self._ask({"go": True})
            ended = self._answer()["ended"]
            said += tracer.stderr.read()
        tracer.wait(30)
        assert "attached" in said, said
        return ended, log.read_text(errors="replace")

    def error(self) -> str | None:
        """What ended the last job, if something was raised."""
        file = self.folder / "answer.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        return found.get("error")

    def _ask(self, asked: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        (self.folder / "answer.json").unlink(missing_ok=True)
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the warm process is gone: {self._log.read()}")
        found: dict[str, Any] = json.loads(line)
        return found
