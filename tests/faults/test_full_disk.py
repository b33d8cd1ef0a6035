"""A full disk is told as such, at every stage; nothing is left behind, and the service goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.faults.protocol import Client, blob_name
from tests.faults.server_process import Program, Running, flawed, gateway, running
from tests.faults.system_calls import Trace
from tests.faults.visible import faults, files
from tests.faults.volumes import btrfs_with_quota, ext4, fill_bytes, fill_inodes, tmpfs
from tests.servers import peers
from tests.servers.restic import Restic

from backupgw.runtime.database.state import open_state
from backupgw.runtime.settings import load

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

FULL = 507
SMALL = b"small"
LARGE = os.urandom(3 << 20)

Volume = Callable[[Path], AbstractContextManager[Path]]


def small_tmpfs(work: Path) -> AbstractContextManager[Path]:
    return tmpfs(work, megabytes=20, inodes=900)


class Store:
    """A server on a volume, with one repository that holds one blob."""

    def __init__(self, server: Running, volume: Path) -> None:
        self.volume = volume
        self.folder = server.folder
        self.server = server
        self.client = Client(server.port)
        assert self.client.create("repository") == 200
        assert self.client.upload("repository", "data", b"there before") == 200

    def refused(self, status: int) -> None:
        """An answer says that there is no room, in one line; the rest of the service works."""
        assert status == FULL
        assert len(self.client.said.splitlines()) == 1, self.client.said
        self.works()

    def works(self) -> None:
        """What is stored can be read and listed, on the connection that was refused and others."""
        name = blob_name(b"there before")
        path = f"repository/data/{name}"
        assert self.client.read(path) == (200, b"there before")
        with Client(self.server.port) as other:
            assert other.names("repository", "data").get(name) == len(b"there before")

    def left_behind(self) -> list[str]:
        """Partial or temporary files, and files without a name that a descriptor keeps alive."""
        found = faults(self.folder, configs={"repository": CONFIG})
        for entry in Path(f"/proc/{self.server.pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue
            if target.endswith("(deleted)") and target.startswith(str(self.volume)):
                found.append(f"still open: {target}")
        return found


CONFIG = b"c" * 155


@contextmanager
def store(volume: Path, program: Program | None = None) -> Iterator[Store]:
    folder = volume / "store"
    folder.mkdir()
    with running(program or gateway(), folder) as server:
        opened = Store(server, volume)
        try:
            yield opened
        finally:
            opened.client.close()


def assert_works_again(opened: Store) -> None:
    """Everything that was refused is accepted now that there is room."""
    client = opened.client
    assert client.upload("repository", "data", LARGE) == 200, client.said
    assert client.upload("repository", "locks", SMALL) == 200, client.said
    assert client.save_config("repository", CONFIG) == 200, client.said
    assert client.create("another") == 200, client.said
    assert client.upload("third/inner", "keys", SMALL) == 200, client.said
    assert opened.left_behind() == []


def test_no_room_for_the_bytes(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path) as volume, store(volume) as opened:
        ballast = fill_bytes(volume, leave=1 << 20)
        before = os.statvfs(volume)
        opened.refused(opened.client.upload("repository", "data", LARGE))
        opened.refused(opened.client.upload_in_pieces("repository", "data", LARGE))
        assert opened.left_behind() == []
        after = os.statvfs(volume)
        assert (after.f_bfree, after.f_ffree) == (before.f_bfree, before.f_ffree)
        ballast.unlink()
        assert_works_again(opened)


def test_not_a_byte_of_room(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path) as volume, store(volume) as opened:
        lock = b"a lock of before"
        assert opened.client.upload("repository", "locks", lock) == 200
        ballast = fill_bytes(volume)
        opened.refused(opened.client.upload("repository", "locks", SMALL))
        opened.refused(opened.client.save_config("repository", CONFIG))
        assert not (opened.folder / "repository/config").exists()
        # What makes room must work where there is none.
        assert opened.client.delete(f"repository/locks/{blob_name(lock)}") == 200
        assert opened.client.names("repository", "locks") == {}
        assert opened.left_behind() == []
        ballast.unlink()
        assert_works_again(opened)


def test_a_gateway_with_limits_starts_where_there_is_no_room(tmp_path: Path) -> None:
    """What is stored can be read, and room be made, though the accounts lie on the full disk."""
    lock = b"a lock of before"
    limited = gateway("--max-size", str(1 << 40))
    with small_tmpfs(tmp_path) as volume:
        with store(volume, limited) as opened:
            assert opened.client.upload("repository", "locks", lock) == 200
            fill_bytes(volume)
        with running(limited, volume / "store") as server, Client(server.port) as client:
            name = blob_name(b"there before")
            assert client.read(f"repository/data/{name}") == (200, b"there before")
            assert client.delete(f"repository/locks/{blob_name(lock)}") == 200
            assert client.delete(f"repository/data/{name}") == 200


def test_the_state_is_opened_where_there_is_no_room(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path) as volume:
        config = tmp_path / "backupgw.toml"
        config.write_text(f'[state]\nfolder = "{volume}/state"\n')
        settings = load(config, environ={})
        open_state(settings).close()
        fill_bytes(volume)
        with open_state(settings) as database, database.begin() as connection:
            connection.execute(text("CREATE TABLE written (when_full INTEGER)"))


def test_no_inode_for_the_file(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path) as volume, store(volume) as opened:
        ballast = fill_inodes(volume)
        opened.refused(opened.client.upload("repository", "data", SMALL))
        opened.refused(opened.client.save_config("repository", CONFIG))
        opened.refused(opened.client.create("another"))
        opened.refused(opened.client.upload("third/inner", "keys", SMALL))
        assert opened.left_behind() == []
        shutil.rmtree(ballast)
        assert_works_again(opened)


@pytest.mark.parametrize("left", [1, 2, 3, 100])
def test_no_inode_for_the_folders(tmp_path: Path, left: int) -> None:
    """A repository half made is completed when there is room."""
    with small_tmpfs(tmp_path) as volume, store(volume) as opened:
        ballast = fill_inodes(volume, leave=left)
        opened.refused(opened.client.create("another"))
        if left < 4:
            opened.refused(opened.client.upload("third/inner", "keys", SMALL))
        shutil.rmtree(ballast)
        assert_works_again(opened)
        made = [folder for folder in (opened.folder / "another").rglob("*") if folder.is_dir()]
        assert len(made) == 5 + 256


@pytest.mark.parametrize(
    ("volume", "full"),
    [
        pytest.param(lambda work: ext4(work, megabytes=32), fill_bytes, id="ext4"),
        pytest.param(
            lambda work: btrfs_with_quota(work, megabytes=16),
            fill_bytes,
            id="btrfs-quota",
            marks=pytest.mark.root("mkfs.btrfs"),
        ),
    ],
)
def test_other_file_systems(tmp_path: Path, volume: Volume, full: Callable[[Path], Path]) -> None:
    with volume(tmp_path) as mounted, store(mounted) as opened:
        ballast = full(mounted)
        opened.refused(opened.client.upload("repository", "data", LARGE))
        opened.refused(opened.client.upload_in_pieces("repository", "data", LARGE))
        assert opened.left_behind() == []
        ballast.unlink()
        os.sync()
        assert_works_again(opened)


@pytest.mark.root("strace")
@pytest.mark.parametrize("error", [pytest.param("ENOSPC", marks=pytest.mark.soak), "EDQUOT"])
@pytest.mark.parametrize(
    ("call", "repository"),
    [
        pytest.param("fsync", "repository", id="file-sync"),
        pytest.param("linkat", "repository", id="link"),
        pytest.param("mkdirat", "new/inner", id="mkdir"),
    ],
)
def test_a_disk_that_says_so_late(tmp_path: Path, call: str, repository: str, error: str) -> None:
    """File systems that allocate late (NFS, CephFS, xfs) may refuse at any call: here by strace."""
    with store(tmp_path) as opened:
        fault = f"{call}:error={error}"
        with Trace(opened.server.pid, tmp_path / "trace", inject=[fault]):
            opened.refused(opened.client.upload(repository, "data", SMALL))
            opened.refused(opened.client.upload(repository, "data", LARGE))
            opened.refused(opened.client.save_config(repository, CONFIG))
        assert opened.left_behind() == []
        assert_works_again(opened)


@pytest.mark.root("strace")
@pytest.mark.parametrize(
    ("when", "stored"),
    [
        pytest.param("1+2", False, id="file"),
        # Named but not durable is no success; what can be seen is whole.
        pytest.param("2+2", True, id="folder"),
    ],
)
def test_a_disk_that_cannot_sync(tmp_path: Path, when: str, stored: bool) -> None:
    """A failed sync is a failed upload, and the client's next attempt succeeds."""
    with store(tmp_path) as opened:
        fault = f"fsync:error=EIO:when={when}"
        with Trace(opened.server.pid, tmp_path / "trace", inject=[fault]):
            assert opened.client.upload("repository", "locks", SMALL) >= 500
            opened.works()
            assert opened.client.upload("repository", "keys", SMALL) >= 500
        assert opened.left_behind() == []
        if not stored:
            assert opened.client.names("repository", "locks") == {}
        assert opened.client.upload("repository", "locks", SMALL) == 200
        assert opened.client.upload("repository", "keys", SMALL) == 200


