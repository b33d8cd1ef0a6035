"""A place in Drime keeps every promise of a backend, however the service behaves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from tests.kvstore.drime.places import place
from tests.kvstore.filled_folders import in_double
from tests.servers.drime_double import DrimeDouble
from tests.servers.drime_entries import Switches
from tests.servers.drime_process import DrimeProcess

from backupgw.kvstore.backends.entry_items import KNOWN
from backupgw.kvstore.conformance import Check, Status, Subject, checks

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"

SCALE = 0.1
"""Each operation is a request or two."""

LONG = {"listing.list_streams"}
"""With fewer entries than its full count a single page weighs more than a list may hold;
`test_drime_listing` has large folders, which were filled without requests."""

OTHERWISE = Switches(
    most_per_page=50,
    honest_last_page=True,
    repeat_last_page=False,
    refuse_duplicate_folders=False,
    refuse_gone=False,
    ranges=False,
    redirect_downloads=False,
    trash_is_readable=True,
    search_finds=False,
    order=False,
)
"""The opposite of what the live service was seen to do, wherever it could be either."""

SHORT = (
    "atomicity.",
    "failing.",
    "lifecycle.",
    "listing.list_is_exact",
    "naming.decent",
    "ranges.every_small_range",
    "concurrency.threads",
)


def fill_folder(drime: DrimeDouble, path: str, names: Sequence[str]) -> None:
    account, at = drime.account, None
    for name in path.split("/"):
        (at,) = (each.id for each in account.children(0, [at]) if each.name == name)
    for name in names:
        account.make_file(name, 0, at, [])


def empty_folder(drime: DrimeDouble, path: str, names: Sequence[str]) -> None:
    account, wanted = drime.account, {*names}
    gone = [each.id for each in account.everything(0) if each.name in wanted]
    account.delete(gone, forever=True)


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    with (
        DrimeProcess() as drime,
        Subject(
            partial(place, drime.url, drime.key),
            soak=SOAK,
            scale=SCALE,
            fill=in_double(drime, fill_folder, empty_folder, "backups/place"),
            remembers=KNOWN,
        ) as subject,
    ):
        yield subject


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=[pytest.mark.soak] if str(check) in LONG else [])
        for check in checks
    ],
    ids=str,
)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture(scope="module")
def otherwise() -> Iterator[Subject]:
    """The other Drime, its trash used, a folder of a workspace that is somebody else's too."""
    with DrimeDouble(OTHERWISE) as drime:
        factory = partial(place, drime.url, drime.key, "drime://7/a%20b/é", trash=True)
        with Subject(factory, soak=SOAK, scale=SCALE) as subject:
            yield subject
        assert not [name for name in drime.account.tree(7) if name.startswith("a b/é")]


@pytest.mark.parametrize(
    "check", [check for check in checks if str(check).startswith(SHORT)], ids=str
)
def test_conformance_otherwise(check: Check, otherwise: Subject) -> None:
    result = check.run(otherwise)
    assert result.status is not Status.FAILED, result.note
