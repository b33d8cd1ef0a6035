"""Gateways that share a Redis remember who may read, and never for longer than it is true."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.servers.redis import Redis

from backupgw.runtime.cache.base import Json
from backupgw.runtime.database import Connection
from backupgw.vfsproxy.folders import catalogue, remembered
from backupgw.vfsproxy.folders.access import FolderAccess
from backupgw.vfsproxy.folders.administration import Administration
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.people import Standing
from backupgw.vfsproxy.folders.records import Folder, Holder, Kind, Permission
from backupgw.vfsproxy.folders.sharing import Sharing
from backupgw.vfsproxy.identity import MANAGER
from backupgw.vfsproxy.problems import Problem

from .conftest import Inside, user

pytestmark = pytest.mark.root("redis-server")
ALICE, BOB = user("alice"), user("bob")
TO_BOB, TO_TEAM = Holder(Kind.USER, "bob"), Holder(Kind.GROUP, "team")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Gateways:
    """Two gateways on one database and one Redis."""

    def __init__(self, folder: Path, redis: Redis) -> None:
        more = f'[vfs.cache]\nurl = "{redis.url}"\ntimeout = 2\n'
        self.one, self.other = Inside(folder, more=more), Inside(folder, more=more)
        self.redis = redis

    @contextmanager
    def open(self) -> Iterator[None]:
        with self.one.core, self.other.core:
            yield

    def shared(self, name: str) -> Folder:
        """A folder of Alice's that Bob and the team may read, and do."""
        administration = Administration(self.one.core)
        administration.make_group(MANAGER, "team")
        administration.set_member(MANAGER, "team", "bob", admin=False)
        folder = self.one.lifecycle.create(ALICE, Wanted(name=name))
        Sharing(self.one.core).share(ALICE, folder.id, TO_BOB, Permission.READ_WRITE)
        return folder

    def read(self, folder: Folder, inside: Inside | None = None) -> FolderAccess:
        core = (inside or self.one).core
        return core.folders.resolve(BOB, folder.id, Permission.READ_ONLY)

    @contextmanager
    def without_a_database(self) -> Iterator[None]:
        """Whoever asks the first gateway's database fails."""

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("the database was asked")

        with pytest.MonkeyPatch.context() as patch:
            for name in ("read", "begin", "autocommit", "brief"):
                patch.setattr(self.one.core.database, name, fail)
            yield


@pytest.fixture
def gateways(tmp_path: Path, redis: Redis) -> Iterator[Gateways]:
    found = Gateways(tmp_path, redis)
    with found.open():
        assert found.one.core.folders.remembered is not None
        yield found


def test_who_has_read_is_known_by_all(gateways: Gateways) -> None:
    folder = gateways.shared("docs")
    before = gateways.read(folder, gateways.other)
    with gateways.without_a_database():
        access = gateways.read(folder)
    assert access.folder == before.folder
    assert access.permission == "ro", "whatever Bob may do: it is remembered for reading"
    gateways.one.core.folders.resolve(BOB, folder.id, Permission.READ_WRITE)


def end_the_share(other: Inside, folder: Folder) -> None:
    Sharing(other.core).unshare(ALICE, folder.id, TO_BOB)


def leave(other: Inside, folder: Folder) -> None:
    Sharing(other.core).leave(BOB, folder.id)


def shut_out(other: Inside, _: Folder) -> None:
    Administration(other.core).change_user(MANAGER, "bob", admin=None, disabled=True)


def delete(other: Inside, folder: Folder) -> None:
    other.lifecycle.delete(ALICE, folder.id)


@pytest.mark.parametrize("withdraw", [end_the_share, leave, shut_out, delete])
def test_what_one_withdraws_the_other_refuses(
    gateways: Gateways, withdraw: Callable[[Inside, Folder], None]
) -> None:
    folder = gateways.shared("docs")
    for inside in (gateways.one, gateways.other):
        gateways.read(folder, inside)
    withdraw(gateways.other, folder)
    for inside in (gateways.one, gateways.other):
        with pytest.raises(Problem):
            gateways.read(folder, inside)
    Administration(gateways.other.core).change_user(MANAGER, "bob", admin=None, disabled=False)


