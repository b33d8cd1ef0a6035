"""Uploads that end early, however hard, are carried on by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends.errors import BackendError, ContentMismatch, UnsupportedOperation
from backupgw.providers import PlaceProvider, create
from backupgw.providers.journal import FileJournal
from backupgw.providers.transfers import Interrupted
from tests.conftest import SOAK
from tests.providers.provider_places import running, s3_config
from tests.providers.provider_site import PATIENCE, Site
from tests.servers.faulty_proxy import FaultyProxy
from tests.servers.s3 import RcloneS3

SIZE = 1 << 30 if SOAK else 44 << 20
PART = 5 << 20
KINDS = [
    "local",
    pytest.param("aws_s3", marks=pytest.mark.peers("rclone")),
    pytest.param("sftp", marks=pytest.mark.root("sshd")),
    "dropbox",
    "google_cloud_storage",
    "backblaze",
]

KILLED = """
import os, sys, json
from pathlib import Path
from backupgw.providers import create
from backupgw.providers.journal import FileJournal
kind, config, file, journal, end = json.loads(sys.argv[1])
provider = create(kind, config)
provider.transfers.journal = FileJournal(Path(journal))
def tell(done, total):
    if done >= end:
        os.kill(os.getpid(), 9)
provider.upload(Path(file), "large", tell)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(SIZE))
    return path


def offsets_of(provider: PlaceProvider, path: Path) -> list[int]:
    """Upload a file; return the bytes that were done at each call."""
    told: list[int] = []
    assert provider.upload(path, "large", lambda done, _: told.append(done)), provider.last_error
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_kill(kind: str, tmp_path: Path, source: Path) -> None:
    import json

    journal = tmp_path / "journal"
    with running(kind, tmp_path) as provider:
        provider.open()
        words = json.dumps([kind, provider.config, str(source), str(journal), 38 << 20])
        done = subprocess.run([sys.executable, "-c", KILLED, words], timeout=PATIENCE)
        assert done.returncode == -signal.SIGKILL
        assert provider.list_files() == []
        provider.transfers.journal = FileJournal(journal)
        told = offsets_of(provider, source)
        assert told[0] >= 10 << 20, "it began anew"
        assert told[-1] == SIZE
        assert provider.download("large", tmp_path / "back")
        assert [*journal.iterdir()] == []
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "more", [{}, {"encryption_enabled": True, "encryption_key": "a passphrase"}]
)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_after_an_interruption(
    kind: str, more: dict[str, Any], tmp_path: Path, source: Path
) -> None:
    with running(kind, tmp_path, **more) as provider:

        def stop(done: int, _: int) -> None:
            if done >= 30 << 20:
                provider.transfers.stopping.set()

        assert provider.upload(source, "large", stop) is False
        assert isinstance(provider.last_error, Interrupted)
        assert provider.list_files() == []
        provider.transfers.stopping.clear()
        told = offsets_of(provider, source)
        assert told[0] >= 10 << 20, "it began anew"
        assert provider.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_file_that_changed_begins_anew(tmp_path: Path, source: Path) -> None:
    with running("local", tmp_path) as provider:
        _interrupt(provider, source)
        changed = os.urandom(SIZE)
        source.write_bytes(changed)
        told = offsets_of(provider, source)
        assert told[0] == 0
        assert provider.open().load("large") == changed
        left = [each.name for each in (tmp_path / "nas").rglob(".backupgw-p*")]
        assert left == [], "what was there of the old one was not given up"


