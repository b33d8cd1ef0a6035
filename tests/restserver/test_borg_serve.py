"""`backupgw borg serve`: users, permissions, quota, sockets and standard input, on the wire."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.servers.borg import BorgServer, FastBorgServer
from tests.servers.rest_server import htpasswd_line

from backupgw.kvstore.backends.errors import (
    ObjectExists,
    PermissionDenied,
    QuotaExceeded,
)
from backupgw.kvstore.registry import open_place

HEADERS = {"Accept": "application/vnd.x.borgstore.rest.v1"}
BACKUPGW = str(Path(sys.executable).parent / "backupgw")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BorgServer]:
    with BorgServer(tmp_path / "store") as running:
        with closing(connect(running)) as connection:
            assert ask(connection, "POST", "/?cmd=create")[0] == 200
        yield running


def connect(server: BorgServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, bytes]:
    sent = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, target, body=body, headers=sent)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_refused_body_leaves_the_connection_usable(server: BorgServer) -> None:
    with closing(connect(server)) as connection:
        first = connection.sock
        assert ask(connection, "POST", "/?cmd=nonsense", b"x" * 200_000)[0] == 400
        assert ask(connection, "POST", "/a/../b", b"y" * 200_000)[0] == 400
        assert ask(connection, "POST", "/locks/one", b"value")[0] == 200
        assert ask(connection, "GET", "/locks/one") == (200, b"value")
        assert first is None or connection.sock is first


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status"),
    [
        ("GET", "/locks/none", None, {}, 404),
        ("GET", "/none/", None, {}, 404),
        ("GET", "/", None, {"Accept": "*/*"}, 406),
        ("PUT", "/locks/one", b"x", {}, 405),
        ("POST", "/", b"x", {}, 400),
        ("DELETE", "/", None, {}, 400),
        ("POST", "/?cmd=create", None, {}, 409),
        ("POST", "/locks/one", b"x", {"X_Content_hash_sha256": "0" * 64}, 422),
        ("POST", "/?cmd=gather", b"[[", {}, 400),
        ("POST", "/?cmd=gather", bytes((8 << 20) + 1), {}, 413),
        ("POST", "/?cmd=gather", b'[["a", 0]]', {}, 400),
        ("POST", "/?cmd=gather", b'[["../a", 0, 1]]', {}, 400),
        ("POST", "/?cmd=gather", b"[" * 100_000, {}, 400),
        ("POST", "/?cmd=gather", b'[["locks/none", 0, 1]]', {}, 404),
        ("POST", "/?cmd=gather", b'[["locks/none", 0, 99999999]]', {}, 404),
        ("POST", "/?cmd=defrag", b"[]", {}, 400),
        ("POST", "/?cmd=defrag&algorithm=md6", b"[]", {}, 400),
        ("POST", "/?cmd=defrag&algorithm=sha256&levels=-1", b"[]", {}, 400),
        ("POST", "/?cmd=defrag&target=..%2fx", b"[]", {}, 400),
        ("POST", "/?cmd=move&current=a", None, {}, 400),
        ("POST", "/?cmd=move&current=a&new=..%2fb", None, {}, 400),
        ("POST", "/?cmd=move&current=locks/none&new=b", None, {}, 404),
        ("POST", "/locks/none?cmd=hash", None, {}, 404),
        ("POST", "/locks/none?cmd=hash&algorithm=rot13", None, {}, 400),
        ("GET", "/.backupgw-ledger/x", None, {}, 400),
        ("GET", "/%ff", None, {}, 400),
        ("GET", "/a%00b", None, {}, 400),
        ("POST", "/..%2f..%2fescape", b"x", {}, 400),
        ("DELETE", "/none?cmd=rmdir", None, {}, 404),
    ],
)
def test_bad_requests_get_the_documented_status(
    server: BorgServer,
    method: str,
    target: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
) -> None:
    with closing(connect(server)) as connection:
        assert ask(connection, "POST", "/locks/there", b"x")[0] == 200
        assert ask(connection, method, target, body, **headers)[0] == status
        assert ask(connection, "GET", "/")[0] == 200
    assert sorted(p.name for p in server.folder.parent.iterdir()) == ["store"]


def test_what_needs_no_waiting_is_answered_as_anything_else_is(tmp_path: Path) -> None:
    """Small values where nothing is synced are written without a thread."""
    value, other = b"value" * 100, b"other"
    digest = hashlib.sha256(value).hexdigest()
    users = tmp_path / "htpasswd"
    users.write_text(htpasswd_line("alice", "secret"))
    login = "Basic " + base64.b64encode(b"alice:secret").decode()
    with (
        FastBorgServer(tmp_path / "store", "--htpasswd-file", str(users)) as server,
        closing(connect(server)) as connection,
    ):

        def send(target: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
            return ask(connection, "POST", target, body, Authorization=login, **headers)

        assert send("/?cmd=create")[0] == 200
        assert send("/data/a", value)[0] == 200  # it has no folder yet
        assert send("/data/b", value, X_Content_hash_sha256=digest) == (200, b"")
        assert ask(connection, "GET", "/data/b", None, Authorization=login) == (200, value)
        assert send("/data/b", other, X_Content_hash_sha256=digest)[0] == 422
        assert send("/data/c", other, X_Content_hash_sha256=digest)[0] == 422
        assert send("/data/b", other, If_None_Match="*")[0] == 409
        assert send("/data/c", other, If_None_Match="*")[0] == 200
        assert send("/data/../d", other)[0] == 400
        assert send("/data", other)[0] >= 400
        assert send("/data/d", other, Accept="*/*")[0] == 406
        assert ask(connection, "POST", "/data/d", other)[0] == 401
        assert ask(connection, "GET", "/data/b", None, Authorization=login) == (200, value)
        assert send("/data/b", other)[0] == 200  # and now it is replaced
        assert ask(connection, "GET", "/data/b", None, Authorization=login) == (200, other)
        listed = json.loads(ask(connection, "GET", "/data/", None, Authorization=login)[1])
        assert sorted(entry["name"] for entry in listed) == ["a", "b", "c"]
        assert ask(connection, "DELETE", "/?cmd=destroy", None, Authorization=login)[0] == 200
        assert send("/data/b", value)[0] == 410


def test_names_that_differ_stay_apart(server: BorgServer) -> None:
    """borgstore's own pair keeps a?b and a#b under one name."""
    names = ["x/a?b", "x/a#b", "x/a%3fb", "x/a b", "x/a+b", "x/ü", "x/a&b=c"]
    with open_place(server.url) as place:
        for name in names:
            place.store(name, name.encode())
        assert {name: place.load(name).decode() for name in names} == {n: n for n in names}
        assert {f"x/{info.name}" for info in place.list("x")} == set(names)
        place.move("x/a?b", "x/c?d")
        assert place.load("x/c?d") == b"x/a?b"


