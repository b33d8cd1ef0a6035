"""Packs on a far place are listed several folders at a time, and none is missed or told twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator

import pytest

from backupgw.kvstore.backends.errors import BackendConnectionError, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory
from backupgw.restserver import folders_ahead
from backupgw.restserver.listing import Listing
from backupgw.restserver.paths import parse


class Far(Memory):
    """A place where lists take as long as `wait`, which is told the folder's name."""

    capabilities = dataclasses.replace(Memory.capabilities, parallel_lists=True)
    open_lists = 0

    def wait(self, folder: str) -> None:
        """Nothing holds a list up."""

    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        self.wait(name)
        self.open_lists += 1
        try:
            yield from super().list_sizes(name)
        finally:
            self.open_lists -= 1


@pytest.fixture
def far() -> Iterator[Far]:
    place = Far()
    place.create()
    with place:
        yield place


def filled(place: Far, packs: int) -> dict[str, int]:
    names = {hashlib.sha256(b"%d" % number).hexdigest(): number % 7 for number in range(packs)}
    for name, size in names.items():
        place.store(f"repo/data/{name[:2]}/{name}", bytes(size))
    return names


def listing_of(place: Far) -> Listing:
    found = parse(b"/repo/data/")
    assert found is not None
    return Listing(place, found, sizes=True)


def listed(place: Far) -> list[tuple[str, int]]:
    listing = listing_of(place)
    document = json.loads(b"".join(iter(lambda: listing.next_piece() or b"", b"")))
    listing.close()
    return sorted((each["name"], each["size"]) for each in document)


def test_several_folders_are_on_their_way_at_a_time(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = filled(far, 2000)
    together = threading.Barrier(folders_ahead.AT_ONCE, timeout=20)
    monkeypatch.setattr(far, "wait", lambda folder: together.wait())
    assert listed(far) == sorted(names.items())
    assert not together.broken


def test_a_folder_with_too_much_is_listed_in_its_turn(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = filled(far, 2000)
    monkeypatch.setattr(folders_ahead, "MOST", 8)
    assert listed(far) == sorted(names.items())
    assert far.open_lists == 0


def test_a_folder_that_vanishes_is_left_out(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    names = filled(far, 2000)

    def vanish(folder: str) -> None:
        if folder.endswith("/07"):
            raise ObjectNotFound(folder)

    monkeypatch.setattr(far, "wait", vanish)
    assert listed(far) == sorted(each for each in names.items() if not each[0].startswith("07"))


def test_a_folder_that_cannot_be_listed_ends_the_listing(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(far, 2000)

    def break_down(folder: str) -> None:
        if folder.endswith("/77"):
            raise BackendConnectionError("the place is away")

    monkeypatch.setattr(far, "wait", break_down)
    with pytest.raises(BackendConnectionError):
        listed(far)


def test_a_repository_that_is_not_there_is_not_found(far: Far) -> None:
    with pytest.raises(ObjectNotFound):
        listed(far)


def test_a_listing_that_is_given_up_leaves_no_thread(far: Far) -> None:
    filled(far, 2000)
    before = {*threading.enumerate()}
    listing = listing_of(far)
    assert listing.next_piece()
    made = {*threading.enumerate()} - before
    listing.close()
    for thread in made:
        thread.join(20)
        assert not thread.is_alive()
    assert far.open_lists == 0
