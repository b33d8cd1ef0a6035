"""Blobs that are known by their hash: what is older is looked for while they are sent."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

import pytest
from tests.kvstore.drime.places import MB, put, second, sizes
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    ObjectExists,
)


def blob_of(value: bytes) -> str:
    """The name of a blob that is known by its hash."""
    return f"data/ab/{hashlib.sha256(value).hexdigest()}"


def put_blob(place: Backend, value: bytes) -> None:
    """Store a blob as a repository's server does."""
    name = blob_of(value)
    with place.open_writer(
        name, size=len(value), if_absent=True, expected_hash=name.rpartition("/")[2]
    ) as writer:
        writer.write(value)


class TestBlobsKnownByTheirHash:
    """What is older is looked for while they are sent."""

    def test_it_takes_the_time_of_one_request(self, drime: DrimeDouble, there: Backend) -> None:
        put_blob(there, b"the first")
        drime.forget_calls()
        with drime.api.all_held(2):
            put_blob(there, b"a blob")
        assert drime.counts() == {"upload": 1, "list": 1}
        assert there.load(blob_of(b"a blob")) == b"a blob"

    def test_one_that_is_a_part_by_its_size_is_looked_for_once(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        value = bytes(5 * MB + 1)
        put_blob(there, value)
        assert drime.counts()["list"] == 1
        assert sizes(drime, blob_of(value)) == [len(value)]

    @pytest.mark.parametrize("size", [9, 6 * MB])
    def test_one_that_is_there_is_refused(
        self, drime: DrimeDouble, there: Backend, size: int
    ) -> None:
        value = bytes(size)
        put_blob(there, value)
        with second(drime) as other, pytest.raises(ObjectExists):
            put_blob(other, value)
        assert sizes(drime, blob_of(value)) == [size]

    def test_many_writers_of_one_leave_one_entry(self, drime: DrimeDouble, there: Backend) -> None:
        drime.api.delay = 0.05
        outcomes: list[str] = []

        def write() -> None:
            try:
                put_blob(there, b"the same")
            except ObjectExists:
                outcomes.append("refused")
            else:
                outcomes.append("stored")

        threads = [threading.Thread(target=write) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(outcomes) == {"stored": 1, "refused": 11}
        assert sizes(drime, blob_of(b"the same")) == [8]

    def test_in_a_large_folder_they_are_searched_for(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        with second(drime) as other:
            for number in range(201):
                put(other, f"data/ab/{number}", b"")
        put_blob(there, b"the first finds out")
        drime.forget_calls()
        put_blob(there, b"another")
        with pytest.raises(ObjectExists):
            put_blob(there, b"another")
        assert drime.counts() == {"upload": 2, "list": 2, "delete": 1}

    def test_a_folder_that_another_gateway_made_again(
        self, drime: DrimeDouble, there: Backend
    ) -> None:
        with second(drime) as other:
            other.rmdir("data/ab")
            put_blob(other, b"blob")
        with pytest.raises(ObjectExists):
            put_blob(there, b"blob")
        assert sizes(drime, blob_of(b"blob")) == [4]
