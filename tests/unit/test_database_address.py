"""URLs of databases: what of them may be shown, and which one a project has."""

from __future__ import annotations

from pathlib import Path

import pytest

from wtb_prefect import WorkflowProject
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.database import address
from wtb_prefect.infrastructure.database.address import DATABASE_URL, full_url, shown_url
from wtb_prefect.infrastructure.secrets import mask_secrets


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test gives, the next one does not have."""
    monkeypatch.setattr(address, "_given", {})
    monkeypatch.delenv(DATABASE_URL, raising=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u@h:5432/db", "postgresql://u@h:5432/db"),
        ("postgresql+psycopg://u@h/db", "postgresql://u@h/db"),
        ("postgres://h/db", "postgresql://h/db"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=%2Frun%2Fpg"),
        (
            "postgresql://u:hidden%2Fword@h/db?sslmode=require",
            "postgresql://u@h/db?sslmode=require",
        ),
        ("postgresql://u:hid@den@h/db", "postgresql://u@h/db"),
        ("postgresql://u@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
        ("postgresql://h/db?password=hiddenword&user=u", "postgresql://h/db?user=u"),
        ("postgresql://h/db?sslpassword=hiddenword", "postgresql://h/db"),
        ("sqlite:///w.db", "sqlite:///w.db"),
    ],
)
def test_the_password_is_left_out_and_remembered(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert shown_url(shown) == shown
    assert full_url(shown) == (url if "hid" in url else shown)


@pytest.mark.parametrize(
    "url",
    ["://u:hidden%2Fword@h/db", "://h/db?sslpassword=hidden%2Fword"],
    ids=["password", "option"],
)
def test_the_password_is_masked_as_it_is_and_as_it_is_written(url: str) -> None:
    shown_url(f"postgresql{url}")
    masked = mask_secrets("hidden/word hidden%2Fword")
    assert masked == "***DATABASE_PASSWORD*** ***DATABASE_PASSWORD***"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hidden@h/db",
        "hidden",
        "",
        "postgresql://u:hid/den@h/db",
        "postgresql://u:hid#den@h/db",
        "postgresql://u:12/hid@h/db",
        "postgresql://u:12/x#hid@h/db",
        "postgresql://u:hid?den@h/db",
        "postgresql://hidden:word/db",
        "postgresql://u:hidden@h",
        "postgresql://u:hidden@h/",
        "sqlite://hidden",
        "sqlite:///",
    ],
)
def test_what_is_no_url_of_a_database_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"database_url") as caught:
        shown_url(url)
    assert "hid" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_process_finds_the_password_in_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the same database only, and a new one when it has changed."""
    monkeypatch.setenv(DATABASE_URL, "postgresql+psycopg://u:hiddenword@h/db")
    assert full_url("postgresql://u@h/other") == "postgresql://u@h/other"
    assert full_url("postgresql://u@h/db") == "postgresql+psycopg://u:hiddenword@h/db"
    assert mask_secrets("it is hiddenword") == f"it is ***{DATABASE_URL}***"
    monkeypatch.setenv(DATABASE_URL, "postgresql://u:newerword@h/db")
    assert full_url("postgresql://u@h/db") == "postgresql://u:newerword@h/db"


def test_an_argument_counts_more_than_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    default = ProjectLocations(
        database_url=f"sqlite:///{tmp_path}/.wtb/wtb.db",
        checkpoints=tmp_path / ".wtb/wtb-checkpoints.db",
        output_dir=tmp_path / ".wtb/outputs",
        workspace=None,
    )
    assert WorkflowProject("p").locations == default
    monkeypatch.setenv(DATABASE_URL, "")
    assert WorkflowProject("p").locations == default
    monkeypatch.setenv(DATABASE_URL, "postgresql://u:hiddenword@h/env")
    found = WorkflowProject("p").locations
    assert (found.database_url, found.checkpoints) == ("postgresql://u@h/env", None)
    assert found.ledger_file is None
    assert ProjectLocations.from_json(found.to_json()) == found
    given = WorkflowProject("p", database_url="postgresql://u@h/given").locations
    assert given.database_url == "postgresql://u@h/given"
    file = WorkflowProject("p", db_path="w.db").locations
    assert (file.ledger_file, file.checkpoints) == (
        tmp_path / "w.db",
        tmp_path / "w-checkpoints.db",
    )
    assert WorkflowProject("p", database_url="sqlite:///w.db").locations == file
    with pytest.raises(InvalidInputError, match="not both"):
        WorkflowProject("p", db_path="w.db", database_url="postgresql://h/db")
