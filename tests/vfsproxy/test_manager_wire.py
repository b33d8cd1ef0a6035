"""The wire that managers of Backend.AI speak, and how folders are mounted."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.vfs_gateway import VfsGateway

from backupgw.kvstore.backends.errors import BackendError
from backupgw.vfsproxy.folders.administration import Administration
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.mounts import mount_of
from backupgw.vfsproxy.folders.records import Holder, Kind, Limits, Permission
from backupgw.vfsproxy.folders.sharing import Sharing
from backupgw.vfsproxy.identity import MANAGER
from backupgw.vfsproxy.problems import Problem
from backupgw.vfsproxy.volumes.base import FolderUsage

from .conftest import Inside, user
from .test_folders_api import problem
from .test_people_api import follow


class Manager:
    """A manager, which sends parameters as JSON bodies, also of GET and DELETE."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        return self.client.request(method, path, json=body)


@pytest.fixture
def manager(gateway: VfsGateway) -> Iterator[Manager]:
    with gateway.manager() as client:
        yield Manager(client)


def test_a_folder_s_life_as_managers_see_it(gateway: VfsGateway, manager: Manager) -> None:
    owner = str(uuid.uuid4())
    folder = uuid.uuid4().hex
    which = {"volume": "main", "vfid": f"user:{owner}/{folder}"}
    scope = {"volume": "main", "qsid": f"user:{owner}"}
    assert manager.call("POST", "/quota-scope", **scope).status_code == 204
    options = {"limit_bytes": 10_000}
    assert manager.call("PATCH", "/quota-scope", **scope, options=options).status_code == 204
    assert manager.call("POST", "/folder/create", **which).status_code == 204
    problem(manager.call("POST", "/folder/create", **which), 409, "folder-exists")
    at = gateway.volume / f"user:{owner}" / folder[:2] / folder[2:4] / folder[4:]
    assert at.is_dir()
    assert manager.call("GET", "/folder/mount", **which).json() == {"path": str(at)}
    assert manager.call("GET", "/folder/usage", **which).json() == {
        "file_count": 0,
        "used_bytes": 0,
    }
    assert manager.call("GET", "/folder/used-bytes", **which).json() == {"used_bytes": 0}
    assert manager.call("GET", "/quota-scope", **scope).json() == {
        "used_bytes": 0,
        "limit_bytes": 10_000,
    }
    clone = {"dst_volume": "main", "dst_vfid": f"user:{owner}/{uuid.uuid4().hex}"}
    cloned = manager.call(
        "POST", "/folder/clone", src_volume="main", src_vfid=which["vfid"], **clone
    )
    assert cloned.status_code == 200
    assert follow(manager.client, cloned.json()["bgtask_id"])[-1]["state"] == "succeeded"
    deleted = manager.call("POST", "/folder/delete", **which)
    assert deleted.status_code == 202
    assert follow(manager.client, deleted.json()["bgtask_id"])[-1]["state"] == "succeeded"
    problem(manager.call("GET", "/folder/usage", **which), 404, "folder-not-found")
    assert not at.exists()
    assert manager.call("DELETE", "/quota-scope/quota", **scope).status_code == 204
    assert manager.call("GET", "/quota-scope", **scope).json()["limit_bytes"] is None


def test_a_folder_is_found_by_its_whole_name_only(manager: Manager) -> None:
    folder = uuid.uuid4().hex
    which = {"volume": "main", "vfid": f"project:team/{folder}"}
    assert manager.call("POST", "/folder/create", **which).status_code == 204
    other = {"volume": "main", "vfid": f"project:others/{folder}"}
    problem(manager.call("GET", "/folder/usage", **other), 404, "folder-not-found")
    for vfid in (f"user:../{folder}", f"user:a/../{folder}", folder, f"user:a/{folder}/x"):
        problem(manager.call("GET", "/folder/usage", volume="main", vfid=vfid), 400, "invalid")


def test_volumes_as_managers_see_them(gateway: VfsGateway, manager: Manager) -> None:
    found = manager.call("GET", "/volumes").json()["volumes"]
    assert found == [
        {
            "name": "main",
            "backend": "vfs",
            "path": str(gateway.volume),
            "fsprefix": ".",
            "capabilities": ["vfolder", "fs-usage"],
        }
    ]
    assert manager.call("GET", "/volume/hwinfo", volume="main").json()["status"] == "healthy"
    held = manager.call("GET", "/folder/fs-usage", volume="main").json()
    assert 0 < held["used_bytes"] < held["capacity_bytes"]
    problem(manager.call("GET", "/volume/hwinfo", volume="none"), 404, "volume-not-found")
    problem(manager.call("GET", "/volume/performance-metric", volume="main"), 501, "unsupported")


# -- mounts


