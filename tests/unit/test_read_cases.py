"""Cases from lists, JSON lines and CSV, with one line for every bad row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wtb_prefect.application.read_cases import read_cases
from wtb_prefect.domain.batch_test import Case
from wtb_prefect.errors import InvalidInputError, NotFoundError


def test_a_list_of_dicts_or_cases() -> None:
    """Both forms, mixed; a number as id is read as text."""
    row = {"id": 1, "state": {"q": "?"}, "tags": ["t"]}
    found = read_cases([row, Case(id="c", state={"q": 2})])
    assert [(case.id, dict(case.state), case.tags) for case in found] == [
        ("1", {"q": "?"}, ("t",)),
        ("c", {"q": 2}, ()),
    ]


def test_json_lines_with_every_character_a_string_may_hold(tmp_path: Path) -> None:
    """Line separators inside strings do not end a line; blank lines, CRLF and a BOM are fine."""
    text = "one\u2028two\u0085three\u000bfour"
    rows = [
        {"id": "a", "state": {"q": text}, "expected": {"k": [1]}},
        {"id": "b", "state": {"q": ""}},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file = tmp_path / "cases.jsonl"
    file.write_bytes(("\ufeff" + "\r\n\r\n".join(lines)).encode())
    found = read_cases(file)
    assert [case.state["q"] for case in found] == [text, ""]
    assert found[0].expected == {"k": [1]}


def test_csv_columns_are_state_keys(tmp_path: Path) -> None:
    """Text as it is (line breaks inside quotes too), JSON where the header says so."""
    file = tmp_path / "cases.csv"
    file.write_text(
        'id,expected,tags,q,k:json\n1,yes,x y,"two\nlines\u2028here",[1]\n2,,,plain,2\n', newline=""
    )
    first, second = read_cases(str(file))
    assert (first.id, first.expected, first.tags) == ("1", "yes", ("x", "y"))
    assert first.state == {"q": "two\nlines\u2028here", "k": [1]}
    assert second.state == {"q": "plain", "k": 2}


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"state": {}}, "the field 'id' is missing"),
        ({"id": "a"}, "the field 'state' is missing"),
        ({"id": "a", "state": []}, "'state' is list"),
        ({"id": "a", "state": {}, "stat": 1}, "unknown field 'stat'"),
        ({"id": "a=b", "state": {}}, "case id 'a=b'"),
        ({"id": "", "state": {}}, "case id ''"),
        ({"id": None, "state": {}}, "case id None"),
        ({"id": "a", "state": {}, "tags": "one"}, "'tags' is a list"),
        ({"id": "a", "state": {}, "tags": 5}, "'tags' is a list"),
        ({"id": "a", "state": {}, "metadata": "m"}, "'metadata' is str"),
        ({"id": "a", "state": {}, "files": ["f"]}, "'files' is an object"),
        ({"id": "a", "state": {}, "files": {"../f": ""}}, "would leave the workspace"),
        ({"id": "a", "state": {}, "files": {"/f": ""}}, "not a relative path"),
        ({"id": "a", "state": {}, "files": {"f": 1}}, "is int, not text or bytes"),
        (["a"], "not list"),
    ],
)
def test_a_bad_row_gets_one_clear_line(row: Any, line: str) -> None:
    """Its number and what is wrong."""
    with pytest.raises(InvalidInputError) as refused:
        read_cases([{"id": "good", "state": {}}, row])
    assert str(refused.value).startswith("case 2: ")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_bad_rows_are_named_up_to_twenty(tmp_path: Path) -> None:
    """By file and line."""
    file = tmp_path / "cases.jsonl"
    file.write_text('{"id": "a", "state": {}}\n' + "nonsense\n" * 25)
    with pytest.raises(InvalidInputError) as refused:
        read_cases(file)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("cases.jsonl:2: not JSON")
    assert (len(lines), lines[-1]) == (21, "and 5 more")


@pytest.mark.parametrize(
    ("cases", "line"),
    [
        ([], "there are no cases"),
        ([{"id": "a", "state": {}}] * 2, "'a' is used twice"),
        ({"id": "a", "state": {}}, "cases are a list or a file path"),
        (None, "cases are a list or a file path"),
    ],
)
def test_requests_without_cases_are_refused(cases: Any, line: str) -> None:
    """None, none at all, or one twice."""
    with pytest.raises(InvalidInputError) as refused:
        read_cases(cases)
    assert line in str(refused.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Missing (with those that exist), of another kind, not text, a ragged or oversized CSV."""
    (tmp_path / "known.csv").write_text("id,q\n1,2,3\n")
    with pytest.raises(NotFoundError, match=r"known\.csv"):
        read_cases(tmp_path / "missing.csv")
    with pytest.raises(InvalidInputError, match=r"known\.csv:2: the row does not have as many"):
        read_cases(tmp_path / "known.csv")
    (tmp_path / "cases.txt").write_text("")
    with pytest.raises(InvalidInputError, match=r"\.jsonl or \.csv"):
        read_cases(tmp_path / "cases.txt")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_cases(tmp_path / "latin.jsonl")
    (tmp_path / "huge.csv").write_text("id,q\n1," + "x" * 140_000)
    with pytest.raises(InvalidInputError, match="not CSV: field larger"):
        read_cases(tmp_path / "huge.csv")
