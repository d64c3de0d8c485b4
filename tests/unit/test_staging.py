"""Folders beside neighbours that go."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from wtb_prefect.infrastructure.file_tracking.staging import make_folder


def test_a_folder_is_made_where_another_thread_removes_empty_parents(tmp_path: Path) -> None:
    parents = [tmp_path / "a/b/c", tmp_path / "a/b", tmp_path / "a"]
    done = threading.Event()

    def remove_what_is_empty() -> None:
        while not done.wait(0.0002):  # a neighbour does it once
            for parent in parents:
                with contextlib.suppress(OSError):
                    os.rmdir(parent)

    removing = threading.Thread(target=remove_what_is_empty)
    removing.start()
    try:
        for number in range(2000):
            made = parents[0] / str(number)
            make_folder(str(made))
            made.rmdir()
    finally:
        done.set()
        removing.join()


def test_one_that_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        make_folder(str(tmp_path))
