"""A quota around a trash: what lies in the trash counts, and is freed when it leaves the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kvstore import quota_place
from tests.kvstore.test_layer_trash import Plain
from tests.kvstore.test_layer_trash_contents import Clock

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectExists, QuotaExceeded
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.kvstore.layers.trash_contents import Trash
from backupgw.kvstore.ledger import Amount, LedgerFull, Limit, SQLiteLedger

LIMIT = 1000
MONTH = 30 * 86_400.0
NAME = "alice/main/data/a"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteLedger]:
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=LIMIT, hard_objects=100))
        yield ledger


@pytest.fixture
def clock() -> Clock:
    return Clock()


def layer_of(inner: Backend, ledger: SQLiteLedger, clock: Clock) -> QuotaLayer:
    trash = TrashLayer(inner, MONTH, bypass=quota_place.is_lock, clock=clock)
    return QuotaLayer(trash, ledger, quota_place.scopes, exempt=quota_place.is_lock, total="server")


@pytest.fixture(params=["disk", "copying"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, ledger: SQLiteLedger, clock: Clock
) -> Iterator[QuotaLayer]:
    quota_place.make(tmp_path)
    inner: Backend = PosixFS(str(tmp_path / "store"), durability="fast")
    if request.param == "copying":
        inner = Plain(inner)
    with layer_of(inner, ledger, clock) as place:
        yield place
        assert quota_place.nothing_reserved(ledger)
        assert place.reconcile().corrections == []


def used(ledger: SQLiteLedger, scope: str = "server") -> tuple[int, int]:
    return ledger.usage(scope).used


def test_what_is_deleted_counts_until_it_expires(
    place: QuotaLayer, ledger: SQLiteLedger, clock: Clock
) -> None:
    place.store(NAME, b"x" * 600)
    place.delete(NAME)
    assert used(ledger) == (600, 1)
    assert used(ledger, "repo:alice/main") == (600, 1)
    with pytest.raises(QuotaExceeded, match="server"):
        place.store(NAME, b"x" * 500)
    place.store(NAME, b"x" * 300)
    assert used(ledger) == (900, 2)
    for _ in range(3):
        clock.now += 12 * 86_400
        Trash(place).expire()
    assert used(ledger) == (300, 1)
    place.store("alice/main/data/b", b"x" * 500)


def test_every_change_keeps_the_accounts_exact(place: QuotaLayer, ledger: SQLiteLedger) -> None:
    place.store(NAME, b"x" * 100)
    place.store(NAME, b"x" * 40)
    assert used(ledger) == (140, 2)
    place.store("bob/main/data/b", b"x" * 10)
    place.move(NAME, "bob/main/data/b")
    assert used(ledger) == (150, 3)
    assert used(ledger, "user:alice") == (100, 1)
    assert used(ledger, "user:bob") == (50, 2)
    place.copy("bob/main/data/b", NAME)
    assert used(ledger) == (190, 4)
    assert Trash(place).restore_name("bob/main/data/b", replace=True).size == 10
    assert used(ledger) == (190, 4)
    with pytest.raises(ObjectExists):
        Trash(place).restore_name(NAME)
    place.delete(NAME)
    Trash(place).restore_name(NAME)
    assert place.load(NAME) == b"x" * 40
    assert used(ledger) == (190, 4)
    assert place.reconcile().corrections == []
    Trash(place).empty("alice/", force=True)
    Trash(place).empty(force=True)
    assert used(ledger) == (50, 2)


def test_nothing_but_room_on_the_disk_keeps_anybody_from_deleting(
    place: QuotaLayer, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        place.store(f"alice/main/data/{number}", b"x" * 250)
    place.delete("alice/main/data/0")  # with the quota used up
    place.move("alice/main/data/1", "alice/main/data/2")
    ledger.set_limit("server", Limit(hard_bytes=10, hard_objects=1))
    place.delete("alice/main/data/2")
    Trash(place).restore_name("alice/main/data/2")

    def full(*_: object, **__: object) -> None:
        raise LedgerFull("no room")

    monkeypatch.setattr(ledger, "intend", full)
    place.delete("alice/main/data/3")
    monkeypatch.undo()
    assert used(ledger) == (1000, 4)
    Trash(place).empty(force=True)
    assert used(ledger) == (250, 1)


@pytest.mark.parametrize("listed", [True, False])
def test_what_is_deleted_without_the_ledger_while_it_counts_is_counted_once(
    place: QuotaLayer, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    place.store(NAME, b"x" * 600)
    place.store("alice/main/data/b", b"x" * 100)
    place.delete("alice/main/data/b")  # so that there is a folder of what is kept
    deleted: list[str] = []

    def full(*_: object, **__: object) -> None:
        raise LedgerFull("no room")

    def delete() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "intend", full)
            place.delete(NAME)
        deleted.append(NAME)

    def listing(folder: str) -> Iterator[ItemInfo]:
        here = folder == "alice/main/data"  # after the folder of what is kept
        if here and not listed:
            delete()
        yield from list(place.list_all(folder))
        if here and listed:
            delete()

    ledger.reconcile(place.place, listing, place.scopes_of, lookup=place.held_by)
    assert deleted == [NAME]
    assert used(ledger) == (700, 2)
    assert place.reconcile().corrections == []


def test_replacing_needs_room_since_the_old_value_stays(
    place: QuotaLayer, ledger: SQLiteLedger
) -> None:
    place.store(NAME, b"x" * 600)
    with pytest.raises(QuotaExceeded):
        place.store(NAME, b"y" * 600)
    assert place.load(NAME) == b"x" * 600
    assert used(ledger) == (600, 1)


def test_locks_count_nowhere(place: QuotaLayer, ledger: SQLiteLedger) -> None:
    place.store("alice/main/locks/l", b"x" * 900)
    place.store("alice/main/locks/l", b"x" * 901)
    place.delete("alice/main/locks/l")
    assert used(ledger) == (0, 0)
    assert list(Trash(place).entries()) == []


def test_a_limit_in_objects_counts_what_is_kept(place: QuotaLayer, ledger: SQLiteLedger) -> None:
    ledger.set_limit("server", Limit(hard_objects=3))
    for _ in range(3):
        place.store(NAME, b"")
        place.delete(NAME)
    with pytest.raises(QuotaExceeded, match="objects"):
        place.store(NAME, b"")


def test_a_count_from_nothing_finds_what_is_kept(
    tmp_path: Path, place: QuotaLayer, ledger: SQLiteLedger
) -> None:
    place.store(NAME, b"x" * 100)
    place.delete(NAME)
    place.store(NAME, b"x" * 20)
    ledger.forget("")
    assert used(ledger) == (0, 0)
    assert place.reconcile().counted == Amount(120, 2)
    assert used(ledger, "repo:alice/main") == (120, 2)


def test_a_quota_put_around_a_trash_that_is_there_counts_it(
    tmp_path: Path, ledger: SQLiteLedger, clock: Clock
) -> None:
    quota_place.make(tmp_path)
    disk = PosixFS(str(tmp_path / "store"), durability="fast")
    with TrashLayer(disk, MONTH, clock=clock) as trash:
        trash.store(NAME, b"x" * 100)
        trash.delete(NAME)
    with layer_of(disk, ledger, clock):
        assert used(ledger) == (100, 1)


def test_two_who_expire_at_once_free_everything_once(
    place: QuotaLayer, ledger: SQLiteLedger, clock: Clock
) -> None:
    ledger.set_limit("server", Limit())
    for number in range(60):
        place.store(f"alice/main/data/{number}", b"x" * 10)
        place.delete(f"alice/main/data/{number}")
    for _ in range(2):
        clock.now += 14 * 86_400
        Trash(place).expire()
    clock.now += 5 * 86_400
    removed: list[int] = []
    threads = [
        threading.Thread(target=lambda: removed.append(Trash(place).expire().items))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(removed) == 60
    assert used(ledger) == (0, 0)


def test_a_quota_around_a_quota_around_a_trash_counts_the_same(
    tmp_path: Path, ledger: SQLiteLedger, clock: Clock
) -> None:
    """A service's limits by user, around the limit that the operator gave the place."""
    quota_place.make(tmp_path)
    disk = PosixFS(str(tmp_path / "store"), durability="fast")
    inner = layer_of(disk, ledger, clock)
    outer = QuotaLayer(
        inner, ledger, lambda name: (f"service:{name.partition('/')[0]}",), place="service"
    )
    with outer as place:
        place.store(NAME, b"x" * 100)
        place.store(NAME, b"x" * 40)
        place.delete(NAME)
        place.store("alice/b", b"x" * 7)
        place.store("alice/c", b"x" * 5)
        place.move("alice/b", "alice/c")
        assert used(ledger) == used(ledger, "service:alice") == (152, 4)
        Trash(place).restore_name(NAME)
        Trash(place).empty(force=True)
        assert used(ledger) == used(ledger, "service:alice") == (47, 2)
        for layer in (inner, outer):
            assert layer.reconcile().corrections == []
    assert quota_place.nothing_reserved(ledger)
