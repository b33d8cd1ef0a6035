"""Limits do what their names say; what a place refuses is told, with nothing lost."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends.errors import BackendError, PermissionDenied, QuotaExceeded
from backupgw.providers import PlaceProvider, create
from tests.conftest import SOAK
from tests.faults.volumes import tmpfs
from tests.kvstore.b2_places import BUCKET
from tests.providers.provider_places import Config, running
from tests.providers.provider_site import PATIENCE, Site
from tests.servers.b2_double import KEY, KEY_ID, B2Double, error_answer
from tests.servers.child import Child
from tests.servers.double import Double, Fault, Faults

RATE = 20_000_000


@pytest.mark.alone
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_limit_of_bandwidth_is_held(way: str, tmp_path: Path) -> None:
    """20 MB/s within 5 %: over 30 s in a soak."""
    size = RATE * (30 if SOAK else 3)
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with running("local", tmp_path, durability="fast") as provider:
        assert provider.upload(path, "file")
    with running("local", tmp_path, durability="fast", max_bandwidth=RATE) as provider:
        provider.open()
        begun = time.monotonic()
        if way == "up":
            assert provider.upload(path, "file")
        else:
            assert provider.download("file", tmp_path / "back")
        took = time.monotonic() - begun
    assert size / took == pytest.approx(RATE, rel=0.05)


@pytest.fixture
def b2() -> Iterator[B2Double]:
    with B2Double() as double:
        yield double


def b2_config(double: Double, **more: object) -> Config:
    return {
        "container": BUCKET,
        "application_key_id": KEY_ID,
        "application_key": KEY,
        "realm": double.url,
        "retry_delay": 0.1,
        "upload_chunk_size": 5 << 20,
        **more,
    }


@pytest.fixture
def provider(b2: B2Double) -> Iterator[PlaceProvider]:
    made = create("backblaze", b2_config(b2))
    assert isinstance(made, PlaceProvider)
    with made:
        made.open()
        yield made


@pytest.mark.parametrize(("failures", "done"), [(0, True), (2, True), (3, False)])
@pytest.mark.parametrize("what", ["b2_upload_file", "b2_list_file_names", "b2_delete_file_version"])
def test_attempts_are_counted(
    what: str,
    failures: int,
    done: bool,
    b2: B2Double,
    provider: PlaceProvider,
    tmp_path: Path,
) -> None:
    """max_retries = 3 means three attempts: what fails twice and then works has worked."""
    path = tmp_path / "x"
    path.write_bytes(b"content")
    if what != "b2_upload_file":
        assert provider.upload(path, "x")
    b2.calls.clear()
    b2.faults = Faults(
        rate=1,
        kinds=[Fault.UNAVAILABLE],
        limit=failures,
        only=lambda scope: what in scope["path"],
        answer=error_answer,
    )
    assert _did(provider, what, path) is done
    assert b2.calls.count(lambda call: what in call.path) == min(failures + 1, 3)
    assert (provider.last_error is None) is done
    b2.faults = Faults()


def _did(provider: PlaceProvider, what: str, path: Path) -> bool:
    match what:
        case "b2_upload_file":
            return provider.upload(path, "x")
        case "b2_delete_file_version":
            return provider.delete("x")
        case _:
            try:
                return [each["name"] for each in provider.list_files()] == ["x"]
            except BackendError:
                return False


def test_pauses_grow(b2: B2Double, tmp_path: Path) -> None:
    """retry_delay is the first pause at most, doubled each time, with jitter."""
    path = tmp_path / "x"
    path.write_bytes(b"content")
    made = create("backblaze", b2_config(b2, max_retries=4, retry_delay=0.2))
    assert made.test_connection()
    b2.faults = Faults(rate=1, kinds=[Fault.UNAVAILABLE], answer=error_answer)
    begun = time.monotonic()
    assert made.upload(path, "x") is False
    took = time.monotonic() - begun
    made.close()
    assert took < 0.2 + 0.4 + 0.8 + 1.0


def test_a_cap_that_is_reached(site: Site, b2: B2Double) -> None:
    """It fails at once, says so, stops the rest, and what was stored is still there."""
    service, double = b2.service, b2
    _enable(site, b2_config(double))
    files = [site.file(f"{n}", os.urandom(300_000)) for n in range(6)]
    service.storage_cap = 700_000
    lines = site.lines("upload", "backblaze", *files, "--jobs", "1", status=3)
    events = [each["event"] for each in lines]
    assert events == ["uploaded", "uploaded", "failed", "done"]
    assert "cap" in lines[2]["error"]
    assert "no room" in lines[-1]["gave_up"]
    refused = double.calls.count(lambda c: "b2_upload_file" in c.path and c.status == 403)
    assert refused == 1, "it was tried again, or with the other files"
    site.run("download", "backblaze", "0", site.folder / "back")
    assert (site.folder / "back").read_bytes() == files[0].read_bytes()
    made = create("backblaze", b2_config(double))
    assert made.upload(files[3], "3") is False
    assert isinstance(made.last_error, QuotaExceeded)
    made.close()


def _enable(site: Site, config: Config) -> None:
    secret = config.pop("application_key")
    site.run("enable", "backblaze", *[f"--set={key}={value}" for key, value in config.items()])
    site.run(
        "set-credentials", "backblaze", "-u", config["application_key_id"],
        "--password-file", site.file("b2.key", secret.encode()),
    )  # fmt: skip


def test_a_credential_that_was_revoked(site: Site, b2: B2Double) -> None:
    _enable(site, b2_config(b2))
    path = site.file("x", b"content")
    site.run("upload", "backblaze", path)
    site.file("b2.key", b"K004another")
    _, err = site.told("upload", "backblaze", path, status=1)
    assert "key" in err
    assert "K004another" not in err
    site.told("ls", "backblaze", status=1)
    [told] = site.json("test", "backblaze", status=1)
    assert told["passed"] is False
    site.file("b2.key", KEY.encode())
    assert site.run("ls", "backblaze") == "x\n"
    made = create("backblaze", b2_config(b2, application_key="K004another"))
    assert made.test_connection() is False
    assert isinstance(made.last_error, PermissionDenied)


@pytest.mark.root
def test_a_full_disk(site: Site) -> None:
    with tmpfs(site.folder, megabytes=20, inodes=900) as volume:
        site.run("enable", "local", f"--set=container={volume}/nas")
        small, large = site.file("small", b"small"), site.file("large", os.urandom(30 << 20))
        site.run("upload", "local", small)
        lines = site.lines("upload", "local", large, status=1)
        assert "No space left" in lines[0]["error"]
        assert site.run("ls", "local") == "small\n"
        site.run("download", "local", "small", site.folder / "back")
        (volume / "nas" / "small").unlink()
        # What was half there was cleared away: there is room again.
        site.run("upload", "local", site.file("medium", os.urandom(15 << 20)))


def test_secrets_are_in_nothing_that_was_written(site: Site, b2: B2Double) -> None:
    """Byte by byte, in every file, in every answer, with the log at its loudest."""
    service, double = b2.service, b2
    _enable(site, b2_config(double))
    passphrase = "correct-horse-battery-staple"
    site.run("set", "backblaze", "encryption_enabled", "true")
    _set_by_stdin(site, "backblaze", "encryption_key", passphrase)
    path = site.file("x", b"content")
    said = "".join(site.told("show", "backblaze", "--all") + site.told("get", "backblaze"))
    # As processes of their own: the service's log is none of theirs.
    said += _loudly(site, "upload", "backblaze", path)
    said += _loudly(site, "download", "backblaze", "x", site.folder / "back")
    double.faults = Faults(rate=1, kinds=[Fault.UNAVAILABLE], answer=error_answer)
    said += _loudly(site, "test", "backblaze", status=1)
    assert "DEBUG" in said or "debug" in said
    tokens = {*service.tokens} if hasattr(service, "tokens") else set()
    for secret in (KEY, passphrase, *tokens):
        assert str(secret) not in said
    assert [each.name for each in site.written(KEY.encode())] == ["b2.key"]
    holding = [each.name for each in site.written(passphrase.encode())]
    assert holding == ["provider-credentials.toml"]


def _loudly(site: Site, *words: object, status: int = 0) -> str:
    command = [*site.command(*words), "--debug"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
    assert done.returncode == status, done.stderr
    return (done.stdout + done.stderr).decode()


def _set_by_stdin(site: Site, name: str, field: str, secret: str) -> None:
    done = subprocess.run(
        site.command("set", name, field), input=secret.encode(), capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_no_secret_in_the_list_of_processes(site: Site) -> None:
    """What is set by a prompt or by standard input is in nobody's arguments."""
    with Child(
        site.command("set-credentials", "aws_s3", "-u", "AKIA1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"hunter2-secret")
        process.stdin.flush()
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    assert b"hunter2-secret" not in arguments + environ


def test_a_fake_secret_in_a_foreign_error_is_not_logged(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.DEBUG), running("local", tmp_path, api_key="hunter2") as provider:
        provider.upload(tmp_path / "missing", "x")
    assert "hunter2" not in caplog.text


def test_costs_are_classed(b2: B2Double, provider: PlaceProvider) -> None:
    provider.list_files()
    costs: Any = provider.costs
    classes = {costs.of(call) for call in provider.calls.counts()}
    assert "class C" in classes
    assert costs.of("b2_download_file_by_name") == "class B"
    assert costs.of("b2_upload_part") == "class A, free"
