"""Files of a workspace that are nobody's business: patterns as in a `.gitignore`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pathspec import GitIgnoreSpec

from wtb_prefect.domain.project import ALWAYS_IGNORED
from wtb_prefect.errors import InvalidInputError

IGNORE_FILE = ".wtbignore"


class IgnoredFiles:
    """Which new files and folders to pass over; the last pattern that matches decides.

    As in git this is about new files only: what is in a commit, or what a case brings along, is
    tracked whatever its name. A fork would lose it otherwise.
    """

    def __init__(self, patterns: Iterable[str] = ALWAYS_IGNORED) -> None:
        self._spec = compiled(patterns)

    def has(self, path: str) -> bool:
        """Whether a path, relative to the workspace, is ignored; a folder's ends in a slash."""
        return self._spec.match_file(path)


def ignored_files(patterns: Iterable[str], base: Path | None) -> IgnoredFiles:
    """What a project ignores: the default, its own patterns, then those in its base workspace.

    Raises:
        InvalidInputError: a pattern is none, or the file cannot be read.
    """
    return IgnoredFiles((*ALWAYS_IGNORED, *patterns, *_in_folder(base)))


def compiled(patterns: Iterable[object]) -> GitIgnoreSpec:
    """Raises `InvalidInputError` naming what is no pattern."""
    found: list[str] = []
    for pattern in patterns:
        refused = InvalidInputError(
            f"{pattern!r} is no pattern for files to ignore: write it as in a .gitignore"
        )
        if not isinstance(pattern, str):
            raise refused
        try:
            GitIgnoreSpec.from_lines([pattern])
        except ValueError as exc:
            raise refused from exc
        found.append(pattern)
    return GitIgnoreSpec.from_lines(found)


def folders_of(files: Mapping[str, object]) -> set[str]:
    """All folders that these paths lie in, each with a slash at its end."""
    found: set[str] = set()
    for leaf in {path[: path.rfind("/") + 1] for path in files}:
        folder = leaf
        while folder and folder not in found:
            found.add(folder)
            folder = folder[: folder.rfind("/", 0, -1) + 1]
    return found


def _in_folder(base: Path | None) -> list[str]:
    if base is None or not (file := base / IGNORE_FILE).is_file():
        return []
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"cannot read {str(file)!r}: {exc}") from exc
