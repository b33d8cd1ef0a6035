# ruff: noqa: RUF001 - letters that look like others are what names are tested with
"""Places behind rclone: its remotes `local`, `s3` and `memory`, by the real program."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kvstore.rclone_places import KEY_ID, SECRET, crypt_place, place, s3_place
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.double import Double, Faults
from tests.servers.http_proxy import faulty
from tests.servers.s3 import Moto

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import rclone_process
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    NameTooLong,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from backupgw.kvstore.backends.rclone import Rclone
from backupgw.kvstore.backends.rclone_errors import translate
from backupgw.kvstore.backends.rclone_names import decoded, encoded
from backupgw.kvstore.backends.rclone_remote import parse
from backupgw.kvstore.conformance.memory import measured
from backupgw.kvstore.layers.retry import from_options as retry
from backupgw.kvstore.registry import redact_url

pytestmark = pytest.mark.peers(peers.RCLONE)

MIB = 1 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with Moto() as server:
        yield server.endpoint


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Rclone]:
    backend = place(f":local:{tmp_path}/place")
    backend.create()
    with backend:
        yield backend


def of_rclone(backend: Rclone) -> rclone_process.RcloneProcess:
    """The process behind an open place."""
    return backend._open().process


def kill_rclone(backend: Rclone) -> int:
    """Kill it, and wait until that was noticed; return its id."""
    process = of_rclone(backend)
    pid = process.pid
    assert pid is not None
    running = process._running
    assert running is not None
    os.kill(pid, signal.SIGKILL)
    assert running._ended.wait(30)
    return pid


def test_rclones_encryption_shows_nothing(tmp_path: Path) -> None:
    sealed = crypt_place(str(tmp_path / "sealed"))
    sealed.create()
    value = b"a value that is known" * 5000
    with sealed:
        sealed.store("folder/a name that is known", value)
        assert (
            sealed.load("folder/a name that is known", offset=70_000, size=30)
            == value[70_000:][:30]
        )
        found = [(info.name, info.size) for info in sealed.list("folder")]
        assert found == [("a name that is known", len(value))]
        sealed.move("folder/a name that is known", "folder/other")
        assert sealed.load("folder/other") == value
    kept = [path for path in (tmp_path / "sealed").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if "known" in path.name or b"known" in path.read_bytes()]


# -- what the remotes have


def test_capabilities_are_the_remote_s(local: Rclone, s3: str) -> None:
    assert (local.capabilities.move, local.capabilities.hash, local.capabilities.quota) == (
        True, True, True,
    )  # fmt: skip
    there = s3_place(s3, "able/place")
    there.create()
    with there:
        able = there.capabilities
        assert (able.move, able.copy, able.hash, able.quota) == (False, True, False, False)
        assert not able.atomic_create
    assert 0 < local.quota().usage < local.quota().limit


def test_names_of_every_letter_come_back(local: Rclone, tmp_path: Path) -> None:
    names = ["a／b", "‛", "␊", "line\nend", "\x7f", "．", "．．", "‛．", "␡", "‛␊", "x"]
    for name in names:
        local.store(name, name.encode())
    assert sorted(info.name for info in local.list("")) == sorted(names)
    assert all(local.load(name) == name.encode() for name in names)
    # What has no meaning of its own for a disk is there as it was given.
    assert {"␊", "line\nend", "\x7f", "␡"} < {*os.listdir(tmp_path / "place")}


@given(st.text("␀␁␊␟␠␡‛．／.x\n\x01\x7f\x1f é", min_size=1).filter(lambda n: n not in (".", "..")))
def test_no_two_names_are_told_to_rclone_alike(name: str) -> None:
    assert decoded(encoded(name)) == name
    assert not any(letter < " " or letter == "\x7f" for letter in encoded(name))


def test_a_large_folder_is_listed_in_bounded_memory(local: Rclone, tmp_path: Path) -> None:
    folder = tmp_path / "place" / "many"
    folder.mkdir()
    for number in range(20_000):
        (folder / f"{number:064}").touch()
    with measured() as memory:
        count = sum(1 for _ in local.list("many"))
    assert count == 20_000
    assert memory.peak < 4 * MIB


# -- one program for all places, and its end


def test_all_places_share_one_program(local: Rclone, tmp_path: Path) -> None:
    other = place(f":local:{tmp_path}/other")
    other.create()
    with other:
        other.store("item", b"value")
        local.store("item", b"value")
        assert of_rclone(other) is of_rclone(local)


def test_the_program_is_started_again_when_it_died(local: Rclone) -> None:
    local.store("item", b"value")
    before = kill_rclone(local)
    assert local.load("item") == b"value"
    assert of_rclone(local).pid not in (None, before)


def test_a_write_outlives_the_program(local: Rclone) -> None:
    value = os.urandom(3 * MIB)
    with local.open_writer("folder/item") as writer:
        writer.write(value[:MIB])
        kill_rclone(local)
        writer.write(value[MIB:])
    assert local.load("folder/item") == value


def test_a_read_goes_on_with_the_next_program(local: Rclone, tmp_path: Path) -> None:
    value = os.urandom(24 * MIB)
    local.store("item", value)
    os.utime(tmp_path / "place" / "item", (1e9, 1e9))
    with local.open_reader("item", offset=5) as reader:
        got = reader.read(1000)
        kill_rclone(local)
        while piece := reader.read(MIB):
            got += piece
    assert got == value[5:]


def test_a_read_never_joins_two_values(local: Rclone, tmp_path: Path) -> None:
    for age, complaint in (
        (1e9, "replaced while it was read"),
        (None, "a value this young may be"),
    ):
        local.store("item", bytes(24 * MIB))
        if age is not None:
            os.utime(tmp_path / "place" / "item", (age, age))
        with local.open_reader("item") as reader:
            reader.read(1000)
            local.store("item", b"x" * (24 * MIB))
            kill_rclone(local)
            with pytest.raises(BackendError, match=complaint) as caught:
                [*iter(partial(reader.read, MIB), b"")]
            assert caught.value.retryable


@pytest.mark.parametrize("written", [100, 90_000, 3 * MIB])
@pytest.mark.parametrize("remote", ["disk", "s3"])
def test_a_stream_that_breaks_leaves_nothing(
    written: int, remote: str, tmp_path: Path, s3: str
) -> None:
    """Of rclone's own accord, the first 100 KiB of what was cut off would be stored as whole."""
    streaming = (
        place(f":local:{tmp_path}/streamed", 0)
        if remote == "disk"
        else s3_place(s3, f"broken/{secrets.token_hex(4)}", 0)
    )
    streaming.create()
    with streaming:
        streaming.store("old", b"old")
        for name in ("old", "new"):
            writer = streaming.open_writer(name)
            writer.write(os.urandom(written))
            writer.abort()
        assert streaming.load("old") == b"old"
        assert [info.name for info in streaming.list("")] == ["old"]
        writer = streaming.open_writer("new")
        writer.write(os.urandom(written))
        kill_rclone(streaming)
        with pytest.raises(BackendConnectionError) as caught:
            writer.commit()
        assert caught.value.retryable
        writer.abort()
        assert [info.name for info in streaming.list("")] == ["old"]


