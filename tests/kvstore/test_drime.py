"""A place in Drime: what it asks of the service, and what users notice of the service's ways."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.kvstore.drime_places import place
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble
from tests.servers.drime_entries import Switches

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.drime import Drime
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    BackendURLInvalid,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
    UnsupportedOperation,
)
from backupgw.kvstore.conformance import values
from backupgw.kvstore.layers.retry_schedule import Schedule
from backupgw.kvstore.registry import open_place

MB = 1_000_000
PART = 5 << 20


@pytest.fixture
def drime() -> Iterator[DrimeDouble]:
    with DrimeDouble() as drime:
        yield drime


@pytest.fixture
def there(drime: DrimeDouble) -> Iterator[Backend]:
    """A place, open; nothing is counted yet."""
    made = place(drime.url, drime.key)
    made.create()
    with made:
        made.mkdir("data/ab")
        drime.forget_calls()
        yield made


@pytest.fixture
def quick(drime: DrimeDouble) -> Iterator[Backend]:
    """The same with shorter pauses between attempts, for many failures."""
    schedule = Schedule(attempts=10, deadline=60, first=0.01, longest=0.3)
    made = Drime(drime.key, "backups/place", api_url=drime.url, schedule=schedule)
    made.create()
    with made:
        made.mkdir("data/ab")
        drime.forget_calls()
        yield made


def second(drime: DrimeDouble, **options: Any) -> Backend:
    """Another opening of the place, as another gateway would have it."""
    return place(drime.url, drime.key, **options)


def put(place: Backend, name: str, value: bytes, *, if_absent: bool = False) -> None:
    with place.open_writer(name, size=len(value), if_absent=if_absent) as writer:
        writer.write(value)


def sizes(drime: DrimeDouble, name: str) -> list[int]:
    """The sizes of all that has a name in the place, in Drime."""
    return drime.account.tree().get(f"backups/place/{name}", [])


# -- requests


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
    assert drime.counts() == {"download": 40}
    drime.forget_calls()
    for name in names:
        there.info(name)
        there.delete(name)
    assert drime.counts() == {"list": 40, "delete": 20}


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
        drime.api.delay = 0.3
        started = time.monotonic()
        put_blob(there, b"a blob")
        assert time.monotonic() - started < 0.55
        drime.api.delay = 0
        assert drime.counts() == {"upload": 1, "list": 1}
        assert there.load(blob_of(b"a blob")) == b"a blob"

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


# -- many at once


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "taken"])
def test_threads_and_gateways_make_no_second_folder(refused: bool) -> None:
    with DrimeDouble(Switches(refuse_duplicate_folders=refused)) as drime:
        first = place(drime.url, drime.key)
        first.create()
        gateways = [first, second(drime), second(drime)]
        for gateway in gateways:
            gateway.open()
        together = threading.Barrier(12)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            together.wait()
            try:
                for step in range(4):
                    put(gateways[number % 3], f"new/{step}/deep/{number}", b"%d" % number)
            except BaseException as error:  # noqa: BLE001 - told by the test
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        folders = {n: s for n, s in drime.account.tree().items() if s[0] == -1}
        if refused:
            assert {len(each) for each in folders.values()} == {1}
        for gateway in gateways:
            for step in range(4):
                names = sorted(int(info.name) for info in gateway.list(f"new/{step}/deep"))
                assert names == [*range(12)]
            assert gateway.load("new/3/deep/11") == b"11"
            gateway.close()


def test_several_folders_of_one_name_count_as_one(drime: DrimeDouble, there: Backend) -> None:
    put(there, "twin/first", b"1")
    (root,) = (e for e in drime.account.everything(0) if e.name == "place")
    drime.switches.refuse_duplicate_folders = False
    other_twin = drime.account.make_folder("twin", 0, root.id)
    content = drime.account.new_file()
    content.write_bytes(b"22")
    drime.account.make_file("second", 0, other_twin.id, [content])
    with second(drime) as other:
        assert sorted(info.name for info in other.list("twin")) == ["first", "second"]
        assert [info.name for info in other.list("")].count("twin") == 1
        assert other.load("twin/second") == b"22"
        put(other, "twin/third", b"333")
        assert not [e for e in drime.account.children(0, [other_twin.id]) if e.name == "third"]
        put(other, "twin/second", b"4444")
        assert other.load("twin/second") == b"4444"
        for name in ("first", "second", "third"):
            other.delete(f"twin/{name}")
        other.rmdir("twin")
        assert not other.info("twin").exists


def test_of_several_entries_everybody_takes_the_first(drime: DrimeDouble, there: Backend) -> None:
    put(there, "data/ab/blob", b"first")
    (folder,) = (e for e in drime.account.everything(0) if e.name == "ab")
    content = drime.account.new_file()
    content.write_bytes(b"the second one")
    drime.account.make_file("blob", 0, folder.id, [content])
    with second(drime) as other:
        for gateway in (there, other):
            assert gateway.load("data/ab/blob") == b"first"
            assert gateway.info("data/ab/blob").size == 5
    there.delete("data/ab/blob")
    assert sizes(drime, "data/ab/blob") == [], "nothing of it comes back"


def test_of_two_who_create_at_once_one_is_refused(drime: DrimeDouble, there: Backend) -> None:
    """Drime has no create-if-absent; whoever sees an older entry takes his own back."""
    with second(drime) as other:
        for number in range(30):
            name, wins = f"locks/{number}", []
            together = threading.Barrier(2)

            def create(gateway: Backend, value: bytes) -> None:
                writer = gateway.open_writer(name, if_absent=True)  # noqa: B023 - at once
                writer.write(value)
                together.wait()  # noqa: B023
                try:
                    writer.commit()
                    wins.append(value)  # noqa: B023
                except ObjectExists:
                    writer.abort()

            threads = [
                threading.Thread(target=create, args=(there, b"mine")),
                threading.Thread(target=create, args=(other, b"theirs")),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(wins) == 1
            assert there.load(name) == other.load(name) == wins[0]
            assert len(sizes(drime, name)) == 1


def test_readers_see_the_old_value_or_the_new_one(drime: DrimeDouble, there: Backend) -> None:
    name, ended = "data/ab/blob", threading.Event()
    put(there, name, values.make(0, 1000))
    problems: list[str] = []

    def read() -> None:
        with second(drime) as other:
            while not ended.is_set():
                try:
                    if not values.is_whole(other.load(name)):
                        problems.append("torn")
                    if not other.info(name).exists:
                        problems.append("info: gone")
                except ObjectNotFound:
                    problems.append("gone")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 60):
        put(there, name, values.make(number, 1000 + number))
    ended.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert sizes(drime, name) == [1059]


def test_a_large_value_that_was_refused_is_committed_later_without_sending_it_again(
    drime: DrimeDouble, there: Backend
) -> None:
    put(there, "data/ab/blob", b"old")
    value = bytes(2 * PART)
    writer = there.open_writer("data/ab/blob", size=len(value), if_absent=True)
    writer.write(value)
    for _ in range(2):
        with pytest.raises(ObjectExists):
            writer.commit()
        assert there.load("data/ab/blob") == b"old"
        assert [info.name for info in there.list("data/ab")] == ["blob"]
    there.delete("data/ab/blob")
    sent = len(drime.storage.calls)
    writer.commit()
    assert len(drime.storage.calls) == sent
    assert there.info("data/ab/blob").size == len(value)
    assert not [n for n in drime.account.tree() if "staging/" in n]


def test_a_refused_large_value_leaves_nothing(drime: DrimeDouble, there: Backend) -> None:
    put(there, "data/ab/blob", b"old")
    writer = there.open_writer("data/ab/blob", if_absent=True)
    writer.write(bytes(2 * PART))
    with pytest.raises(ObjectExists):
        writer.commit()
    writer.abort()
    assert sizes(drime, "data/ab/blob") == [3]
    assert not [n for n in drime.account.tree() if "staging/" in n]


def test_what_a_dead_writer_set_aside_is_reaped(drime: DrimeDouble, there: Backend) -> None:
    put(there, "data/ab/blob", b"old")
    writer = there.open_writer("data/ab/blob", if_absent=True)
    writer.write(bytes(2 * PART))
    with pytest.raises(ObjectExists):
        writer.commit()
    with second(drime) as other:
        assert other.reap(3600) == 0
        assert other.reap(0) == 1
        assert other.load("data/ab/blob") == b"old"


# -- other gateways


@pytest.mark.parametrize("trash", [False, True], ids=["forever", "trash"])
def test_what_another_gateway_changes_is_seen_at_once(drime: DrimeDouble, trash: bool) -> None:
    first = place(drime.url, drime.key, trash=trash)
    first.create()
    with first, second(drime, trash=trash) as other:
        put(first, "item", b"one")
        assert other.load("item") == b"one"
        put(first, "item", b"three")
        assert other.load("item") == b"three"
        first.move("item", "elsewhere")
        with pytest.raises(ObjectNotFound):
            other.load("item")
        assert other.load("elsewhere") == b"three"
        put(first, "item", b"new")
        assert other.load("item") == b"new"
        first.delete("item")
        with pytest.raises(ObjectNotFound):
            other.load("item")


def test_a_folder_that_another_gateway_removed_and_made_again(
    drime: DrimeDouble, there: Backend
) -> None:
    put(there, "repo/data/item", b"old")
    with second(drime) as other:
        other.delete("repo/data/item")
        other.rmdir("repo/data")
        other.rmdir("repo")
        put(there, "repo/data/item", b"mine")
        assert other.load("repo/data/item") == b"mine"
        other.delete("repo/data/item")
        other.rmdir("repo/data")
        put(other, "repo/data/theirs", b"theirs")
        time.sleep(2.1)  # what was seen a moment ago is not looked at again
        assert there.load("repo/data/theirs") == b"theirs"
        assert [info.name for info in there.list("repo/data")] == ["theirs"]


def test_trash_keeps_what_is_deleted_and_replaced(drime: DrimeDouble) -> None:
    made = place(drime.url, drime.key, trash=True)
    made.create()
    with made:
        put(made, "item", b"one")
        put(made, "item", b"two!")
        made.delete("item")
    trashed = sorted(e.size for e in drime.account.entries.values() if e.deleted is not None)
    assert trashed == [3, 4]
    assert sizes(drime, "item") == []


# -- ranges


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


# -- faults


@pytest.mark.parametrize("header", [1, None], ids=["Retry-After", "without"])
def test_too_many_requests_are_waited_for_by_every_call(
    drime: DrimeDouble, quick: Backend, header: int | None
) -> None:
    put(quick, "data/ab/blob", b"value")
    quick.load("data/ab/blob")
    calls: dict[str, Callable[[], object]] = {
        "upload": lambda: put(quick, "data/ab/new", b"value"),
        "parts": lambda: put(quick, "data/ab/large", bytes(PART + 1)),
        "load": lambda: quick.load("data/ab/blob"),
        "info": lambda: quick.info("data/ab/blob"),
        "list": lambda: [*quick.list("data/ab")],
        "mkdir": lambda: quick.mkdir("new/folder"),
        "copy": lambda: quick.copy("data/ab/blob", "data/ab/copy"),
        "move": lambda: quick.move("data/ab/copy", "data/ab/moved"),
        "quota": quick.quota,
        "delete": lambda: quick.delete("data/ab/moved"),
        "rmdir": lambda: quick.rmdir("new/folder"),
    }
    if header is not None:
        # Those that pydrime never repeats, and one that it does.
        calls = {what: calls[what] for what in ("upload", "load", "info")}
    for what, call in calls.items():
        drime.api.faults = Faults(
            1.0, kinds=[Fault.TOO_MANY], retry_after=header, limit=3 if header is None else 1
        )
        start = time.monotonic()
        call()
        assert drime.api.faults.hit == drime.api.faults.limit, what
        assert header is None or time.monotonic() - start >= header, what


def test_one_refusal_holds_everybody_back(drime: DrimeDouble, there: Backend) -> None:
    """Drime counts requests by account: who goes on asking is refused for longer."""
    put(there, "data/ab/blob", b"value")
    drime.switches.per_minute, drime.switches.retry_after = 0, 2
    threading.Timer(0.5, lambda: setattr(drime.switches, "per_minute", None)).start()
    drime.forget_calls()
    threads = [
        threading.Thread(target=lambda: [there.info("data/ab/blob") for _ in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = drime.api.calls.count(lambda call: call.status == 429)
    assert 1 <= refused <= 4
    assert drime.counts()["list"] == 20 + refused


@pytest.mark.parametrize("size", [1000, 2 * PART], ids=["simple", "parts"])
@pytest.mark.parametrize("if_absent", [False, True], ids=["replace", "create"])
def test_an_answer_that_was_lost_makes_no_second_entry(
    drime: DrimeDouble, quick: Backend, size: int, if_absent: bool
) -> None:
    for number in range(8):
        value = values.make(number, size)
        drime.api.faults = Faults(0.4, kinds=[Fault.LOST], seed=number)
        put(quick, f"data/ab/{number}", value, if_absent=if_absent)
        drime.api.faults = Faults()
        assert quick.load(f"data/ab/{number}") == value
        assert sizes(drime, f"data/ab/{number}") == [size]


def test_a_fifth_of_all_requests_fails(drime: DrimeDouble, quick: Backend) -> None:
    everything = (Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.CUT)
    drime.api.faults = Faults(0.2, kinds=everything, seed=1)
    drime.storage.faults = Faults(0.2, kinds=everything, seed=2)
    expected = {}
    for number in range(25):
        size = (100, 70_000, PART + 100)[number % 3]
        expected[f"data/ab/{number}"] = values.make(number, size)
        put(quick, f"data/ab/{number}", expected[f"data/ab/{number}"], if_absent=True)
    quick.move("data/ab/0", "moved/0")
    expected["moved/0"] = expected.pop("data/ab/0")
    quick.delete("data/ab/1")
    del expected["data/ab/1"]
    for name, value in expected.items():
        assert quick.load(name) == value
        assert quick.load(name, offset=50, size=20) == value[50:70]
    drime.api.faults = drime.storage.faults = Faults()
    assert {f"data/ab/{info.name}" for info in quick.list("data/ab")} | {"moved/0"} == {*expected}


def test_a_service_that_restarts_is_waited_for(drime: DrimeDouble, there: Backend) -> None:
    put(there, "data/ab/old", b"old")
    writer = there.open_writer("data/ab/new")
    writer.write(bytes(PART + 10))
    drime.api.kill()
    drime.storage.kill()

    def back() -> None:
        drime.api.start()
        drime.storage.start()

    timer = threading.Timer(1, back)
    timer.start()
    writer.commit()
    assert there.load("data/ab/old") == b"old"
    assert there.info("data/ab/new").size == PART + 10
    timer.join()


def test_a_service_that_is_gone_is_told_as_such(drime: DrimeDouble) -> None:
    drime.api.kill()
    impatient = Schedule(attempts=2, first=0.01)
    gone = Drime(drime.key, "x", api_url=drime.url, schedule=impatient)
    with pytest.raises(BackendConnectionError, match="connection to Drime failed") as caught:
        gone.open()
    assert caught.value.retryable
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("how", ["incomplete", "short"])
def test_an_upload_that_drime_did_not_finish_is_made_again(
    drime: DrimeDouble, quick: Backend, how: str
) -> None:
    for size in (1000, PART + 1):
        setattr(drime.switches, how, 2)
        value = values.make(1, size)
        put(quick, "data/ab/blob", value, if_absent=size == 1000)
        assert quick.load("data/ab/blob") == value
        assert sizes(drime, "data/ab/blob") == [size]


def test_a_full_account_is_told_as_full(drime: DrimeDouble, there: Backend) -> None:
    drime.switches.capacity = 1000
    put(there, "data/ab/fits", bytes(900))
    for size in (200, PART + 1):
        with pytest.raises(StorageFull, match="exhausted"):
            put(there, "data/ab/blob", bytes(size))
    assert not there.info("data/ab/blob").exists
    assert (there.quota().limit, there.quota().usage) == (1000, 900)


# -- keys and URLs


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
