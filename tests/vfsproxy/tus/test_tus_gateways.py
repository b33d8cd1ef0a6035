"""Uploads that outlive a gateway: carried on at another one, and after a SIGKILL."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.servers.s3 import Moto
from tests.vfsproxy.file_process import TUS, FileProcess, patch_head
from tests.vfsproxy.file_site import Site

from backupgw.kvstore import open_place
from backupgw.kvstore.ledger import NOTHING
from backupgw.vfsproxy.tus.holds import LEASE

MIB = 1 << 20


@pytest.fixture
def content() -> bytes:
    return os.urandom(9 * MIB + 99)


@pytest.mark.parametrize("pieces", [False, True], ids=["disk", "pieces"])
def test_two_gateways_carry_one_upload_on_in_turn(
    tmp_path: Path, content: bytes, pieces: bool
) -> None:
    site = Site(str(tmp_path), pieces=pieces)
    with FileProcess(site) as one, FileProcess(site) as other:
        path = one.start(len(content), "shared.bin")
        offset = 0
        for number in range(9):
            gateway = (one, other)[number % 2]
            assert gateway.head(path).headers["upload-offset"] == str(offset)
            end = min(offset + MIB + 11, len(content))
            assert gateway.patch(path, offset, content[offset:end]).status_code == 204
            offset = end
        assert (one.files / "shared.bin").read_bytes() == content
        # What one of them has is the other's as soon as it has let go.
        path = one.start(2 * MIB, "taken.bin")
        with one.connect() as wire:
            wire.send(patch_head(path, 0, 2 * MIB) + content[:MIB])
            # Not before the first has it: the other could begin, and be told that it is taken.
            wait_for_bytes(one, 1)
            held = other.head(path)
            assert held.status_code in (200, 423)
            ended = time.monotonic() + 30
            while other.head(path).status_code == 423 and time.monotonic() < ended:
                time.sleep(0.2)
            kept = int(other.head(path).headers["upload-offset"])
            assert 0 <= kept <= MIB
            assert other.patch(path, kept, content[kept : 2 * MIB]).status_code == 204
        assert (one.files / "taken.bin").read_bytes() == content[: 2 * MIB]


@pytest.mark.parametrize("pieces", [False, True], ids=["disk", "pieces"])
def test_an_upload_outlives_its_gateway(tmp_path: Path, content: bytes, pieces: bool) -> None:
    # What was gathered in pieces needs its room twice while it is joined.
    site = Site(str(tmp_path), pieces=pieces, limit=(2 if pieces else 1) * len(content))
    first = FileProcess(site)
    path = first.start(len(content), "killed.bin")
    first.patch(path, 0, content[:MIB])
    with first.connect() as wire:
        wire.send(patch_head(path, MIB, len(content) - MIB) + content[MIB : 6 * MIB])
        wait_for_bytes(first, 4 * MIB)
        first.kill()
    # The lease of the dead has to end first.
    with FileProcess(site) as second:
        ended = time.monotonic() + LEASE + 10
        while (told := second.head(path)).status_code == 423 and time.monotonic() < ended:
            time.sleep(0.2)
        offset = int(told.headers["upload-offset"])
        # A volume that carries writes on has what came after the last checkpoint, too.
        assert (MIB if pieces else 4 * MIB) <= offset <= 6 * MIB
        assert second.patch(path, offset, content[offset:]).status_code == 204
        assert (second.files / "killed.bin").read_bytes() == content
        with second.site.ledger() as ledger:
            while ledger.usage("folder").reserved != NOTHING and time.monotonic() < ended + 10:
                time.sleep(0.1)
            assert ledger.usage("folder").reserved == NOTHING
            assert ledger.usage("folder").used.bytes == len(content)


def test_on_an_object_store(tmp_path: Path, content: bytes) -> None:
    """What was kept is carried on by another gateway after a SIGKILL, part by part."""
    content = content + os.urandom(5 * MIB)
    with Moto() as moto:
        site = Site(str(tmp_path), volume=moto.url("bucket/volume"))
        first = FileProcess(site)
        path = first.start(len(content), "in/parts.bin")
        half = 7 * MIB + 5
        assert first.patch(path, 0, content[:half]).status_code == 204
        assert first.head(path).headers["upload-offset"] == str(half)
        first.kill()
        with FileProcess(site) as second:
            assert second.head(path).headers["upload-offset"] == str(half)
            assert second.patch(path, half, content[half:]).status_code == 204
            volume = open_place(moto.url("bucket/volume"))
            with volume:
                assert volume.load("files/in/parts.bin") == content
            ended = second.start(len(content), "ended.bin")
            second.patch(ended, 0, content[:half])
            assert moto.uploads("bucket") != []
            assert second.client.delete(ended, headers=TUS).status_code == 204
        assert moto.uploads("bucket") == []
        kept = [key for key in moto.keys("bucket") if ".backupgw" not in key]
        assert kept == ["volume/files/in/parts.bin"]


def wait_for_bytes(server: FileProcess, size: int) -> None:
    """Wait until the volume was given so many bytes."""
    ended = time.monotonic() + 30
    volume = Path(server.site.state) / "volume"
    while time.monotonic() < ended:
        for fd in Path(f"/proc/{server.pid}/fd").iterdir():
            try:
                if str(volume) in os.readlink(fd) and fd.is_file() and fd.stat().st_size >= size:
                    return
            except OSError:
                continue
        time.sleep(0.02)
    raise AssertionError("the bytes did not arrive")
