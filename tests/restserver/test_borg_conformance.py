"""Places behind a server of borgstore's protocol keep every promise of a backend: ours over HTTP
and over a command's standard streams, and borgstore's own but for its limits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import SOAK
from tests.kvstore.filled_folders import on_disk
from tests.servers.borg import BorgServer, BorgstoreServer

from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.registry import open_place

BACKUPGW = str(Path(sys.executable).parent / "backupgw")

SLOW = ("listing.list_streams",)
OVER_A_COMMAND = ("operations.", "ranges.")
"""What the streams could garble; the rest over them in soaks."""

BORGSTORES_LIMITS = {
    "failing.folders_are_no_items": "it moves a folder as it moves an item",
    "naming.decent_names_come_back": "it does not unquote names, so blanks are refused",
    "naming.deep_paths_work": "its names have 100 characters at most",
    "naming.case_is_kept_apart": "its names are in lower case",
}
"""The checks that borgstore 0.7's own server cannot pass, whatever the client does; plain requests
show the same."""


@contextmanager
def served_by(server: BorgServer) -> Iterator[Subject]:
    with (
        server,
        Subject(partial(open_place, server.url), soak=SOAK, fill=on_disk(server.folder)) as subject,
    ):
        yield subject


@pytest.fixture(scope="module")
def over_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with served_by(BorgServer(tmp_path_factory.mktemp("http") / "store")) as subject:
        yield subject


@pytest.fixture(scope="module")
def over_a_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("command") / "store"
    command = f"{BACKUPGW} borg serve"
    factory = partial(open_place, f"rest:///{folder}", server_command=command)
    with Subject(factory, soak=SOAK, fill=on_disk(folder)) as subject:
        yield subject


@pytest.fixture(scope="module")
def on_borgstores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with served_by(BorgstoreServer(tmp_path_factory.mktemp("borgstore") / "store")) as subject:
        yield subject


@pytest.mark.parametrize(
    "check", [each for each in checks if SOAK or each.name not in SLOW], ids=str
)
def test_over_http(check: Check, over_http: Subject) -> None:
    result = check.run(over_http)
    assert result.status is not Status.FAILED, result.note


@pytest.mark.parametrize(
    "check", [each for each in checks if SOAK or each.name.startswith(OVER_A_COMMAND)], ids=str
)
def test_over_a_command(check: Check, over_a_command: Subject) -> None:
    result = check.run(over_a_command)
    assert result.status is not Status.FAILED, result.note


@pytest.mark.soak
@pytest.mark.parametrize("check", checks, ids=str)
def test_on_borgstores_server(check: Check, on_borgstores: Subject) -> None:
    result = check.run(on_borgstores)
    if check.name in BORGSTORES_LIMITS:
        assert result.status is Status.FAILED, "what it can do now is no limit any more"
    else:
        assert result.status is not Status.FAILED, result.note


def test_borgstores_limits_are_checks() -> None:
    assert set(BORGSTORES_LIMITS) <= {each.name for each in checks}
