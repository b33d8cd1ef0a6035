"""The sections [events] and [[events.hook]]: every mistake is named, no secret is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backupgw.runtime.command import CommandError
from backupgw.runtime.events import EventsSettings, Severity, start
from backupgw.runtime.events.filters import Filter
from backupgw.runtime.events.settings import check_url


def hook(**more: Any) -> dict[str, Any]:
    return {"name": "h", "url": "https://host/x", **more}


def test_a_hook_as_it_is_written() -> None:
    settings = EventsSettings.model_validate(
        {
            "hook": [
                hook(types="quota.*", severity="warning", where={"scope": ["a*", "b"], "used": 7})
            ]
        }
    )
    [made] = settings.hook
    wanted = {"scope": ("a*", "b"), "used": ("7",)}
    assert made.filter() == Filter(("quota.*",), Severity.WARNING, wanted)
    assert "host" not in repr(settings)
    assert "host" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": "A B"}, "rename it"),
        ({"command": ["x"]}, "a command or a url"),
        ({"url": None}, "a command or a url"),
        ({"url": None, "command": ["x"], "secret": "s"}, "are for a url"),
        ({"url": None, "command": [""]}, "not a command"),
        ({"url": "ftp://host/"}, "not a URL for a webhook"),
        ({"url": "https:///x"}, "not a URL for a webhook"),
        ({"url": "https://host/x\r\nX: y"}, "not a URL for a webhook"),
        ({"url": "https://user:hunter2@host/"}, "holds a login"),
        ({"types": ["quota.reachd"]}, "did you mean 'quota.reached'"),
        ({"types": ["quotas.*"]}, "no event is called"),
        ({"where": {"repositry": "x"}}, "did you mean 'repository'"),
        ({"types": ["quota.*"], "where": {"repository": "x"}}, "no such event has a field"),
        ({"headers": {"Host": "x"}}, "set by the gateway"),
        ({"headers": {"Webhook-Id": "x"}}, "set by the gateway"),
        ({"headers": {"A B": "x"}}, "not the name of a header"),
        ({"time_limit": 0}, "greater than 0"),
        ({"retries": 3}, "not permitted"),
    ],
)
def test_mistakes(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EventsSettings.model_validate({"hook": [hook(**wrong)]})
    messages = "\n".join(error["msg"] for error in caught.value.errors())
    assert told in messages
    assert "hunter2" not in messages


def test_two_hooks_of_one_name() -> None:
    with pytest.raises(ValidationError, match="two hooks are called 'h'"):
        EventsSettings.model_validate({"hook": [hook(), hook()]})
    with pytest.raises(ValidationError, match="two brackets"):
        EventsSettings.model_validate({"hook": hook()})


def begin(tmp_path: Path, **more: Any) -> None:
    journal = tmp_path / "events.sqlite3"
    settings = EventsSettings.model_validate({"hook": [hook(**more)], "journal": journal})
    start(settings, environ={}).close()


def test_secrets_are_looked_at_when_it_starts(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    for content, told in (
        ("gopher://hunter2/", "hook h: is not a URL"),
        ("https://u:hunter2@host/", "hook h: holds a login"),
    ):
        secret.write_text(content)
        with pytest.raises(CommandError, match=told) as caught:
            begin(tmp_path, url={"file": str(secret)})
        assert "hunter2" not in str(caught.value)
    secret.write_text("https://host/")
    begin(tmp_path, url={"file": str(secret)})
    with pytest.raises(CommandError, match="must go on in base64"):
        begin(tmp_path, secret="whsec_hunter2!")
    with pytest.raises(CommandError, match="X-Key is not printable"):
        begin(tmp_path, headers={"X-Key": "a\nb"})
    with pytest.raises(CommandError, match="cannot use the certificates"):
        begin(tmp_path, ca_file=tmp_path / "none.pem")


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(CommandError, match="moved away, it is made anew"):
        begin(tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a?b=c", "https://[::1]/", "https://host"])
def test_usual_urls_are_taken(url: str) -> None:
    check_url(url)
