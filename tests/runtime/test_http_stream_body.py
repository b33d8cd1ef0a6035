"""Bodies that threads read from elsewhere and pass on: right, whole, or cut off for all to see."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.runtime.http_process import HostProcess, wait_for_line
from tests.runtime.test_http_file_body import MIB, hosting, slow

SIZE = 20 * MIB + 4321


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream") / "access.log"


@pytest.fixture(scope="module")
def host(log: Path, content: bytes) -> Iterator[HostProcess]:
    file = log.parent / "file"
    file.write_bytes(content)
    with hosting(file, log, write_stall_timeout=1) as process:
        yield process


def get(offset: int, size: int, method: str = "GET", cut: str = "") -> bytes:
    return f"{method} /passed?{offset},{size}{cut} HTTP/1.1\r\nHost: t\r\n\r\n".encode()


def test_every_part_arrives_as_it_is(host: HostProcess, log: Path, content: bytes) -> None:
    with host.connect() as wire:
        for offset, size in ((0, SIZE), (1, 700_000), (SIZE - 1, 1), (17, 3 * MIB)):
            wire.send(get(offset, size))
            assert wire.answer().body == content[offset : offset + size]
        wire.send(get(0, SIZE, "HEAD"))
        assert wire.answer(head_only=True).headers["content-length"] == str(SIZE)
        assert wire.request("GET", "/echo").status == 200
    assert '"GET /passed' in wait_for_line(log, f" 200 {3 * MIB} ")


def test_slow_clients_get_the_same_and_keep_nobody_waiting(
    host: HostProcess, content: bytes
) -> None:
    with ExitStack() as stack:
        stopped = [stack.enter_context(slow(host)) for _ in range(20)]  # more than threads
        for wire in stopped:
            wire.send(get(0, SIZE) + b"GET /user HTTP/1.1\r\nHost: t\r\n\r\n")
            wire.read_until(b"\r\n\r\n")
        with host.connect() as another:
            another.send(get(0, SIZE))
            assert another.answer().body == content
    with slow(host) as wire:
        wire.send(get(0, SIZE) + b"GET /user HTTP/1.1\r\nHost: t\r\n\r\n")
        assert wire.answer().body == content
        assert wire.answer().body == b"hello\n"


@pytest.mark.parametrize("cut", ["end", "error"])
def test_what_cannot_be_read_to_its_end_never_becomes_a_whole_answer(
    host: HostProcess, cut: str
) -> None:
    with slow(host) as wire:
        wire.send(get(0, SIZE, cut=f",cut={cut}"))
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.answer()
    host.wait_for("early" if cut == "end" else "the place is gone")
    with host.connect() as another:
        assert another.request("GET", "/echo").status == 200


def test_a_client_that_takes_nothing_is_given_up(host: HostProcess, log: Path) -> None:
    with slow(host) as wire:
        wire.send(get(0, SIZE).replace(b"/passed", b"/lazy/passed"))
        wire.read_until(b"\r\n\r\n")
        wait_for_line(log, "/lazy/passed")
        assert len(wire.rest()) < SIZE


def test_a_client_that_leaves_takes_nothing_with_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with hosting(file, tmp_path / "log") as host:
        for _ in range(4):
            with slow(host) as leaving:
                leaving.send(get(0, SIZE))
                leaving.read_until(b"\r\n\r\n")
        with host.connect() as wire:
            assert wire.request("GET", "/echo").status == 200
        host.signal(signal.SIGTERM)
        assert host.wait() == 0
        assert not [line for line in host.lines if "Traceback" in line]