def test_a_limited_folder_is_mounted_for_reading_only(inside: Inside) -> None:
    alice = user("alice")
    folder = inside.lifecycle.create(alice, Wanted(name="docs", limits=Limits(bytes=10)))
    mount = mount_of(inside.core, alice, folder.id, "ro")
    assert (mount.read_only, mount.quota, mount.target) == (True, "advisory", "/home/work/docs")
    assert mount.offers[0].source == str(inside.volume / folder.path)
    with pytest.raises(Problem) as refused:
        mount_of(inside.core, alice, folder.id, "rw")
    assert refused.value.code == "quota-not-native"
    free = inside.lifecycle.create(alice, Wanted(name="free"))
    assert mount_of(inside.core, alice, free.id, "rw").quota == "none"


def test_the_operator_can_take_limits_as_advice(tmp_path: Path) -> None:
    more = (
        f'[vfs.volumes.lax]\ntype = "fs"\npath = "{tmp_path}/lax"\nadvisory_quota = true\n'
        'nfs = "filer:/export/"\nfuse = "sshfs agent@gateway:{folder}"\n'
    )
    inside = Inside(tmp_path / "gateway", vfs='default_volume = "lax"', more=more)
    with inside.core:
        alice = user("alice")
        folder = inside.lifecycle.create(alice, Wanted(name="docs", limits=Limits(bytes=10)))
        mount = mount_of(inside.core, alice, folder.id, "rw")
        assert not mount.read_only
        assert [(offer.method, offer.source) for offer in mount.offers] == [
            ("direct", f"{tmp_path}/lax/{folder.path}"),
            ("nfs", f"filer:/export/{folder.path}"),
            ("fuse", f"sshfs agent@gateway:{folder.path}"),
        ]


class NativeQuota:
    """A storage that keeps folders' limits by itself, whatever writes there."""

    def __init__(self) -> None:
        self.limits: dict[str, int | None] = {}

    def set_limit(self, path: str, bytes: int | None, files: int | None) -> None:  # noqa: A002
        self.limits[path] = bytes

    def usage(self, path: str) -> FolderUsage:
        return FolderUsage()


def test_a_storage_that_keeps_limits_is_mounted_for_writing_within_all_of_them(
    inside: Inside,
) -> None:
    core, alice = inside.core, user("alice")
    opened, quota = core.volumes["main"], NativeQuota()
    opened.volume = dataclasses.replace(opened.volume, quota=quota)
    owner = Holder(Kind.USER, "alice")
    one = inside.lifecycle.create(alice, Wanted(name="one", limits=Limits(bytes=600)))
    assert quota.limits[one.path] == 600
    assert mount_of(core, alice, one.id, "rw").quota == "native"
    Administration(core).set_limits(MANAGER, owner, Limits(bytes=1000))
    assert mount_of(core, alice, one.id, "rw").quota == "native"
    # Together they could hold more than Alice may: the storage knows nothing of her.
    other = inside.lifecycle.create(alice, Wanted(name="other", limits=Limits(bytes=600)))
    for folder in (one, other):
        with pytest.raises(Problem) as refused:
            mount_of(core, alice, folder.id, "rw")
        assert refused.value.code == "quota-not-native"
        assert mount_of(core, alice, folder.id, "ro").quota == "advisory"
    inside.lifecycle.set_limits(alice, other.id, Limits(bytes=400))
    assert quota.limits[other.path] == 400
    assert mount_of(core, alice, other.id, "rw").quota == "native"
    inside.lifecycle.set_limits(alice, other.id, Limits())
    with pytest.raises(Problem):
        mount_of(core, alice, one.id, "rw")


def test_who_may_not_delete_mounts_nothing_for_writing(inside: Inside) -> None:
    alice, bob = user("alice"), user("bob")
    folder = inside.lifecycle.create(alice, Wanted(name="docs"))
    Sharing(inside.core).share(alice, folder.id, Holder(Kind.USER, "bob"), Permission.READ_WRITE)
    assert mount_of(inside.core, bob, folder.id, "ro").read_only
    with pytest.raises(Problem) as refused:
        mount_of(inside.core, bob, folder.id, "rw")
    assert refused.value.code == "permission-denied"


def test_no_mount_leads_out_of_a_folder(inside: Inside, tmp_path: Path) -> None:
    alice = user("alice")
    folder = inside.lifecycle.create(alice, Wanted(name="docs"))
    (inside.volume / folder.path / "sub").mkdir()
    (inside.volume / folder.path / "link").symlink_to(tmp_path)
    found = mount_of(inside.core, alice, folder.id, "ro", "sub")
    assert found.offers[0].source.endswith(f"{folder.path}/sub")
    for subpath in ("..", "sub/../..", "/etc", "link", "none"):
        with pytest.raises((ValueError, Problem, BackendError)):
            mount_of(inside.core, alice, folder.id, "ro", subpath)
    with pytest.raises(Problem) as stranger:
        mount_of(inside.core, user("bob"), folder.id, "ro")
    assert stranger.value.status == 404