def test_of_many_creators_one_wins(server: BorgServer) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []
    with open_place(server.url) as place:
        assert place.capabilities.atomic_create

        def create(number: int) -> None:
            writer = place.open_writer("x/one", if_absent=True)
            writer.write(b"%d" % number)
            barrier.wait()
            try:
                writer.commit()
            except ObjectExists:
                writer.abort()
            else:
                won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert place.load("x/one") == b"%d" % won[0]


def test_an_upload_that_breaks_off_leaves_nothing(server: BorgServer) -> None:
    head = "POST /x/one HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\nAccept: {}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head.format(HEADERS["Accept"]).encode() + b"part of it")
        sock.shutdown(socket.SHUT_WR)
        assert b"400" in sock.recv(1000)
    with closing(connect(server)) as connection:
        assert ask(connection, "GET", "/x/one")[0] == 404
    assert list(server.folder.iterdir()) == []


def test_users_need_their_password(tmp_path: Path) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(htpasswd_line("alice", "pass:word"))
    with BorgServer(tmp_path / "store", "--htpasswd-file", str(users)) as running:
        host = f"127.0.0.1:{running.port}"
        place = open_place(f"http://alice:pass%3Aword@{host}/")
        place.create()
        with place:
            place.store("x", b"1")
        with pytest.raises(PermissionDenied, match="wrong password"):
            open_place(f"http://alice:wrong@{host}/").open()
        with closing(connect(running)) as connection:
            assert ask(connection, "GET", "/x")[0] == 401
            assert ask(connection, "DELETE", "/?cmd=destroy")[0] == 401
    assert (tmp_path / "store" / "x").read_bytes() == b"1"


def test_one_user_by_name_and_password(tmp_path: Path) -> None:
    flags = ["--username", "bob", "--password", "hunter2"]
    with BorgServer(tmp_path / "store", *flags) as running, closing(connect(running)) as c:
        right = base64.b64encode(b"bob:hunter2").decode()
        wrong = base64.b64encode(b"bob:hunter3").decode()
        assert ask(c, "POST", "/?cmd=create")[0] == 401
        assert ask(c, "POST", "/?cmd=create", Authorization=f"Basic {wrong}")[0] == 401
        assert ask(c, "POST", "/?cmd=create", Authorization=f"Basic {right}")[0] == 200
        assert "hunter2" not in running.process.output


