"""Many threads and several gateways at one place in Drime."""

from __future__ import annotations

import threading
import time

import pytest
from tests.kvstore.drime.places import PART, place, put, second, sizes
from tests.servers.drime_double import DrimeDouble
from tests.servers.drime_entries import Switches

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    ObjectExists,
    ObjectNotFound,
)
from backupgw.kvstore.conformance import values


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
