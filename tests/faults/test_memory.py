"""Neither large uploads nor large repositories need much memory in a worker."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.memory import peak, reset_peak
from tests.faults.protocol import V2, Client
from tests.faults.server_process import Running, flawed, gateway, running
from tests.faults.visible import hash_of

LIMIT = 120 << 20
"""Bytes that a worker may have resident at its peak."""

BLOBS = 1_000_000 if os.environ.get("BACKUPGW_SOAK") == "1" else 100_000

UPLOADS = 8
SIZE = 64 << 20
PIECE = 1 << 20

pytestmark = [pytest.mark.timeout(600)]


def pieces(number: int) -> Iterator[bytes]:
    """The body of one upload: 64 MiB that no two uploads share."""
    generator = random.Random(number)
    for _ in range(SIZE // PIECE):
        yield generator.randbytes(PIECE)


def upload(port: int, number: int) -> str:
    """Stream one body; return its name."""
    digest = hashlib.sha256()
    for piece in pieces(number):
        digest.update(piece)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    target = f"/repository/data/{digest.hexdigest()}"
    connection.request("POST", target, pieces(number), {"Content-Length": str(SIZE)})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()
    return digest.hexdigest()


def peak_of_uploads(server: Running) -> int:
    with Client(server.port) as client:
        assert client.create("repository") == 200
    reset_peak(server.pid)
    with ThreadPoolExecutor(UPLOADS) as executor:
        names = list(executor.map(lambda number: upload(server.port, number), range(UPLOADS)))
    needed = peak(server.pid)
    print(f"{UPLOADS} uploads of {SIZE >> 20} MiB: peak {needed / 2**20:.1f} MiB")
    for name in names:
        file = server.folder / "repository/data" / name[:2] / name
        assert hash_of(file) == name
    return needed


def fill(folder: Path, count: int) -> None:
    """Make a repository of `count` empty files that have blobs' names."""
    data = folder / "repository/data"
    data.mkdir(parents=True)
    generator = random.Random(count)
    folders = []
    for first in range(256):
        (data / f"{first:02x}").mkdir()
        folders.append(os.open(data / f"{first:02x}", os.O_PATH))
    for number in range(count):
        first = number % 256
        name = f"{first:02x}{generator.getrandbits(248):062x}"
        os.mknod(name, 0o600, dir_fd=folders[first])
    for descriptor in folders:
        os.close(descriptor)


def peak_of_listing(server: Running, accept: str) -> int:
    """List the repository once, counting names as they come, without keeping them."""
    reset_peak(server.pid)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    connection.request("GET", "/repository/data/", headers={"Accept": accept})
    answer = connection.getresponse()
    assert answer.status == 200
    quotes = last = 0
    while piece := answer.read(1 << 20):
        quotes += piece.count(b'"')
        last = piece[-1]
    connection.close()
    assert last == ord("]")
    # Version 1 is "NAME"; version 2 is {"name":"NAME","size":0}.
    assert quotes == BLOBS * (6 if accept == V2 else 2)
    needed = peak(server.pid)
    print(f"a listing of {BLOBS} blobs: peak {needed / 2**20:.1f} MiB")
    return needed


def test_parallel_uploads(tmp_path: Path) -> None:
    with running(gateway(), tmp_path) as server:
        assert peak_of_uploads(server) < LIMIT


def test_listings(tmp_path: Path) -> None:
    fill(tmp_path, BLOBS)
    with running(gateway(), tmp_path) as server:
        assert peak_of_listing(server, V2) < LIMIT
        assert peak_of_listing(server, "*/*") < LIMIT


def test_a_server_that_holds_bodies_is_seen(tmp_path: Path) -> None:
    """The control: with whole bodies in memory, the measured peak passes the limit."""
    with running(flawed("whole-body"), tmp_path) as server:
        assert peak_of_uploads(server) > LIMIT
