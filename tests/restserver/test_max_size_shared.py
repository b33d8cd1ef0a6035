"""Two gateways with one limit over one shared folder, on one PostgreSQL: never over it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from tests.servers.gateway import Gateway
from tests.servers.postgres import Postgres, postgres_programs

from backupgw.kvstore.names import is_reserved

__all__ = ["postgres_programs"]

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
KIB = 1 << 10
LIMIT = 2000 * KIB


@pytest.fixture
def database(postgres_programs: None) -> Iterator[Postgres]:
    with Postgres() as server:
        environment = {**os.environ, "BACKUPGW_STATE__DATABASE": server.socket_url()}
        program = str(Path(sys.executable).parent / "backupgw")
        subprocess.run([program, "config", "migrate"], env=environment, check=True, timeout=60)
        yield server


def gateway(folder: Path, database: Postgres) -> Gateway:
    return Gateway(
        folder,
        flags=["--max-size", str(LIMIT)],
        environment={"BACKUPGW_STATE__DATABASE": database.socket_url()},
    )


def save(server: Gateway, size: int) -> tuple[int, str]:
    """Upload a blob whose size is not announced; 0 where the connection broke."""
    content = os.urandom(size)
    path = f"/repo/data/{hashlib.sha256(content).hexdigest()}"
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        parts = (content[start : start + 8 * KIB] for start in range(0, size, 8 * KIB))
        connection.request("POST", path, parts, encode_chunked=True)
        return connection.getresponse().status, path
    except (HTTPException, OSError):
        return 0, path
    finally:
        connection.close()


def delete(server: Gateway, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("DELETE", path)
        return connection.getresponse().status
    finally:
        connection.close()


def stored(folder: Path) -> int:
    """Return the bytes of all items; what the kernel keeps for itself is none."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not any(map(is_reserved, path.relative_to(folder).parts))
    )


def used(database: Postgres) -> tuple[object, ...]:
    return database.execute(
        "SELECT used_bytes, reserved_bytes FROM ledger_scopes WHERE scope = 'path/server'"
    )[0]


def upload_all(servers: tuple[Gateway, ...], seed: int) -> tuple[Counter[int], list[str]]:
    random_ = random.Random(seed)
    sizes = [random_.randrange(1, 120 * KIB) for _ in range(64)]
    statuses: Counter[int] = Counter()
    paths: list[str] = []

    def upload(number: int) -> None:
        status, path = save(servers[number % len(servers)], sizes[number])
        statuses[status] += 1
        if status == 200:
            paths.append(path)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses, paths


@pytest.mark.timeout(3600 if SOAK else 300)
def test_two_gateways_never_pass_one_limit_and_free_what_the_other_stored(
    tmp_path: Path, database: Postgres
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with gateway(folder, database) as one, gateway(folder, database) as two:
        for seed in range(20 if SOAK else 1):
            statuses, paths = upload_all((one, two), seed)
            assert statuses.keys() == {200, 507}, "the limit was never reached: this shows nothing"
            assert stored(folder) <= LIMIT
            for number, path in enumerate(paths):
                assert delete((two, one)[number % 2], path) == 200
            assert used(database) == (stored(folder), 0)
    assert database.execute("SELECT * FROM ledger_held") == []


def test_a_restart_of_the_database_is_a_refusal_to_try_again_and_nothing_else(
    tmp_path: Path, database: Postgres
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with gateway(folder, database) as one, gateway(folder, database) as two:
        assert save(one, 90 * KIB)[0] == 200
        database.stop("immediate")
        for server in (one, two):
            assert save(server, 90 * KIB)[0] == 503
        database.start()
        for server in (one, two):
            assert save(server, 90 * KIB)[0] == 200
        stored_now = stored(folder)
        assert stored_now == 3 * 90 * KIB
    assert used(database) == (stored_now, 0)