def _interrupt(provider: PlaceProvider, path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done >= 30 << 20:
            provider.transfers.stopping.set()

    assert provider.upload(path, "large", stop) is False
    provider.transfers.stopping.clear()


def test_a_file_that_changes_meanwhile_is_not_stored(tmp_path: Path, source: Path) -> None:
    with running("local", tmp_path) as provider:

        def touch(done: int, total: int) -> None:
            if done == total:
                os.utime(source, (1, 1))

        assert provider.upload(source, "large", touch) is False
        assert isinstance(provider.last_error, ContentMismatch)
        assert "changed while it was read" in str(provider.last_error)
        assert provider.list_files() == []


@pytest.mark.peers("rclone")
def test_orphaned_parts_are_cleared_away(site: Site, source: Path) -> None:
    with RcloneS3(site.folder / "s3") as server:
        _enable(site, s3_config(server))
        (site.folder / "s3").mkdir(exist_ok=True)
        site.run("test", "aws_s3")
        provider = _slow(s3_config(server))
        provider.transfers.journal = FileJournal(site.state / "providers" / "aws_s3.uploads")
        _interrupt(provider, source)
        provider.close()
        assert len(server.uploads("home")) == 1
        assert site.json("clean", "aws_s3") == [{"provider": "aws_s3", "removed": 0}]
        [cleaned] = site.json("clean", "aws_s3", "--older-than", "0")
        assert cleaned["removed"] >= 1
        assert server.uploads("home") == []


def _slow(config: dict[str, Any]) -> PlaceProvider:
    made = create("aws_s3", {**config, "retry_delay": 0.1, "upload_chunk_size": PART})
    assert isinstance(made, PlaceProvider)
    return made


def _enable(site: Site, config: dict[str, Any]) -> None:
    site.run(
        "enable", "aws_s3", "--set=retry_delay=0.1", f"--set=upload_chunk_size={PART}",
        *[f"--set={key}={value}" for key, value in config.items()],
    )  # fmt: skip


@pytest.mark.peers("rclone")
def test_a_line_that_breaks_in_the_middle(site: Site, source: Path) -> None:
    with (
        RcloneS3(site.folder / "s3") as server,
        FaultyProxy(("127.0.0.1", server.port)) as proxy,
    ):
        _enable(site, s3_config(server, f"http://{proxy.address}"))
        site.run("test", "aws_s3")
        site.run("set", "aws_s3", "max_bandwidth", "20M")
        site.run("set", "aws_s3", "max_retries", "1")
        with site.start("upload", "aws_s3", source) as process:
            _until(lambda: len(_parts(server)) >= 2)
            proxy.refuse()
            proxy.cut()
            out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, out
        assert b"Traceback" not in out
        assert b"secretKey" not in out
        assert server.keys("home", "large") == []
        proxy.accept()
        before = _calls(site)
        site.run("unset", "aws_s3", "max_bandwidth")
        assert site.lines("upload", "aws_s3", source)[-1]["uploaded"] == 1
        sent = _calls(site).get("UploadPart", 0) - before.get("UploadPart", 0)
        parts = -(-SIZE // PART)
        assert 1 <= sent < parts, f"{sent} of {parts} parts were sent again"
        site.run("download", "aws_s3", "large", site.folder / "back")
    assert (site.folder / "back").read_bytes() == source.read_bytes()


def _calls(site: Site) -> dict[str, int]:
    return {each["call"]: each["count"] for each in site.json("calls", "aws_s3")}


def _parts(server: RcloneS3) -> list[Any]:
    client = server.client()
    try:
        uploads = client.list_multipart_uploads(Bucket="home").get("Uploads", [])
    except client.exceptions.NoSuchUpload:  # rclone's way to say that there are none
        return []
    return [
        part
        for each in uploads
        for part in client.list_parts(
            Bucket="home", Key=each["Key"], UploadId=each["UploadId"]
        ).get("Parts", [])
    ]


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_two_at_a_time_do_not_mix(tmp_path: Path, source: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    with running("local", tmp_path) as one, running("local", tmp_path) as other:
        one.transfers.journal = other.transfers.journal = journal
        seen: list[str] = []

        def meanwhile(done: int, _: int) -> None:
            if done >= 20 << 20 and not seen:
                assert other.upload(source, "large") is False
                seen.append(str(other.last_error))

        assert one.upload(source, "large", meanwhile)
    assert "another process uploads to that name now" in seen[0]


def test_places_that_cannot_still_take_whole_files(tmp_path: Path, source: Path) -> None:
    with running("drime", tmp_path) as provider:
        _interrupt(provider, source)
        told = offsets_of(provider, source)
        assert told[0] == 0
        with pytest.raises((UnsupportedOperation, BackendError)):
            provider.open().resume_writer("x")
