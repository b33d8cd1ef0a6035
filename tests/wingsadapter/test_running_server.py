"""Whether a server runs: Wings is asked, and where it cannot say, the machine is looked at."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.child import Child
from tests.servers.panel import TOKEN
from tests.servers.tls import Certificate
from tests.servers.wings_double import WingsDouble

from backupgw.wingsadapter.running_server import AskedWings


@pytest.fixture(scope="module")
def wings() -> Iterator[WingsDouble]:
    with WingsDouble() as wings:
        yield wings


def state(text: object) -> bytes:
    return json.dumps({"state": text, "is_suspended": False, "utilization": {}}).encode()


def in_folder(asked: AskedWings, server: str, folder: Path) -> str | None:
    """Ask while a process works in the server's folder."""
    with Child(["sleep", "60"], cwd=folder) as process:
        try:
            return asked.why_not(server, str(folder))
        finally:
            process.kill()


@pytest.mark.parametrize("told", ["running", "starting", "stopping"])
def test_what_wings_says_counts(wings: WingsDouble, tmp_path: Path, told: str) -> None:
    server = str(uuid.uuid4())
    wings.answers[server] = (200, state(told))
    why = AskedWings(wings.url, TOKEN).why_not(server, str(tmp_path))
    assert why == f"the server is {told}: stop it first"


def test_offline_and_nobody_there_is_not_running(wings: WingsDouble, tmp_path: Path) -> None:
    server = str(uuid.uuid4())
    wings.answers[server] = (200, state("offline"))
    asked = AskedWings(wings.url, TOKEN)
    assert asked.why_not(server, str(tmp_path)) is None
    # A container that Wings has lost sight of.
    assert "sleep" in (in_folder(asked, server, tmp_path) or "")


@pytest.mark.parametrize(
    "answer",
    [(404, b'{"error": "none"}'), (500, b""), (200, b"<html>"), (200, b"[]"), (200, state(3))],
)
def test_a_wings_that_does_not_say_is_no_yes(
    wings: WingsDouble, tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    server = str(uuid.uuid4())
    wings.answers[server] = answer
    asked = AskedWings(wings.url, TOKEN)
    assert asked.why_not(server, str(tmp_path)) is None
    assert "sleep" in (in_folder(asked, server, tmp_path) or "")


def test_a_wings_that_is_away(tmp_path: Path) -> None:
    with WingsDouble() as gone:
        asked = AskedWings(gone.url, TOKEN)
    assert asked.why_not(str(uuid.uuid4()), str(tmp_path)) is None
    assert "sleep" in (in_folder(asked, str(uuid.uuid4()), tmp_path) or "")


def test_a_certificate_for_another_name(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`upstream_verify = false`; and a proxy for the world outside is not asked for Wings."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    server = str(uuid.uuid4())
    with WingsDouble(certificate=certificate) as wings:
        wings.answers[server] = (200, state("running"))
        assert AskedWings(wings.url, TOKEN).why_not(server, str(tmp_path)) is None
        why = AskedWings(wings.url, TOKEN, verify=False).why_not(server, str(tmp_path))
    assert why is not None