def test_what_dead_writers_left_is_reaped(local: Rclone, tmp_path: Path) -> None:
    streaming = place(f":local:{tmp_path}/place", 0)
    with streaming:
        writer = streaming.open_writer("folder/item")
        writer.write(os.urandom(MIB))
        kill_rclone(streaming)
        writer.abort()
        left = [*(tmp_path / "place" / "folder").iterdir()]
        assert [path.name.startswith(".backupgw-tmp-") for path in left] in ([], [True])
        (tmp_path / "place" / "folder" / ".backupgw-tmp-0").write_bytes(b"left")
        assert streaming.reap(3600) == 0
        assert streaming.reap(0) == len(left) + 1
        assert [*(tmp_path / "place" / "folder").iterdir()] == []


CHILD = """
import sys, os
from tests.kvstore.rclone_places import place
backend = place(sys.argv[1])
backend.create()
backend.open()
backend.store("item", b"value")
print(backend._open().process.pid, backend._open().process.folder, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[tuple[Child[str], int, Path]]:
    """A process with an open place; its rclone's id, and the folder that the two share."""
    with Child(
        [sys.executable, "-c", CHILD, f":local:{folder}/of another"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=peers.ROOT,
        env={**os.environ, "PYTHONPATH": str(peers.ROOT)},
    ) as process:
        assert process.stdout is not None
        pid, private = process.stdout.readline().split()
        yield process, int(pid), Path(private)


def gone(pid: int) -> bool:
    """Wait for the end of a process that is nobody's child here."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], 30)[0])
    finally:
        os.close(fd)


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_the_program_ends_with_its_process(how: str, tmp_path: Path) -> None:
    with another_process(tmp_path) as (process, pid, private):
        assert private.stat().st_mode & 0o777 == 0o700
        if how == "ends":
            process.communicate("", timeout=60)
        else:
            process.kill()
            process.wait()
        assert gone(pid)
        assert private.exists() == (how == "is killed")
    if how == "is killed":
        rclone_process.RcloneProcess("/bin/false", None).stop()  # the next one clears it away
        assert not private.exists()


def test_no_secret_is_in_a_command_line(s3: str) -> None:
    backend = s3_place(s3, "secret/place")
    backend.create()
    with backend:
        pid = of_rclone(backend).pid
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:] == [b"rcd", b""]
        password = of_rclone(backend)._password.encode()
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = line.read_bytes()
            except OSError:
                continue  # it has ended
            assert SECRET.encode() not in text
            assert password not in text


def test_nobody_else_can_give_orders(local: Rclone) -> None:
    process = of_rclone(local)
    assert process._running is not None
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(process._running.path)
        plain.sendall(b"POST /core/pid HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b" 401 " in plain.recv(100)


def test_threads_start_one_program(local: Rclone) -> None:
    local.store("item", b"value")
    kill_rclone(local)
    seen: set[int | None] = set()

    def work() -> None:
        assert local.load("item") == b"value"
        seen.add(of_rclone(local).pid)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


def test_a_fifth_of_all_requests_fails(s3: str) -> None:
    with faulty(s3) as proxy:
        backend = open_place_with_retry(proxy.url)
        with backend:
            proxy.faults = Faults(rate=0.2, seed=3)
            values = {f"folder/{number}": os.urandom(70_000) for number in range(12)}
            for name, value in values.items():
                backend.store(name, value)
            assert {name: backend.load(name) for name in values} == values
            for name in values:
                backend.delete(name)
            assert [*backend.list("folder")] == []
            assert proxy.faults.hit > 5


def open_place_with_retry(endpoint: str) -> Backend:
    backend = retry(s3_place(endpoint, "faulty/place"))
    backend.create()
    return backend


# -- mistakes, each with one line that helps


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLONE_BINARY", str(tmp_path / "nowhere"))
    with pytest.raises(BackendDoesNotExist, match=r"nowhere' *, which is not there: install it"):
        open_place(f"rclone::local:{tmp_path}").open()


@pytest.mark.parametrize(
    ("says", "complaint"),
    [("rclone v1.60.1-DEV", "rclone 1.68.0 or newer is needed"), ("hello", "no rclone")],
)
def test_an_old_program_is_refused(tmp_path: Path, says: str, complaint: str) -> None:
    program = tmp_path / "rclone"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    with pytest.raises(BackendDoesNotExist, match=complaint):
        open_place(f"rclone::local:{tmp_path}", binary=str(program)).open()


def test_an_unknown_remote_is_named() -> None:
    with pytest.raises(BackendDoesNotExist, match=r"no remote 'nowhere': make it with `rclone con"):
        place("nowhere:path").open()


def test_a_place_that_does_not_exist(tmp_path: Path, s3: str) -> None:
    for backend in (place(f":local:{tmp_path}/none"), s3_place(s3, "none/place")):
        with pytest.raises(BackendDoesNotExist, match="does not exist"):
            backend.open()


def test_credentials_that_are_not_taken() -> None:
    """A server that refuses all; what is told holds no secret."""

    async def refuses(scope: object, receive: object, send: object) -> None:
        body = b"<Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>"
        start = {"type": "http.response.start", "status": 403,
                 "headers": [(b"content-type", b"application/xml")]}  # fmt: skip
        await send(start)  # type: ignore[operator]
        await send({"type": "http.response.body", "body": body})  # type: ignore[operator]

    with Double(refuses) as double, pytest.raises(PermissionDenied) as caught:
        s3_place(double.url, "bucket/place").open()
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    "url",
    ["rclone:", "rclone:remote", "rclone::", "rclone::local", "rclone:a/b:c", "rclone:-x:y",
     "rclone::s3,a=\"b:c", "rclone:remote:a/../b", "rclone:remote:.backupgw-x/y",
     "rclone::local,global.config=x:/y"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(BackendURLInvalid):
        open_place(url)


def test_a_connection_string_is_understood() -> None:
    remote = parse(
        'rclone::s3,provider=Other,secret_access_key="a""b,:c",flag:bucket/p//q/',
        {"endpoint": "http://host:1", "session_token": "it's"},
    )
    assert remote.fs == (
        ':s3,provider="Other",secret_access_key="a""b,:c",flag="true",'
        'endpoint="http://host:1",session_token="it\'s":'
    )
    assert (remote.root, remote.shown, remote.name) == ("bucket/p/q", ":s3:bucket/p/q", ":s3")
    assert parse("rclone:/srv/x", {}) == parse("rclone::local:/srv/x", {})
    assert "secret" not in repr(remote)
    assert remote.without_secrets('failed: :s3,x="a""b,:c" and a"b,:c') == (
        'failed: :s3,x="***" and ***'
    )


def test_a_url_is_shown_without_its_parameters() -> None:
    url = f'rclone::s3,access_key_id={KEY_ID},secret_access_key="{SECRET}:x":bucket/path'
    assert redact_url(url) == "rclone::s3,***:bucket/path"
    assert redact_url("rclone:remote:path/x") == "rclone:remote:path/x"


@pytest.mark.parametrize(
    ("said", "kind", "retryable", "after"),
    [
        ("write /x: no space left on device", StorageFull, False, None),
        ("preallocate: file too big for remaining disk space", StorageFull, False, None),
        ("googleapi: Error 403: The quota has been exceeded, storageQuotaExceeded",
         StorageFull, False, None),
        ("googleapi: Error 403: Rate Limit Exceeded, rateLimitExceeded", BackendError, True, None),
        ("too_many_requests/... retry after 12 s", BackendError, True, 12.0),
        ("Cannot download file, storage_cap_exceeded (403 cap_exceeded)", StorageFull, False, None),
        ("dial tcp 127.0.0.1:1: connect: connection refused", BackendConnectionError, True, None),
        ("operation error S3: PutObject, StatusCode: 503, x", BackendError, True, None),
        ("AccessDenied: Access Denied. StatusCode: 403", PermissionDenied, False, None),
        ("couldn't fetch token: invalid_grant: maybe expired", PermissionDenied, False, None),
        ("lstat /x/y: no such file or directory", ObjectNotFound, False, None),
        (f"open /{'n' * 900}: file name too long", NameTooLong, False, None),
        (f"open /{'n' * 900}: connection refused", BackendConnectionError, True, None),
        ("something new", BackendError, False, None),
    ],
)  # fmt: skip
def test_sentences_of_remotes_are_understood(
    said: str, kind: type[BackendError], retryable: bool, after: float | None
) -> None:
    error = translate(500, said, "item", parse("rclone:remote:path", {}))
    assert type(error) is kind
    assert (error.retryable, error.retry_after) == (retryable, after)
    assert said[-20:] in str(error) or kind is ObjectNotFound, "the reason is not cut off"
    if "token" in said:
        assert "rclone config reconnect remote:" in str(error)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[rclone_process.RcloneProcess]:
    """A program that is started as rclone is, and answers nobody."""
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    process = rclone_process.RcloneProcess(str(program), None)
    yield process
    process.stop()


def test_the_id_is_known_as_soon_as_the_program_is_started(
    sleeper: rclone_process.RcloneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    class Late(threading.Event):
        """Who has set it goes on after all who waited for it."""

        def set(self) -> None:
            super().set()
            go_on.wait(60)

    with monkeypatch.context() as patched:
        patched.setattr(rclone_process, "threading", SimpleNamespace(Event=Late, Thread=Thread))
        try:
            sleeper.connect().close()
            pid = sleeper.pid
        finally:
            go_on.set()
    assert pid
    os.kill(pid, 0)


def test_who_connects_while_the_program_is_ended_is_told(
    sleeper: rclone_process.RcloneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper.connect().close()
    real = socket.socket

    def ended_before(*args: int) -> socket.socket:
        sleeper.stop()
        return real(*args)

    monkeypatch.setattr(socket, "socket", ended_before)
    with pytest.raises(OSError):
        sleeper.connect()
