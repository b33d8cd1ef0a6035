"""Keys, URLs, options and the layout of a place in Drime."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.kvstore.drime.places import PART, place, put
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    BackendURLInvalid,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.registry import open_place


@pytest.mark.parametrize("html", [False, True], ids=["401", "a page to sign in on"])
def test_a_revoked_key_is_told_and_nothing_is_tried_again(
    drime: DrimeDouble, there: Backend, html: bool, caplog: pytest.LogCaptureFixture
) -> None:
    put(there, "data/ab/blob", b"value")
    drime.switches.html_for_strangers = html
    drime.keys.clear()
    drime.forget_calls()
    caplog.set_level(logging.DEBUG)
    operations: list[Callable[[], object]] = [
        lambda: there.load("data/ab/blob"),
        lambda: put(there, "data/ab/new", b"value"),
        lambda: put(there, "data/ab/large", bytes(PART + 1)),
        lambda: there.info("data/ab/blob"),
        lambda: [*there.list("data")],
        lambda: there.delete("data/ab/blob"),
    ]
    for operation in operations:
        with pytest.raises(PermissionDenied, match="does not accept the API key") as caught:
            operation()
        assert not caught.value.retryable
        assert drime.key not in str(caught.value)
    assert len(drime.api.calls) <= 2 * len(operations)
    assert drime.key not in caplog.text
    assert "signature=" not in caplog.text
    assert drime.key not in repr(there)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"api_url": "drime.example/api"}, r"api_url: must be http\(s\)://HOST"),
        ({"api_url": "https://user:word@drime.example"}, r"api_url: must be http\(s\)://HOST"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_what_no_connection_could_be_made_by_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BackendURLInvalid, match=told):
        open_place("drime:folder", api_key="key", **options)


def test_why_nobody_is_reached_is_told() -> None:
    made = place("http://127.0.0.1:9/api/v1", "key", attempts=1)
    with pytest.raises(BackendConnectionError, match=r"connection to Drime failed .*refused"):
        made.open()


def test_the_storage_never_sees_the_key(drime: DrimeDouble, there: Backend) -> None:
    """The double's refuses whoever shows it."""
    put(there, "data/ab/blob", bytes(2 * PART))
    assert there.hash("data/ab/blob") == hashlib.sha256(bytes(2 * PART)).hexdigest()
    assert Counter(call.status for call in drime.storage.calls) == {200: 3}


def test_the_key_may_come_from_the_environment(
    drime: DrimeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIME_API_KEY", drime.key)
    monkeypatch.setenv("DRIME_API_URL", drime.url)
    monkeypatch.setenv("DRIME_WORKSPACE_ID", "7")
    made = open_place("drime:folder")
    made.create()
    with made:
        put(made, "item", b"value")
    assert drime.account.tree(7)["folder/item"] == [5]
    with open_place("drime://7/folder") as same:
        assert same.load("item") == b"value"


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("drime:x", {}, "needs an API key"),
        ("drime:x", {"api_key": "two words"}, "pasted wrong"),
        ("drime://mine/x", {"api_key": "k"}, "number of a workspace"),
        ("drime://key@7/x", {"api_key": "k"}, "holds no API key"),
        ("drime:x?trash=true", {"api_key": "k"}, "no query"),
        ("drime:a/../b", {"api_key": "k"}, "'..'"),
        ("drime://7/x", {"api_key": "k", "workspace_id": 8}, "workspace 7"),
        ("drime:x", {"api_key": "k", "workspace_id": "seven"}, "'seven'"),
        ("drime:x", {"api_key": "k", "trash": "maybe"}, "true or false"),
        ("drime:x", {"api_key": "k", "apikey": "k"}, "apikey"),
    ],
)
def test_mistakes_in_urls_and_options(
    url: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DRIME_API_KEY", raising=False)
    with pytest.raises(BackendURLInvalid, match=message):
        open_place(url, **options)


def test_a_strangers_workspace_is_refused(drime: DrimeDouble) -> None:
    with pytest.raises(PermissionDenied, match="not a member"):
        place(drime.url, drime.key, "drime://8/x").open()


def test_a_whole_workspace_is_a_place_that_is_never_destroyed(drime: DrimeDouble) -> None:
    whole = place(drime.url, drime.key, "drime:")
    with whole:
        put(whole, "repo/item", b"value")
        assert [info.name for info in whole.list("")] == ["repo"]
    with pytest.raises(UnsupportedOperation):
        whole.destroy()
    with pytest.raises(BackendError):
        whole.create()
    assert drime.account.tree()["repo/item"] == [5]


def test_the_layout_is_restics(drime: DrimeDouble, there: Backend) -> None:
    for name in ("config", "keys/k", "data/ab/abcd", "snapshots/s"):
        put(there, f"repo/{name}", b"value")
    items = {n for n, s in drime.account.tree().items() if s != [-1]}
    assert items == {
        f"backups/place/repo/{name}" for name in ("config", "keys/k", "data/ab/abcd", "snapshots/s")
    }
