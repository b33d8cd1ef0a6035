"""What a place in Drime asks of the service, and what it does not."""

from __future__ import annotations

import hashlib
import time

import pytest
from tests.kvstore.drime.places import MB, PART, put, second, sizes
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    ObjectNotFound,
)
from backupgw.kvstore.conformance import values


def test_known_blobs_cost_one_request_more_than_the_least_at_most(
    drime: DrimeDouble, there: Backend
) -> None:
    names = [f"data/ab/{number:064x}" for number in range(20)]
    for name in names:
        put(there, name, b"blob", if_absent=True)
    assert drime.counts() == {"upload": 20, "list": 20}
    drime.forget_calls()
    for name in names:
        assert there.load(name) == b"blob"
        assert there.load(name, offset=1, size=2) == b"lo"
    assert drime.counts() == {"download": 20}, "a link is used again"
    drime.forget_calls()
    for name in names:
        there.info(name)
        there.delete(name)
    assert drime.counts() == {"list": 40, "delete": 20}


def test_what_a_listing_has_shown_is_read_without_a_search(
    drime: DrimeDouble, there: Backend
) -> None:
    for number in range(20):
        put(there, f"data/ab/{number}", b"blob")
    with second(drime) as other:
        assert len([*other.list("data/ab")]) == 20
        drime.forget_calls()
        for number in range(20):
            assert other.load(f"data/ab/{number}") == b"blob"
    assert drime.counts() == {"download": 20}


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (5 * MB, {"upload": 1}),
        (5 * MB + 1, {"create": 1, "sign": 1, "complete": 1, "register": 1}),
        (PART, {"create": 1, "sign": 1, "complete": 1, "register": 1}),
        (PART + 1, {"create": 1, "sign": 1, "complete": 1, "register": 1}),
        (16 << 20, {"create": 1, "sign": 1, "complete": 1, "register": 1}),
        (11 * PART, {"create": 1, "sign": 2, "complete": 1, "register": 1}),
    ],
)
def test_large_values_go_in_parts(
    drime: DrimeDouble, there: Backend, size: int, least: dict[str, int]
) -> None:
    with there.open_writer("data/ab/blob", size=size) as writer:
        for piece in values.stream(size):
            writer.write(piece)
    assert drime.counts() == least | {"list": 1}
    assert there.hash("data/ab/blob") == values.stream_hash(size)


def test_a_large_value_is_begun_and_signed_while_its_first_part_comes(
    drime: DrimeDouble, there: Backend
) -> None:
    writer = there.open_writer("data/ab/blob", size=16 << 20)
    writer.write(b"x")
    until = time.monotonic() + 10
    while drime.counts() != {"create": 1, "sign": 1}:
        assert time.monotonic() < until
        time.sleep(0.01)
    writer.abort()
    while "abort" not in drime.counts():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert drime.account.uploads == {}


def test_a_value_of_unknown_size_goes_in_parts(drime: DrimeDouble, there: Backend) -> None:
    size = 3 * PART + 5
    with there.open_writer("data/ab/blob") as writer:
        for piece in values.stream(size):
            writer.write(piece)
    assert drime.counts()["register"] == 1
    assert there.hash("data/ab/blob") == values.stream_hash(size)


def test_a_repositorys_folders_are_made_with_few_requests(
    drime: DrimeDouble, there: Backend
) -> None:
    there.mkdirs(f"repo/data/{number:02x}" for number in range(256))
    made = drime.counts()
    assert made["folder"] == 258
    assert made["list"] <= 12
    drime.forget_calls()
    there.mkdirs(f"repo/data/{number:02x}" for number in range(256))
    assert drime.counts()["folder"] == 0
    with second(drime) as other:
        drime.forget_calls()
        for number in range(256):
            put(other, f"repo/data/{number:02x}/blob", b"x", if_absent=True)
        # The folders were all learnt from one look into `data`, two pages of it.
        assert drime.counts()["list"] <= 256 + 6