def drop(other: Inside) -> None:
    Administration(other.core).remove_member(MANAGER, "team", "bob")


def remove_the_group(other: Inside) -> None:
    Administration(other.core).remove(MANAGER, TO_TEAM)


@pytest.mark.parametrize("withdraw", [drop, remove_the_group])
def test_what_a_group_may_ends_with_it(
    gateways: Gateways, withdraw: Callable[[Inside], None]
) -> None:
    folder = gateways.shared("docs")
    sharing = Sharing(gateways.one.core)
    sharing.unshare(ALICE, folder.id, TO_BOB)
    sharing.share(ALICE, folder.id, TO_TEAM, Permission.READ_ONLY)
    gateways.read(folder)
    withdraw(gateways.other)
    with pytest.raises(Problem):
        gateways.read(folder)


def test_what_is_given_is_there_at_once(gateways: Gateways) -> None:
    folder = gateways.shared("docs")
    end_the_share(gateways.one, folder)
    with pytest.raises(Problem):
        gateways.read(folder)
    Sharing(gateways.other.core).share(ALICE, folder.id, TO_BOB, Permission.READ_ONLY)
    assert gateways.read(folder).folder.id == folder.id


def test_what_was_read_before_a_change_and_remembered_after_it_counts_for_nothing(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gateways.shared("docs")
    read, go_on = threading.Event(), threading.Event()
    kept = remembered.Remembered.keep_folder

    def late(self: remembered.Remembered, *arguments: object) -> None:
        read.set()
        assert go_on.wait(30)
        kept(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(remembered.Remembered, "keep_folder", late)
        thread = threading.Thread(target=gateways.read, args=(folder,))
        thread.start()
        assert read.wait(30)
        end_the_share(gateways.other, folder)
        go_on.set()
        thread.join()
    with pytest.raises(Problem):
        gateways.read(folder)


def test_a_change_that_is_undone_changes_nothing(gateways: Gateways) -> None:
    folder = gateways.shared("docs")
    gateways.read(folder)
    database = gateways.other.core.database

    def work(connection: Connection) -> None:
        catalogue.unshare(connection, folder.id, TO_BOB)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.run(work)
    with database.begin() as connection:
        assert catalogue.find(connection, folder.id)
    with gateways.without_a_database():
        assert gateways.read(folder).folder.id == folder.id


def test_redis_away_costs_speed_only(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as redis:
        gateways = Gateways(tmp_path / "vfs", redis)
        with gateways.open():
            folder = gateways.shared("docs")
            gateways.read(folder)
            redis.stop()
            assert gateways.read(folder).folder.id == folder.id
            end_the_share(gateways.one, folder)
            with pytest.raises(Problem):
                gateways.read(folder)
            redis.start()
            # Whoever withdrew it has it forgotten before anything is read again.
            gateways.one.core.folders.remembered._cache.get("any")  # type: ignore[union-attr]
            with pytest.raises(Problem):
                gateways.read(folder)


def test_a_cache_of_one_process_remembers_nothing_of_the_kind(inside: Inside) -> None:
    assert inside.core.folders.remembered is None


def test_another_release_s_values_are_none(gateways: Gateways) -> None:
    folder = gateways.shared("docs")
    memory = gateways.one.core.folders.remembered
    assert memory is not None
    cache = memory._cache
    version = memory.find(folder.id, "bob")
    values: list[dict[str, Json]] = [
        {"folder": {"id": folder.id}},
        {"folder": 3, "shares": []},
        {"shares": [1]},
    ]
    for value in values:
        cache.set(f"vfolder:{folder.id}:meta", {"version": version.folder_version, **value}, 5)
        assert gateways.read(folder).folder == folder
    memory.keep_standing(version, Standing("bob", groups={"team": False}))
    cache.set("user:bob:perms", {"version": version.user_version, "standing": {"x": 1}}, 5)
    assert gateways.read(folder).folder == folder
