"""Which variables are secret, and in which forms their values are found."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

import pytest

from wtb_prefect.infrastructure.secrets import is_secret_name, mask_secrets


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "openai_api_key",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "GITHUBTOKEN",
        "CLIENT_SECRETS",
        "DB_PASSWORD2",
        "MYSQL_PWD",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KEY",
    ],
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "KEYBOARD", "TOKENIZERS_CACHE", "PATH", "GNOME_KEYRING_CONTROL"]
)
def test_other_names(name: str) -> None:
    assert not is_secret_name(name)


def test_values_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "first 'quoted' line\nsecond/line+of=it"
    monkeypatch.setenv("PRIVATE_KEY", value)
    for form in (value, repr(value), json.dumps(value), quote(value, safe="")):
        masked = mask_secrets(f"<{form}>")
        assert masked.strip("<>'\"") == "***PRIVATE_KEY***"
    assert mask_secrets("so: second/line+of=it") == "so: ***PRIVATE_KEY***"


def test_a_secret_that_begins_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "abcdefgh")
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh-and-more")
    text = "abcdefgh-and-more abcdefgh"
    assert mask_secrets(text) == "***LONG_TOKEN*** ***SHORT_TOKEN***"


def test_changes_of_the_environment_count_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mask_secrets("set-later-1 set-later-2") == "set-later-1 set-later-2"
    monkeypatch.setenv("LATE_API_KEY", "set-later-1")
    assert mask_secrets("set-later-1 set-later-2") == "***LATE_API_KEY*** set-later-2"
    monkeypatch.setenv("LATE_API_KEY", "set-later-2")
    assert mask_secrets("set-later-1 set-later-2") == "set-later-1 ***LATE_API_KEY***"
    del os.environ["LATE_API_KEY"]
    assert mask_secrets("set-later-2") == "set-later-2"


def test_short_values_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_TOKEN", "true")
    assert mask_secrets("true") == "true"
