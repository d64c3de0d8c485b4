"""Cases from Python values, JSON lines or CSV, with one clear line for each bad row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.file_processing import FileMemento
from wtb_prefect.domain.identifiers import valid_name
from wtb_prefect.errors import InvalidInputError, NotFoundError

Cases = str | Path | Sequence[Case | Mapping[str, Any]]
_FIELDS = frozenset(("id", "state", "expected", "files", "answers", "tags", "metadata"))
_SHOWN = 20


def read_cases(cases: Cases) -> tuple[Case, ...]:
    """Cases of a list, or of a `.jsonl` or `.csv` file.

    A JSON line is an object with `id`, `state` and optionally `expected`, `files`, `answers` (to
    `interrupt()`, in the order of the questions), `tags`, `metadata`. A CSV row has the columns
    `id` and optionally `expected` and `tags` (separated by spaces); every other column is a state
    key with text, or with JSON where its header ends in `:json`.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: no case at all, bad rows (all named, one line each), an id used twice.
    """
    if isinstance(cases, (str, Path)):
        rows = _file_rows(Path(cases))
    elif isinstance(cases, Mapping) or not isinstance(cases, Iterable):
        raise InvalidInputError(f"cases are a list or a file path, not {type(cases).__name__}")
    else:
        rows = ((f"case {number}", partial(_given, row)) for number, row in enumerate(cases, 1))
    return _collect(rows)


def _given(row: Any) -> Any:
    return row


Row = tuple[str, Callable[[], Any]]


def _collect(rows: Iterable[Row]) -> tuple[Case, ...]:
    found: dict[str, Case] = {}
    problems: list[str] = []
    for where, load in rows:
        try:
            case = _case(load())
            if case.id in found:
                raise InvalidInputError(f"the id {case.id!r} is used twice")  # noqa: TRY301
        except InvalidInputError as exc:
            problems.append(f"{where}: {exc}")
        else:
            found[case.id] = case
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise InvalidInputError("\n".join(problems[:_SHOWN] + more))
    if not found:
        raise InvalidInputError("there are no cases: at least one is needed")
    return tuple(found.values())


def _case(row: Any) -> Case:
    if isinstance(row, Case):
        row = {field: getattr(row, field) for field in _FIELDS}
    if not isinstance(row, Mapping):
        raise InvalidInputError(f"a case is an object with id and state, not {type(row).__name__}")
    if unknown := sorted(set(row) - _FIELDS):
        raise InvalidInputError(
            f"unknown field {unknown[0]!r}; a case has: {', '.join(sorted(_FIELDS))}"
        )
    for field in ("id", "state"):
        if field not in row:
            raise InvalidInputError(f"the field {field!r} is missing")
    case_id = str(row["id"]) if isinstance(row["id"], int) else row["id"]
    if not isinstance(row["state"], Mapping):
        raise InvalidInputError(f"'state' is {type(row['state']).__name__}, not an object")
    return Case(
        id=valid_name("case id", case_id),
        state=dict(row["state"]),
        expected=row.get("expected"),
        files=_files(row.get("files") or {}),
        answers=_answers(row.get("answers")),
        tags=_tags(row.get("tags") or ()),
        metadata=_metadata(row.get("metadata") or {}),
    )


def _files(files: Any) -> dict[str, Any]:
    if not isinstance(files, Mapping):
        raise InvalidInputError("'files' is an object: path -> content")
    for path, content in files.items():
        parts = str(path).split("/")
        if not isinstance(path, str) or path.startswith("/") or "\0" in path or "\\" in path:
            raise InvalidInputError(f"'files': {path!r} is not a relative path")
        if any(part in ("", ".", "..") for part in parts):
            raise InvalidInputError(f"'files': {path!r} would leave the workspace")
        if not isinstance(content, (str, bytes, Path, FileMemento)):
            kind = type(content).__name__
            raise InvalidInputError(f"'files': {path!r} is {kind}, not text or bytes")
        if isinstance(content, Path) and not content.is_file():
            raise InvalidInputError(f"'files': no file {content}")
        if isinstance(content, str):
            _check_text(path, content)
        if any("/".join(parts[:end]) in files for end in range(1, len(parts))):
            raise InvalidInputError(f"'files': {path!r} lies below another file of the case")
    return dict(files)


def _check_text(path: str, content: str) -> None:
    try:
        content.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"'files': {path!r} is not text in UTF-8: {exc}") from exc


def _answers(answers: Any) -> Any:
    if answers is None or callable(answers) or isinstance(answers, (list, tuple)):
        return answers
    raise InvalidInputError(
        "'answers' is a list, in the order of the questions, or a function of the question"
    )


def _tags(tags: Any) -> tuple[str, ...]:
    if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInputError("'tags' is a list of strings")
    return tuple(tags)


def _metadata(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"'metadata' is {type(metadata).__name__}, not an object")
    return dict(metadata)


def _file_rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        known = [found.name for found in folder.iterdir() if found.suffix in (".jsonl", ".csv")]
        raise NotFoundError("case file", str(path), known)
    if path.suffix == ".csv":
        return _csv_rows(path)
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _json_rows(path)
    raise InvalidInputError(f"{path}: cases are read from .jsonl or .csv files")


def _json_rows(path: Path) -> Iterator[Row]:
    # Not splitlines: it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path.name}:{number}", partial(_json, line)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path.name}: not UTF-8 text: {exc}") from exc
    except OSError as exc:
        raise InvalidInputError(f"{path}: cannot be read: {exc}") from exc


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:  # also numbers of more digits than Python reads
        raise InvalidInputError(f"not JSON: {exc}") from exc


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        for row in reader:
            yield f"{path.name}:{reader.line_num}", partial(_csv_case, row)
    except csv.Error as exc:
        raise InvalidInputError(f"{path.name}:{reader.line_num}: not CSV: {exc}") from exc


def _csv_case(row: dict[Any, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise InvalidInputError("the row does not have as many cells as the header")
    special = {"id", "expected", "tags"}
    case: dict[str, Any] = {key: row[key] for key in special & set(row)}
    case["tags"] = case.get("tags", "").split()
    case["state"] = dict(_csv_value(key, row[key]) for key in row if key not in special)
    return case


def _csv_value(header: str, text: str) -> tuple[str, Any]:
    key, is_json = header.removesuffix(":json"), header.endswith(":json")
    return key, _json(text) if is_json else text
