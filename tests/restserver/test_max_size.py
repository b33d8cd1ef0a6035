"""--max-size: exact among workers, given back, counted at start; what a client sees of it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.servers.gateway import Gateway

KIB = 1 << 10


def limited(folder: Path, limit: int, *flags: str) -> Gateway:
    return Gateway(folder, flags=["--max-size", str(limit), *flags])


def call(server: Gateway, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def save(server: Gateway, size: int, kind: str = "data") -> tuple[int, str, str]:
    content = os.urandom(size)
    path = f"/repo/{kind}/{hashlib.sha256(content).hexdigest()}"
    return (*call(server, "POST", path, content), path)


def stored(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if ".backupgw-ledger" not in path.parts)
    return sum(path.stat().st_size for path in files if path.is_file())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_parallel_uploads_never_pass_the_limit(tmp_path: Path, workers: str) -> None:
    limit, size = 1000 * KIB, 90 * KIB
    with limited(tmp_path / "data", limit, "--workers", workers) as server:
        statuses: Counter[int] = Counter()

        def upload() -> None:
            statuses[save(server, size)[0]] += 1

        threads = [threading.Thread(target=upload) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == {200: limit // size, 507: 32 - limit // size}
        assert stored(tmp_path / "data") == limit // size * size


def test_a_refusal_names_the_limit_and_locks_pass(tmp_path: Path) -> None:
    with limited(tmp_path / "data", 100 * KIB) as server:
        assert save(server, 90 * KIB)[0] == 200
        status, text, _ = save(server, 20 * KIB)
        assert status == 507
        assert "server: the limit of 102400 bytes" in text
        assert save(server, 20 * KIB, "locks")[0] == 200
        assert stored(tmp_path / "data") == 110 * KIB


def test_what_is_deleted_can_be_used_again(tmp_path: Path) -> None:
    with limited(tmp_path / "data", 100 * KIB) as server:
        _, _, path = save(server, 90 * KIB)
        assert save(server, 90 * KIB)[0] == 507
        assert call(server, "DELETE", path)[0] == 200
        assert save(server, 90 * KIB)[0] == 200


def test_what_is_there_at_start_counts_whoever_wrote_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with limited(folder, 100 * KIB) as server:
        assert save(server, 50 * KIB)[0] == 200
    foreign = os.urandom(40 * KIB)
    name = hashlib.sha256(foreign).hexdigest()
    target = folder / "repo" / "data" / name[:2]
    target.mkdir(exist_ok=True)
    (target / name).write_bytes(foreign)
    with limited(folder, 100 * KIB) as server:
        assert save(server, 20 * KIB)[0] == 507
        assert save(server, 10 * KIB)[0] == 200


def test_the_accounts_cannot_be_reached(tmp_path: Path) -> None:
    with limited(tmp_path / "data", 100 * KIB) as server:
        assert (tmp_path / "data" / ".backupgw-ledger").is_dir()
        for path in ("/.backupgw-ledger/config", "/.backupgw-ledger/data/", "/.backupgw-ledger/"):
            assert call(server, "GET", path)[0] == 404
            assert call(server, "POST", f"{path}?create=true")[0] == 404


def test_a_damaged_object_is_replaced_under_a_limit_too(tmp_path: Path) -> None:
    content = b"value"
    name = hashlib.sha256(content).hexdigest()
    with limited(tmp_path / "data", 1000 * KIB) as server:
        assert call(server, "POST", f"/repo/data/{name}", content)[0] == 200
        (tmp_path / "data/repo/data" / name[:2] / name).write_bytes(b"vaXue")
        status, text = call(server, "POST", f"/repo/data/{name}", content)
        assert (status, text) == (200, "")
        assert call(server, "GET", f"/repo/data/{name}") == (200, "value")