class TestLinksToTheStorage:
    """Whoever reads a pack range by range asks Drime once."""

    PACK = f"data/ab/{'0' * 64}"

    def test_one_is_used_for_many_ranges(self, drime: DrimeDouble, there: Backend) -> None:
        value = values.make(1, 100_000)
        put(there, self.PACK, value)
        drime.forget_calls()
        for start in range(0, 100_000, 10_000):
            part = there.load(self.PACK, offset=start, size=500)
            assert part == value[start : start + 500]
        assert drime.counts() == {"download": 1}
        assert len(drime.storage.calls) == 2, "the first by itself, then the block they are all in"

    @pytest.mark.parametrize("seconds", [None, 5], ids=["unsaid", "soon over"])
    def test_one_that_does_not_say_so_is_not_used_again(
        self, drime: DrimeDouble, there: Backend, seconds: int | None
    ) -> None:
        drime.switches.link_seconds = seconds
        put(there, self.PACK, b"value")
        drime.forget_calls()
        for _ in range(3):
            assert there.load(self.PACK) == b"value"
        assert drime.counts() == {"download": 3}

    def test_where_a_name_may_get_another_value_none_is(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        put(there, "config", b"value")
        drime.forget_calls()
        for _ in range(3):
            assert there.load("config") == b"value"
        assert drime.counts() == {"download": 3}

    def test_one_that_the_storage_refuses_is_asked_for_anew(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        put(there, self.PACK, b"value")
        assert there.load(self.PACK) == b"value"
        drime.forget_calls()
        drime.storage.faults = Faults(1.0, kinds=[Fault.UNAVAILABLE], limit=1)
        assert there.load(self.PACK) == b"value"
        assert drime.counts() == {"download": 1}

    def test_what_another_gateway_deletes_is_gone(self, drime: DrimeDouble, there: Backend) -> None:
        put(there, self.PACK, b"value")
        assert there.load(self.PACK) == b"value"
        with second(drime) as other:
            other.delete(self.PACK)
        with pytest.raises(ObjectNotFound):
            there.load(self.PACK)


def test_a_blob_is_deleted_while_others_of_its_name_are_looked_for(
    drime: DrimeDouble, there: Backend
) -> None:
    name = f"data/ab/{'1' * 64}"
    put(there, name, b"blob")
    (folder,) = (e for e in drime.account.everything(0) if e.name == "ab")
    for _ in range(2):
        content = drime.account.new_file()
        content.write_bytes(b"blob")
        drime.account.make_file("1" * 64, 0, folder.id, [content])
    drime.forget_calls()
    assert there.delete_sized(name) == 4
    assert sizes(drime, name) == [], "nothing of it comes back"
    assert drime.counts() == {"list": 1, "delete": 2}
    with pytest.raises(ObjectNotFound):
        there.delete(name)


def test_a_blob_of_a_large_folder_is_deleted(drime: DrimeDouble, there: Backend) -> None:
    names = [f"data/ab/{number:064x}" for number in range(3)]
    for name in names:
        put(there, name, b"blob")
    (folder,) = (e for e in drime.account.everything(0) if e.name == "ab")
    for number in range(1000, 1250):
        drime.account.make_file(f"{number:064}", 0, folder.id, [])
    for name in names:
        there.delete(name)
        assert sizes(drime, name) == []
        assert not there.info(name).exists


def test_one_that_another_gateway_has_deleted_is_not_deleted_again(
    drime: DrimeDouble, there: Backend
) -> None:
    name = f"data/ab/{'2' * 64}"
    put(there, name, b"blob")
    with second(drime) as other:
        other.delete(name)
        with pytest.raises(ObjectNotFound):
            there.delete(name)
        put(there, name, b"blob")
        other.load(name)
        there.delete(name)
        put(there, name, b"blob", if_absent=True)
        other.delete(name)
    assert sizes(drime, name) == []


def test_that_a_folder_is_empty_costs_two_requests(drime: DrimeDouble, there: Backend) -> None:
    there.mkdir("repo/locks")
    drime.forget_calls()
    assert [*there.list("repo/locks")] == []
    assert drime.counts() == {"list": 1}, "it was seen a moment ago"
    time.sleep(2.1)
    drime.forget_calls()
    with drime.api.all_held(2):  # side by side, as it was empty before
        assert [*there.list("repo/locks")] == []
    assert drime.counts() == {"list": 2}, "itself, and whether it still is where it was"


def test_ranges_fetch_no_more_than_was_asked_for(drime: DrimeDouble, there: Backend) -> None:
    value = values.make(1, 4 << 20)
    put(there, "data/ab/blob", value)
    assert not there.capabilities.ranges, "nothing has shown it yet"
    before = drime.fetched
    assert there.load("data/ab/blob", offset=3 << 20, size=1000) == value[3 << 20 :][:1000]
    assert there.load("data/ab/blob", offset=-10) == value[-10:]
    assert drime.fetched - before == 1010
    assert there.capabilities.ranges


def test_where_ranges_are_ignored_the_capabilities_say_so(
    drime: DrimeDouble, there: Backend
) -> None:
    drime.switches.ranges = False
    value = values.make(1, 1 << 20)
    put(there, "data/ab/blob", value)
    assert there.load("data/ab/blob", offset=500_000, size=1000) == value[500_000:501_000]
    assert not there.capabilities.ranges


def test_folders_side_by_side_are_listed_together(drime: DrimeDouble, there: Backend) -> None:
    there.mkdirs(f"repo/data/{number:02x}" for number in range(256))
    names = [hashlib.sha256(bytes([number])).hexdigest() for number in range(120)]
    for name in names:
        put(there, f"repo/data/{name[:2]}/{name}", b"blob")

    def packs(place: Backend) -> list[str]:
        folders = [info.name for info in place.list("repo/data")]
        return [info.name for each in folders for info in place.list(f"repo/data/{each}")]

    with second(drime) as other:
        drime.forget_calls()
        assert sorted(packs(other)) == sorted(names)
        assert drime.counts()["list"] <= 16, "for 257 folders"
        drime.forget_calls()
        assert {other.load(f"repo/data/{name[:2]}/{name}") for name in names} == {b"blob"}
        assert drime.counts() == {"download": len(names)}
        # What was fetched ahead is no answer after a change of our own.
        folders = [info.name for info in other.list("repo/data")]
        for each in folders[:2]:
            [*other.list(f"repo/data/{each}")]
        put(other, f"repo/data/{folders[9]}/new", b"new")
        other.mkdir(f"repo/data/{folders[10]}/deeper")
        assert "deeper" in {info.name for info in other.list(f"repo/data/{folders[10]}")}
        assert "new" in {info.name for info in other.list(f"repo/data/{folders[9]}")}


@pytest.mark.alone
def test_all_packs_are_listed_in_the_time_of_four_requests(
    drime: DrimeDouble, there: Backend
) -> None:
    there.mkdirs(f"repo/data/{number:02x}" for number in range(256))
    put(there, "repo/data/ab/pack", b"blob")

    def packs() -> list[str]:
        folders = [info.name for info in there.list("repo/data")]
        return [info.name for each in folders for info in there.list(f"repo/data/{each}")]

    drime.api.delay = 0.4
    for most in (4, 3):  # the second time it is known how much lies in a folder
        started = time.monotonic()
        assert packs() == ["pack"]
        assert time.monotonic() - started < 0.4 * (most + 1)
