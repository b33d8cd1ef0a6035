"""What is fetched from Drime before it is asked for: blocks of packs, and links."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.kvstore.drime.places import put, second
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.blocks_kept import BLOCK
from backupgw.kvstore.backends.errors import ObjectNotFound
from backupgw.kvstore.conformance import values

PATIENCE = 60.0
"""Seconds."""
PACK = f"data/ab/{'0' * 64}"


def read(place: Backend, names: Sequence[str]) -> None:
    for name in names:
        assert place.load(name) == name.encode()


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def wait_for_downloads(drime: DrimeDouble, count: int) -> None:
    """Wait until so many links were asked for."""
    wait_for(lambda: drime.counts()["download"] >= count)


class TestRangesOfAPack:
    """Whoever reads a pack in small ranges waits once for each block."""

    @pytest.fixture
    def pack(self, drime: DrimeDouble, there: Backend) -> bytes:
        value = values.make(1, 2_000_000)
        put(there, PACK, value)
        drime.forget_calls()
        return value

    def test_trees_of_a_pack(self, drime: DrimeDouble, there: Backend, pack: bytes) -> None:
        for start in (50_000, 0, 5000, 57_000, 62_000, 10_000, 240_000):
            assert there.load(PACK, offset=start, size=5000) == pack[start : start + 5000]
        assert len(drime.storage.calls) == 2
        with there.open_reader(PACK, offset=100, size=1000) as reader:
            assert (reader.item_size, reader.remaining) == (len(pack), 1000)
            assert reader.read(2000) == pack[100:1100]
            assert reader.read(1) == b""
        assert len(drime.storage.calls) == 2

    def test_no_more_than_two_blocks_are_fetched_in_vain(
        self, drime: DrimeDouble, there: Backend, pack: bytes
    ) -> None:
        before = drime.fetched
        for start in range(0, len(pack) - 10, BLOCK):
            assert there.load(PACK, offset=start, size=10) == pack[start : start + 10]
        assert drime.fetched - before <= 2 * BLOCK + 100

    def test_what_is_whole_or_may_change_comes_from_the_storage(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        small = f"data/ab/{'1' * 64}"
        put(there, small, b"a small pack")
        for _ in range(3):
            assert there.load(small, offset=2, size=5) == b"small"
        drime.forget_calls()
        for _ in range(3):
            assert there.load(small) == b"a small pack"
            assert there.load(small, offset=0, size=12) == b"a small pack"
        assert len(drime.storage.calls) == 6
        put(there, "config", b"some value")
        for _ in range(3):
            assert there.load("config", offset=5, size=3) == b"val"
        assert len(drime.storage.calls) == 9

    def test_what_is_deleted_is_gone(self, there: Backend, pack: bytes) -> None:
        for _ in range(3):
            assert there.load(PACK, offset=10, size=5) == pack[10:15]
        there.delete(PACK)
        with pytest.raises(ObjectNotFound):
            there.load(PACK, offset=10, size=5)
        put(there, PACK, b"0123456789")
        assert there.load(PACK, offset=5, size=3) == b"567"

    def test_where_ranges_are_ignored_no_block_is_fetched(
        self, drime: DrimeDouble, there: Backend, pack: bytes
    ) -> None:
        drime.switches.ranges = False
        for _ in range(3):
            assert there.load(PACK, offset=1_000_000, size=9) == pack[1_000_000:1_000_009]
        assert len(drime.storage.calls) == 3

    def test_a_storage_that_fails_now_and_then(self, drime: DrimeDouble, quick: Backend) -> None:
        value = values.make(2, 1_000_000)
        put(quick, PACK, value)
        drime.storage.faults = Faults(
            0.4, kinds=[Fault.UNAVAILABLE, Fault.RESET, Fault.CUT], seed=2, limit=60
        )
        draws = random.Random(1)
        for _ in range(60):
            start = draws.randrange(len(value) - 4000)
            assert quick.load(PACK, offset=start, size=4000) == value[start : start + 4000]
        assert drime.storage.faults.hit > 5


class TestLinksThatComeNext:
    """Whoever reads items in about the order in which they were stored waits for one answer."""

    COUNT = 32

    @pytest.fixture
    def names(self, drime: DrimeDouble, there: Backend) -> Sequence[str]:
        """Items of a repository, in the order in which they were stored."""
        drime.switches.never_ends_above = 100_000
        hashes = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(self.COUNT)]
        there.mkdirs({f"repo/data/{each[:2]}" for each in hashes})
        names = [f"repo/data/{each[:2]}/{each}" for each in hashes]
        for name in names:
            put(there, name, name.encode())
        drime.forget_calls()
        return names

    def test_they_are_asked_for_while_others_are_read(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str]
    ) -> None:
        read(there, names[:8])
        wait_for_downloads(drime, 8 + 8)
        read(there, names[8:])
        assert drime.counts() == {"download": self.COUNT}

    def test_about_in_order_is_enough(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str]
    ) -> None:
        mixed = [*names]
        for start in range(0, self.COUNT, 8):
            mixed[start : start + 8] = reversed(mixed[start : start + 8])
        read(there, mixed[:8])
        wait_for_downloads(drime, 8 + 8)
        read(there, mixed[8:])
        assert drime.counts() == {"download": self.COUNT}

    def test_group_by_group_as_restic_checks_and_prunes(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        draws = random.Random(3)
        hashes = [draws.randbytes(32).hex() for _ in range(3 * self.COUNT)]
        groups = [
            [f"repo/data/{each[0]}{digit}/{each[0]}{digit}{each[2:]}" for each in hashes[start::3]]
            for start, digit in enumerate("ab")
        ]
        there.mkdirs({name[:12] for group in groups for name in group})
        for name in [*groups[1], *groups[0]]:
            put(there, name, name.encode())
        drime.forget_calls()
        done = 0
        for group in groups:
            mixed = draws.sample(group, len(group))
            read(there, mixed[:12])
            wait_for_downloads(drime, done + len(group) - 4)
            read(there, mixed[12:])
            done += len(group)
        assert drime.counts() == {"download": done}

    def test_they_are_asked_for_at_once(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str]
    ) -> None:
        read(there, names[:4])
        with ThreadPoolExecutor(1) as reader:
            with drime.api.holding():
                reading = reader.submit(read, there, names[4:])
                wait_for(lambda: drime.api.held >= 8)
            reading.result(PATIENCE)

    def test_in_no_order_few_are_asked_for_in_vain(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str]
    ) -> None:
        spread = [names[number * 17 % len(names)] for number in range(8)]
        read(there, spread)
        time.sleep(0.1)
        assert drime.counts()["download"] <= len(spread) + 16 + 8, "16, and one for each of use"

    @pytest.mark.parametrize("way", ["no links", "links that do not say for how long"])
    def test_where_links_cannot_be_kept_none_are_asked_for(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str], way: str
    ) -> None:
        if way == "no links":
            drime.switches.redirect_downloads = False
        else:
            drime.switches.link_seconds = None
        before = drime.fetched
        read(there, names)
        assert drime.counts() == {"download": self.COUNT}
        assert drime.fetched - before == sum(map(len, names))

    def test_one_that_somebody_has_deleted_meanwhile(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str]
    ) -> None:
        read(there, names[:6])
        wait_for_downloads(drime, 6 + 3)  # also for what nobody may ever want
        assert drime.counts()["download"] <= 6 + 17
        with second(drime) as other:
            other.delete(names[8])
        with pytest.raises(ObjectNotFound):
            there.load(names[8])
        assert there.load(names[9]) == names[9].encode()

    def test_drime_has_enough_of_requests(
        self, drime: DrimeDouble, there: Backend, names: Sequence[str]
    ) -> None:
        for name in names[:6]:
            there.load(name)
        drime.api.faults = Faults(0.5, kinds=[Fault.TOO_MANY, Fault.RESET], seed=4, limit=8)
        for name in names[6:]:
            assert there.load(name) == name.encode()
        assert drime.api.faults.hit == 8
