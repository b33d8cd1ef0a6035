"""The adapters `wings` and `s3`, from a server's folder and back."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.end_to_end import tree
from tests.servers.panel import TOKEN, TOKEN_ID, Backup, Panel
from tests.servers.s3 import Moto

from backupgw.runtime.restic import StopSignal
from backupgw.wingsadapter.adapter import (
    AdapterError,
    BackupRequest,
    BackupUnknown,
    Control,
    Progress,
    RestoreRequest,
    Stopped,
)
from backupgw.wingsadapter.archive_adapters import S3Adapter, WingsAdapter
from backupgw.wingsadapter.download_source import Allowed
from backupgw.wingsadapter.local_archives import LocalArchives
from backupgw.wingsadapter.part_upload import reported
from backupgw.wingsadapter.staging_swap import AREA

SERVER = "342dd230-48d3-4b39-a7fe-ba0fb5e62e80"
OTHER = "342dd230-48d3-4b39-a7fe-ba0fb5e62e81"
BACKUP = "a09316f2-c1df-44b9-8244-6c6789eb75a1"
HEADERS = {"authorization": f"Bearer {TOKEN_ID}.{TOKEN}", "accept": "application/json"}


@pytest.fixture
def control() -> Iterator[Control]:
    with StopSignal() as stop:
        yield Control(stop)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "volumes" / SERVER
    (root / "world").mkdir(parents=True)
    (root / "world" / "level.dat").write_bytes(random.Random(7).randbytes(6 << 20))
    (root / "plugins").mkdir(mode=0o750)
    (root / "plugins" / "a.jar").write_bytes(random.Random(8).randbytes(200_000))
    (root / "latest").symlink_to("world/level.dat")
    (root / "debug.log").write_text("x")
    return root


def request(root: Path, ignore: str = "") -> BackupRequest:
    return BackupRequest(SERVER, BACKUP, str(root), ignore)


@pytest.fixture
def wings(tmp_path: Path) -> WingsAdapter:
    return WingsAdapter(LocalArchives(str(tmp_path / "backups")))


def test_a_backup_comes_back(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    made = wings.create(request(root), control)
    assert (made.checksum_type, len(made.checksum), made.warnings) == ("sha1", 40, ())
    restore = RestoreRequest(OTHER, BACKUP)
    found = wings.find(restore, control)
    assert found.server == SERVER
    assert found.size == (6 << 20) + 200_000 + 1
    target = tmp_path / "target"
    target.mkdir()
    wings.unpack(restore, str(target), control)
    assert tree.differences(tree.describe(root), tree.describe(target)) == []
    assert wings.delete(SERVER, BACKUP)
    with pytest.raises(BackupUnknown):
        wings.find(restore, control)
    with pytest.raises(BackupUnknown):
        wings.unpack(restore, str(target), control)


def test_another_servers_backup_is_not_for_everybody(
    wings: WingsAdapter, root: Path, control: Control
) -> None:
    wings.create(request(root), control)
    with pytest.raises(BackupUnknown):
        wings.find(RestoreRequest(OTHER, BACKUP, cross_server=False), control)
    wings.find(RestoreRequest(SERVER, BACKUP, cross_server=False), control)
    assert not wings.delete(OTHER, BACKUP)
    assert wings.delete_all(OTHER) == 0
    wings.find(RestoreRequest(SERVER, BACKUP), control)


def test_all_of_a_servers_archives_are_removed_at_once(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    for number in range(3):
        wings.create(BackupRequest(SERVER, f"{BACKUP[:-1]}{number}", str(root)), control)
    wings.create(BackupRequest(OTHER, f"{BACKUP[:-1]}8", str(root)), control)
    unlabelled = tmp_path / "backups" / f"{BACKUP[:-1]}9.tar.gz"
    unlabelled.write_bytes(b"Wings' own says nothing of whose it is")
    assert wings.delete_all(SERVER) == 3
    assert sorted(os.listdir(tmp_path / "backups")) == [f"{BACKUP[:-1]}8.tar.gz", unlabelled.name]


def test_the_requests_rules_win_over_the_servers_own(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    (root / ".pelicanignore").write_text("*.log\n")

    def restored(ignore: str) -> set[str]:
        wings.create(request(root, ignore), control)
        target = tmp_path / f"target{ignore}"
        target.mkdir()
        wings.unpack(RestoreRequest(SERVER, BACKUP), str(target), control)
        return {path.name for path in target.iterdir()}

    everything = {"world", "plugins", "latest", "debug.log", ".pelicanignore"}
    assert restored("") == everything - {"debug.log"}
    assert restored("world") == everything - {"world"}
    with pytest.raises(AdapterError, match="zero byte"):
        wings.create(request(root, "a\0b"), control)


def test_a_restore_that_is_under_way_is_no_part_of_a_backup(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    (root / AREA / "new").mkdir(parents=True)
    (root / AREA / "new" / "x").write_text("x")
    for ignore in ("", "!.backupgw-restore"):
        wings.create(request(root, ignore), control)
        target = tmp_path / f"target{ignore}"
        target.mkdir()
        wings.unpack(RestoreRequest(SERVER, BACKUP), str(target), control)
        assert not (target / AREA).exists()


def test_single_paths_come_back_with_their_folders(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    wings.create(request(root), control)
    target = tmp_path / "target"
    target.mkdir()
    restore = RestoreRequest(SERVER, BACKUP, paths=["plugins/a.jar", "latest"])
    assert wings.find(restore, control).size == 200_000
    wings.unpack(restore, str(target), control)
    assert {str(p.relative_to(target)) for p in target.rglob("*")} == {
        "plugins",
        "plugins/a.jar",
        "latest",
    }
    assert (target / "plugins").stat().st_mode & 0o777 == 0o750
    with pytest.raises(AdapterError, match="has no 'plugins/b'"):
        wings.find(RestoreRequest(SERVER, BACKUP, paths=["plugins/b"]), control)


def test_damage_is_found_before_anything_is_touched(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    wings.create(request(root), control)
    file = tmp_path / "backups" / f"{BACKUP}.tar.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(AdapterError, match="damaged"):
        wings.find(RestoreRequest(SERVER, BACKUP), control)


def test_a_stop_is_heeded_and_leaves_nothing(
    wings: WingsAdapter, root: Path, tmp_path: Path
) -> None:
    with StopSignal() as stop:

        def end(progress: Progress) -> None:
            if progress.bytes:
                stop.set()

        with pytest.raises(Stopped):
            wings.create(request(root), Control(stop, end))
    assert os.listdir(tmp_path / "backups") == []


def test_a_folder_that_is_not_there_or_is_a_link_is_told(
    wings: WingsAdapter, root: Path, tmp_path: Path, control: Control
) -> None:
    with pytest.raises(AdapterError, match="No such file"):
        wings.create(request(tmp_path / "none"), control)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(AdapterError):
        wings.create(request(tmp_path / "link"), control)


# -- s3


@pytest.fixture(scope="module")
def s3() -> Iterator[Moto]:
    with Moto() as server:
        server.client().create_bucket(Bucket="panel")
        yield server


class Plans:
    """The Panel, asked as the service asks it."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self.then: Any = None

    def upload_plan(self, backup: str, size: int) -> object:
        url = f"{self._panel.url}/api/remote/backups/{backup}?size={size}"
        answer = httpx.get(url, headers=HEADERS)
        if answer.status_code != 200:
            raise AdapterError(f"the Panel answers {answer.status_code}")
        return answer.json()


