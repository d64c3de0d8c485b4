"""An object store of the tests' own: moto's S3 server, in a process, on a port of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BUCKET = "contents"
REGION = "us-east-1"


class ObjectStore:
    """It keeps what it is given in memory: stopped, it has lost everything."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port: int = found.getsockname()[1]

    @property
    def environment(self) -> dict[str, str]:
        """How its users find it: as they would find one of their own."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }

    def start(self) -> None:
        """Starts it with an empty bucket, and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
                stdout=log,
                stderr=log,
                env={**os.environ, "AWS_DEFAULT_REGION": REGION},
            )
        deadline = time.monotonic() + 60
        while not self._listens():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        self._make_bucket()

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False

    def _make_bucket(self) -> None:
        from botocore.session import get_session

        where = self.environment
        client = get_session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=where["AWS_ENDPOINT_URL"],
            aws_access_key_id=where["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=where["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=BUCKET)


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A running one."""
    server = ObjectStore(folder / "object-store.log")
    try:
        server.start()
        yield server
    finally:
        server.stop()
