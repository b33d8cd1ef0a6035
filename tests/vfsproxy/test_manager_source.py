"""A Manager says who is who: believed while it is fresh, turned away when it is silent too long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.etcd import EtcdServer
from tests.servers.vfs_gateway import VfsGateway
from tests.servers.vfs_manager import VfsManager

from backupgw.runtime.cache import MemoryCache
from backupgw.runtime.settings import SettingsError
from backupgw.vfsproxy.folders import people
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.people import Standing
from backupgw.vfsproxy.folders.records import Folder, Permission
from backupgw.vfsproxy.identity import MANAGER
from backupgw.vfsproxy.manager.address import ManagerAddress
from backupgw.vfsproxy.manager.source import ManagerSource
from backupgw.vfsproxy.problems import Problem
from backupgw.vfsproxy.tasks.scanning import submit_scan

from .conftest import Inside, user

ALICE, BOB = user("alice"), user("bob")


@pytest.fixture
def manager() -> Iterator[VfsManager]:
    with VfsManager() as running:
        yield running


def section(manager: VfsManager) -> str:
    return f'[vfs.manager]\nurl = "{manager.url}"\ntoken = "shown to the manager"\n'


class Site:
    """A core with a source whose memory the test has in its hands."""

    def __init__(self, folder: Path, manager: VfsManager) -> None:
        self.inside = Inside(folder, more=section(manager))
        self.cache = MemoryCache()

    def open(self) -> None:
        core = self.inside.core
        assert core.vfs.manager is not None
        self.source = ManagerSource(core, core.vfs.manager, self.cache)

    def forget(self, *, everything: bool = False) -> None:
        """Let the answers be old; with `everything`, too old to be believed."""
        for name in ("alice", "bob"):
            self.cache.delete(f"user:{name}:manager")
            if everything:
                self.cache.delete(f"user:{name}:manager:last")

    def standing(self, name: str) -> Standing:
        with self.inside.core.database.read() as connection:
            return people.standing(connection, name)

    def folder(self, name: str) -> Folder:
        return self.inside.lifecycle.create(ALICE, Wanted(name=name))


@pytest.fixture
def site(tmp_path: Path, manager: VfsManager) -> Iterator[Site]:
    found = Site(tmp_path, manager)
    with found.inside.core:
        found.open()
        yield found
        found.source.close()


def test_what_the_manager_says_holds(site: Site, manager: VfsManager) -> None:
    one, other = site.folder("one"), site.folder("other")
    manager.users["bob"] = {
        "admin": False,
        "groups": {"team": True, "crew": False, "not a name/": True},
        "folders": {one.id: "rw", "0" * 32: "rwd"},
        "limits": {"bytes": 1000},
    }
    site.source.refresh(BOB)
    assert manager.token == "shown to the manager"
    assert site.standing("bob").groups == {"team": True, "crew": False}
    folders = site.inside.core.folders
    assert folders.resolve(BOB, one.id, Permission.READ_WRITE).permission == "rw"
    assert site.inside.core.accounts.usage("vfs:user:bob").limit.hard_bytes == 1000
    manager.users["bob"] = {"groups": {"crew": True}, "folders": {other.id: "ro"}}
    site.forget()
    site.source.refresh(BOB)
    assert site.standing("bob").groups == {"crew": True}
    assert folders.resolve(BOB, other.id, Permission.READ_ONLY).permission == "ro"
    with pytest.raises(Problem) as gone:
        folders.resolve(BOB, one.id, Permission.READ_ONLY)
    assert gone.value.status == 404
    manager.users["bob"] = {"disabled": True}
    site.forget()
    site.source.refresh(BOB)
    assert site.standing("bob").groups == {"crew": True}, "what it does not say stays"
    with pytest.raises(Problem) as shut_out:
        folders.resolve(BOB, other.id, Permission.READ_ONLY)
    assert shut_out.value.code == "user-disabled"


def test_a_fresh_answer_is_not_asked_for_again(site: Site, manager: VfsManager) -> None:
    manager.users["alice"] = {}
    assert not site.source.known(ALICE)
    for _ in range(5):
        site.source.refresh(ALICE)
    assert site.source.known(ALICE)
    assert manager.asked == 1
    site.source.refresh(MANAGER)
    assert manager.asked == 1, "the manager itself is not asked about"


def test_a_user_whom_it_does_not_know_is_turned_away(site: Site) -> None:
    for _ in range(2):
        with pytest.raises(Problem) as refused:
            site.source.refresh(BOB)
        assert refused.value.code == "user-unknown"


def test_a_silent_manager_is_believed_for_a_while(site: Site, manager: VfsManager) -> None:
    manager.users["alice"] = {"groups": {"team": False}}
    site.source.refresh(ALICE)
    manager.broken = True
    site.forget()
    site.source.refresh(ALICE)
    assert site.standing("alice").groups == {"team": False}
    site.forget(everything=True)
    with pytest.raises(Problem) as refused:
        site.source.refresh(ALICE)
    assert refused.value.status == 503
    manager.broken = False
    site.source.refresh(ALICE)


@pytest.mark.parametrize("nonsense", [{"groups": 3}, {"folders": {"x": "everything"}}])
def test_nonsense_is_as_good_as_silence(
    site: Site, manager: VfsManager, nonsense: dict[str, object]
) -> None:
    manager.users["alice"] = nonsense
    with pytest.raises(Problem) as refused:
        site.source.refresh(ALICE)
    assert refused.value.status == 503


def test_it_is_told_what_is_held(site: Site, manager: VfsManager) -> None:
    folder = site.folder("held")
    site.inside.core.folders.resolve(MANAGER, folder.id, Permission.OWNER).files.store("a", b"12")
    core = site.inside.core
    core.tasks.start()
    job = submit_scan(core, MANAGER, "main")
    assert [told for _, told in core.tasks.jobs.watch([job.id])][-1].state == "succeeded"  # type: ignore[union-attr]
    assert manager.usage == [
        {
            "volume": "main",
            "items": [{"kind": "user", "name": "alice", "used_bytes": 2, "used_files": 1}],
        }
    ]


def test_requests_wait_for_what_it_says(tmp_path: Path, manager: VfsManager) -> None:
    with (
        VfsGateway(tmp_path, more=section(manager)) as gateway,
        gateway.client("carol") as carol,
    ):
        assert carol.get("/v1/folders").json()["error_code"] == "user-unknown"
        manager.users["dave"] = {"groups": {"team": True}}
        with gateway.client("dave") as dave:
            made = dave.post("/v1/folders", json={"name": "common", "group": "team"})
            assert made.status_code == 201


@pytest.mark.root("etcd")
def test_a_manager_that_moves_is_found_in_etcd(tmp_path: Path, manager: VfsManager) -> None:
    with EtcdServer(tmp_path / "etcd") as etcd, VfsManager() as elsewhere:
        etcd.put("/backupgw/vfs/manager", '{"token": "shown to the manager"}')
        etcd.put("/backupgw/vfs/manager/url", "http://127.0.0.1:1")
        told = f'[etcd]\nurls = "{etcd.url}"\n'
        with pytest.raises(SettingsError, match="nothing can lie below it"):
            Inside(tmp_path / "gateway", more=told)
        etcd.remove("/backupgw/vfs/manager")
        etcd.put("/backupgw/vfs/manager/token", "shown to the manager")
        inside = Inside(tmp_path / "gateway", more=told)
        with inside.core as core:
            source, cache = core.source, MemoryCache()
            assert source is not None
            assert core.vfs.manager is not None
            now = [0.0]
            source = ManagerSource(
                core,
                core.vfs.manager,
                cache,
                ManagerAddress(core.settings, core.vfs.manager, lambda: now[0]),
            )
            manager.users["alice"] = elsewhere.users["alice"] = {}
            with pytest.raises(Problem):
                source.refresh(ALICE)
            etcd.put("/backupgw/vfs/manager/url", manager.url)
            with pytest.raises(Problem):
                source.refresh(ALICE)  # etcd is not asked for each request
            now[0] += 6
            source.refresh(ALICE)
            assert manager.asked == 1
            assert manager.token == "shown to the manager"
            # One that answers is stayed with; etcd away is no matter then.
            etcd.put("/backupgw/vfs/manager/url", elsewhere.url)
            now[0] += 6
            cache.clear()
            etcd.stop()
            source.refresh(ALICE)
            assert (manager.asked, elsewhere.asked) == (2, 0)
            source.close()
