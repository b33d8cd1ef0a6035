"""What pyrestserver 0.1.1 got wrong, on a backend that is named and served as its documents say.

What belongs to Drime alone is in `tests/kvstore/drime` (two folders of one name, one page
of a listing, a 429 that becomes a 404), to its files in `tests/runtime/test_named_places.py`
(settings that swap contents).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.gateway import Gateway
from tests.servers.process import ServerProcess
from tests.servers.wire import Connection

PACK = b"a pack" * 1000
NAME = hashlib.sha256(PACK).hexdigest()


def environment(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of the backend `mylocal`."""
    folder = tmp_path / "srv"
    add = [Gateway.program()[0], "config", "add", "mylocal", "--type", "local"]
    subprocess.run(
        [*add, "--path", str(folder)],
        env={**os.environ, **environment(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    return folder


@contextlib.contextmanager
def served(tmp_path: Path, *flags: str) -> Iterator[str]:
    command = [*Gateway.program(), "--backend-config", "mylocal", "--listen", "127.0.0.1:0"]
    with ServerProcess(
        [*command, *flags],
        ready=r"start server on (\S+)",
        environment=environment(tmp_path),
        directory=tmp_path,
    ) as server:
        yield server.match[1]


def test_paths_that_lead_out_and_the_root(base: Path, tmp_path: Path) -> None:
    with served(tmp_path, "--no-auth") as address:
        with httpx.Client(base_url=f"http://{address}") as client:
            assert client.post("/laptop/?create=true").status_code == 200
            assert client.post("/laptop/config", content=b"config").status_code == 200
        secret = tmp_path / "config-of-others"
        secret.write_bytes(b"secret")
        host, _, port = address.partition(":")
        for path in (
            "/../config-of-others",
            "/laptop/../../config-of-others",
            "/..%2Fconfig-of-others",
            "/laptop/keys/..%2F..%2F..%2Fconfig-of-others",
            "/%2e%2e/config-of-others",
            "/%252e%252e/config-of-others",
        ):
            with contextlib.closing(Connection((host, int(port)))) as connection:
                connection.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                answer = connection.receive("GET")
            assert answer is not None
            assert answer.status in (400, 403, 404), path
            assert b"secret" not in answer.body
        with contextlib.closing(Connection((host, int(port)))) as connection:
            connection.send(b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.receive("DELETE")
        assert answer is not None
        assert answer.status >= 400
    assert (base / "laptop" / "config").read_bytes() == b"config"


def test_no_password_file_is_no_open_door(base: Path, tmp_path: Path) -> None:
    """Where others than this machine could come in."""
    done = subprocess.run(
        [*Gateway.program(), "--backend-config", "mylocal", "--listen", "0.0.0.0:0"],
        env={**os.environ, **environment(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert f"{base}/.htpasswd" in done.stderr


def test_append_only_keeps_what_is_there_and_lets_restic_work(base: Path, tmp_path: Path) -> None:
    with (
        served(tmp_path, "--no-auth", "--append-only") as address,
        httpx.Client(base_url=f"http://{address}/laptop") as client,
    ):
        assert client.post("/?create=true").status_code == 200
        assert client.post("/config", content=b"config").status_code == 200
        for kind, status in (("locks", 200), ("data", 403)):
            assert client.post(f"/{kind}/{NAME}", content=PACK).status_code == 200
            assert client.delete(f"/{kind}/{NAME}").status_code == status
    assert (base / "laptop" / "data" / NAME[:2] / NAME).read_bytes() == PACK
    assert (base / "laptop").stat().st_mode & 0o777 == 0o700
    assert (base / "laptop" / "config").stat().st_mode & 0o777 == 0o600


def test_bodies_are_stored_whole_or_not_at_all(base: Path, tmp_path: Path) -> None:
    with served(tmp_path, "--no-auth") as address:
        host, _, port = address.partition(":")
        with httpx.Client(base_url=f"http://{address}/laptop") as client:
            assert client.post("/?create=true").status_code == 200
            with contextlib.closing(Connection((host, int(port)))) as connection:
                head = f"POST /laptop/data/{NAME} HTTP/1.1\r\nHost: x\r\n"
                connection.send(f"{head}Content-Length: {len(PACK)}\r\n\r\n".encode() + PACK[:99])
                connection.half_close()
                answer = connection.receive("POST")
            assert answer is None or answer.status >= 400
            assert client.get(f"/data/{NAME}").status_code == 404
            chunked = client.post(f"/data/{NAME}", content=iter([PACK[:50], PACK[50:]]))
            assert chunked.status_code == 200
            assert client.get(f"/data/{NAME}").content == PACK


def test_slow_uploads_hold_nobody_up(base: Path, tmp_path: Path) -> None:
    assert not base.exists()
    with served(tmp_path, "--no-auth") as address, contextlib.ExitStack() as slow:
        host, _, port = address.partition(":")
        with httpx.Client(base_url=f"http://{address}/laptop") as client:
            assert client.post("/?create=true").status_code == 200
            for number in range(60):
                connection = slow.enter_context(contextlib.closing(Connection((host, int(port)))))
                head = f"POST /laptop/data/{number:064x} HTTP/1.1\r\nHost: x\r\n"
                connection.send(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b"some")
            start = time.monotonic()
            assert client.post(f"/data/{NAME}", content=PACK).status_code == 200
            assert client.get(f"/data/{NAME}").content == PACK
            assert time.monotonic() - start < 10