@pytest.mark.peers(peers.RESTIC_NEW)
def test_restic_says_what_is_wrong_and_succeeds_later(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(12):
        (tree / str(number)).write_bytes(os.urandom(1 << 20))
    with small_tmpfs(tmp_path) as volume, store(volume) as opened:
        address = f"rest:http://127.0.0.1:{opened.server.port}/restic/"
        restic = Restic(peers.get(peers.RESTIC_NEW), address, tmp_path / "home")
        restic.run("init")
        ballast = fill_bytes(volume, leave=5 << 20)
        said = restic.fail("backup", tree)
        assert "507" in said, said
        assert opened.left_behind() == []
        opened.works()
        ballast.unlink()
        restic.run("unlock")
        restic.run("backup", tree)
        restic.run("check", "--read-data")


class TestTheCheckItself:
    """A stand-in with a defect fails the checks above."""

    def test_a_temporary_file_is_seen(self, tmp_path: Path) -> None:
        with small_tmpfs(tmp_path) as volume, store(volume, flawed("leaves-temporary")) as opened:
            fill_bytes(volume, leave=1 << 20)
            assert opened.client.upload("repository", "data", LARGE) == FULL
            assert any("left behind" in line for line in opened.left_behind())

    def test_a_truncated_config_is_seen(self, tmp_path: Path) -> None:
        with small_tmpfs(tmp_path) as volume, store(volume, flawed("in-place")) as opened:
            fill_bytes(volume)
            opened.client.save_config("repository", CONFIG)
            assert any("not the config" in line for line in opened.left_behind())

    def test_another_status_is_seen(self, tmp_path: Path) -> None:
        with small_tmpfs(tmp_path) as volume, store(volume, flawed("error-500")) as opened:
            fill_bytes(volume)
            status = opened.client.upload("repository", "locks", SMALL)
            with pytest.raises(AssertionError):
                opened.refused(status)

    def test_a_volume_is_empty_afterwards(self, tmp_path: Path) -> None:
        with small_tmpfs(tmp_path) as volume:
            fill_bytes(volume)
            assert list(files(volume))
        assert list(files(tmp_path)) == []