def test_permissions_hold_for_clients(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with (
        BorgServer(store, "--permissions", "borgbackup-no-delete") as running,
        open_place(running.url) as place,
    ):
        place.store("archives/a", b"1")
        with pytest.raises(PermissionDenied):
            place.delete("archives/a")
        with pytest.raises(PermissionDenied):
            place.store("archives/a", b"2")
        with pytest.raises(PermissionDenied):
            place.move("archives/a", "locks/a")
        place.store("locks/l", b"")
        place.delete("locks/l")
        assert place.load("archives/a") == b"1"
    with BorgServer(store, "--permissions", "borgbackup-read-only") as running:
        with pytest.raises(PermissionDenied):
            open_place(running.url).destroy()
        with open_place(running.url) as place, pytest.raises(PermissionDenied):
            place.store("archives/b", b"2")
    assert (store / "archives" / "a").read_bytes() == b"1"


def test_write_only_clients_read_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    rules = '{"": "l", "data": "lw"}'
    with (
        BorgServer(store, "--permissions", rules) as running,
        open_place(running.url) as place,
    ):
        place.store("data/a", b"secret")
        for attempt in (
            lambda: place.load("data/a"),
            lambda: place.hash("data/a"),
            lambda: place.gather([("data/a", 0, 1)]),
            lambda: place.defrag([("data/a", 0, 1)], "data/b"),
        ):
            with pytest.raises(PermissionDenied):
                attempt()


def test_the_quota_is_exact_under_concurrent_stores(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with BorgServer(tmp_path / "store", "--quota", "1000000") as running:
        outcomes: list[bool] = []
        with open_place(running.url) as place:

            def store(number: int) -> None:
                try:
                    place.store(f"data/{number}", bytes(90_000))
                except QuotaExceeded:
                    outcomes.append(False)
                else:
                    outcomes.append(True)

            threads = [threading.Thread(target=store, args=(number,)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert outcomes.count(True) == 11
            quota = place.quota()
            assert (quota.limit, quota.usage) == (1_000_000, 990_000)
            place.store("locks/one", b"a lock always gets through" * 1000)
            place.delete(next(f"data/{i.name}" for i in place.list("data")))
            assert place.quota().usage == 900_000
            place.store("data/again", bytes(90_000))
    sizes = [p.stat().st_size for p in (tmp_path / "store/data").iterdir()]
    assert sum(sizes) == 990_000


def test_a_quota_holds_after_a_restart(tmp_path: Path) -> None:
    flags = ("--quota", "1000")
    with BorgServer(tmp_path / "store", *flags) as running:
        place = open_place(running.url)
        place.create()
        with place:
            place.store("data/1", bytes(900))
    with BorgServer(tmp_path / "store", *flags) as running, open_place(running.url) as place:
        with pytest.raises(QuotaExceeded):
            place.store("data/2", bytes(200))
        assert [info.name for info in place.list("")] == ["data"]


def test_a_unix_socket(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bg-") as short,
        BorgServer(tmp_path / "store", "--listen", f"unix:{short}/s"),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.connect(f"{short}/s")
        sock.sendall(
            b"POST /?cmd=create HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
            b"Connection: close\r\nAccept: " + HEADERS["Accept"].encode() + b"\r\n\r\n"
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert (tmp_path / "store").is_dir()


def test_pipes_as_ssh_gives_them(tmp_path: Path) -> None:
    """One request after the other on standard input; the server ends when it ends."""
    accept = HEADERS["Accept"]
    requests = "".join(
        f"{line} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
        for line, body in [
            ("POST /?cmd=create", ""),
            ("POST /locks/one", "value"),
            ("GET /locks/one", ""),
            ("POST /?cmd=quota", ""),
        ]
    )
    done = subprocess.run(
        [BACKUPGW, "borg", "serve", "--stdio", "--backend", "FILE:store"],
        input=requests.encode(),
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"HTTP/1.1 200 OK") == 4
    assert b"\r\n\r\nvalueHTTP" in done.stdout
    assert json.loads(done.stdout.rpartition(b"\r\n\r\n")[2]).keys() == {"limit", "usage"}
    assert (tmp_path / "store/locks/one").read_bytes() == b"value"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--listen", "0.0.0.0:0"], "no users"),
        (["--username", "bob"], "belong together"),
        (["--permissions", "borgbackup-some"], "borgbackup-all"),
        (["--permissions", '{"": "xyz"}'], "letters"),
        (["--quota", "-1"], "quota"),
        (["--port", "1", "--listen", "127.0.0.1:0"], "either --listen"),
        (["--port", "99999"], "is no port"),
        (["--socket-activation"], "systemd"),
    ],
)
def test_mistakes_are_told_before_anything_listens(
    tmp_path: Path, flags: list[str], says: str
) -> None:
    done = subprocess.run(
        [BACKUPGW, "borg", "serve", "--path", str(tmp_path / "store"), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert done.returncode != 0
    assert says in done.stderr
    assert "internal error" not in done.stderr


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = subprocess.run(
        [BACKUPGW, "borg", "serve", "--path", str(tmp_path / "file"), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stderr == f"--backend: places.backend.url: {tmp_path}/file is not a folder\n"