@pytest.fixture
def panel(s3: Moto) -> Iterator[Panel]:
    with Panel(s3=s3) as panel:
        panel.backups[BACKUP] = Backup(BACKUP, SERVER, "s3", hidden=False)
        yield panel


@pytest.fixture
def adapter(panel: Panel, s3: Moto, tmp_path: Path) -> S3Adapter:
    spool = LocalArchives(str(tmp_path / "spool"))
    return S3Adapter(Plans(panel), spool, allowed=Allowed((s3.endpoint,)))


def test_an_archive_goes_to_the_bucket_and_comes_back(
    adapter: S3Adapter, panel: Panel, s3: Moto, root: Path, tmp_path: Path, control: Control
) -> None:
    made = adapter.create(request(root), control)
    assert made.parts is not None
    assert len(made.parts) == 2
    row = panel.backups[BACKUP]
    body = {
        "checksum": made.checksum,
        "checksum_type": made.checksum_type,
        "size": made.size,
        "successful": True,
        "parts": reported(made.parts),  # type: ignore[arg-type]  # of the same shape
    }
    url = f"{panel.url}/api/remote/backups/{BACKUP}"
    assert httpx.post(url, headers=HEADERS, json=body).status_code == 204
    assert os.listdir(tmp_path / "spool") == []
    address = s3.client().generate_presigned_url(
        "get_object", Params={"Bucket": "panel", "Key": panel.key(row)}
    )
    restore = RestoreRequest(OTHER, BACKUP, download_url=address)
    assert adapter.find(restore, control).server == SERVER
    target = tmp_path / "target"
    target.mkdir()
    adapter.unpack(restore, str(target), control)
    assert tree.differences(tree.describe(root), tree.describe(target)) == []
    assert os.listdir(tmp_path / "spool") == []


def test_a_panel_that_refuses_leaves_nothing(
    adapter: S3Adapter, panel: Panel, root: Path, tmp_path: Path, control: Control
) -> None:
    panel.backups.clear()
    with pytest.raises(AdapterError, match="answers 404"):
        adapter.create(request(root), control)
    assert os.listdir(tmp_path / "spool") == []


def test_an_address_that_is_not_allowed_is_not_asked(
    adapter: S3Adapter, tmp_path: Path, control: Control
) -> None:
    for url in ("http://169.254.169.254/x", "file:///etc/passwd", None):
        with pytest.raises(AdapterError):
            adapter.find(RestoreRequest(SERVER, BACKUP, download_url=url), control)
    assert not any((tmp_path / "spool").glob("*"))


def test_what_a_crash_left_in_the_spool_is_removed(tmp_path: Path, panel: Panel) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / f"{BACKUP}.tar.gz").write_text("x")
    (spool / f"{BACKUP}.tar.gz.new").write_text("x")
    S3Adapter(Plans(panel), LocalArchives(str(spool)))
    assert os.listdir(spool) == []


def test_a_stop_ends_an_upload(adapter: S3Adapter, root: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    lock = threading.Lock()
    with StopSignal() as stop:

        def end(progress: Progress) -> None:
            with lock:
                seen.append(progress)
            if progress.fraction is not None:
                stop.set()

        with pytest.raises(Stopped):
            adapter.create(request(root), Control(stop, end))
    assert os.listdir(tmp_path / "spool") == []
    assert any(p.fraction is not None and p.total_bytes for p in seen)
