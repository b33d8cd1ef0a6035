"""How a server is reached: URLs, options, ssh's settings, keys and passwords."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore.sftp.places import HOST, SECRET, place, refused, settings, works
from tests.servers.process import ServerProcess
from tests.servers.sshd import Sshd

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
)

pytestmark = pytest.mark.root("sshd")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "home").mkdir()
    start = f"ForceCommand internal-sftp -d {folder}/home"
    with Sshd(folder, password=SECRET, settings=[start]) as sshd:
        yield sshd


# -- URLs


def test_relative_paths_begin_at_the_logins_folder(sshd: Sshd, served: Path) -> None:
    config = str(settings(sshd, "urls"))
    relative = open_place(f"sftp://{HOST}/relative/place%20%25", ssh_config=config)
    relative.create()
    works(relative)
    assert (sshd.folder / "home/relative/place %/folder/item").read_bytes() == b"value"
    works(open_place(f"sftp://{sshd.user}@{HOST}:{sshd.port}/{served}", ssh_config=config))
    assert (served / "folder/item").read_bytes() == b"value"
    relative.destroy()
    assert os.listdir(sshd.folder / "home/relative") == []


def test_a_folder_that_is_missing_or_none(sshd: Sshd, served: Path) -> None:
    with pytest.raises(BackendDoesNotExist, match="does not exist"):
        place(sshd, served / "missing").open()
    (served / "file").touch()
    with pytest.raises(BackendDoesNotExist, match="not a folder"):
        place(sshd, served / "file").open()


@pytest.mark.parametrize(
    "url",
    [
        "sftp:",
        "sftp://",
        "sftp://host",
        "sftp://host/",
        "sftp:///path",
        "sftp://host:0/path",
        "sftp://host:99999/path",
        "sftp://-oProxyCommand=x/path",
        "sftp://a@b@host/path",
        "sftp://host/path?query",
        f"sftp://user:{SECRET}@host:port/path",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(BackendURLInvalid) as caught:
        open_place(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("timeout", "soon"),
        ("connections", 0),
        ("sessions", True),
        ("agent", "perhaps"),
        ("password", 7),
        ("key_file", 7),
        ("ssh_config", "/no/such/file"),
        ("durability", "some"),
        ("file_mode", 0o060),
    ],
)
def test_options_that_cannot_be(option: str, value: Any) -> None:
    with pytest.raises(BackendURLInvalid, match=option):
        open_place("sftp://host/path", **{option: value})


# -- keys and passwords


def test_a_key_that_is_not_let_in(sshd: Sshd, served: Path) -> None:
    other = sshd.folder / "other-host"
    said = refused(place(sshd, served, key_file=str(other)))
    assert str(other) in said
    assert "publickey" in said
    assert repr(sshd.user) in said


def test_a_key_with_a_passphrase(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes((sshd.folder / "client").read_bytes())
    locked.chmod(0o600)
    change = ["ssh-keygen", "-qpf", str(locked), "-P", "", "-N", SECRET]
    subprocess.run(change, check=True, capture_output=True)
    works(place(sshd, served, key_file=str(locked), passphrase=SECRET))
    assert "passphrase" in refused(place(sshd, served, key_file=str(locked)))
    said = refused(place(sshd, served, key_file=str(locked), passphrase=SECRET + "x"))
    assert "does not open with that passphrase" in said
    assert "does not exist" in refused(place(sshd, served, key_file=str(tmp_path / "missing")))
    (tmp_path / "none").write_text("no key\n")
    assert "no private key" in refused(place(sshd, served, key_file=str(tmp_path / "none")))


def test_a_password(sshd: Sshd, served: Path) -> None:
    config = settings(sshd, "password", "IdentityFile none")
    works(place(sshd, served, ssh_config=config, password=SECRET))
    with_it = f"sftp://{sshd.user}:{SECRET}@{HOST}/{served}"
    works(open_place(with_it, ssh_config=str(config)))
    wrong = place(sshd, served, ssh_config=config, password=SECRET + "x")
    assert "by the password" in refused(wrong)
    assert "no key and no password" in refused(place(sshd, served, ssh_config=config))


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    path = folder / "agent"
    command = ["ssh-agent", "-D", "-a", str(path)]
    with ServerProcess(command, ready="SSH_AUTH_SOCK"):
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", key],
                env={**os.environ, "SSH_AUTH_SOCK": str(path)},
                check=True,
                capture_output=True,
            )
        yield path


def test_the_agents_keys(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    client, other = sshd.folder / "client", sshd.folder / "other-host"
    with agent(tmp_path, other, client) as path:
        lines = [f"IdentityAgent {path}", "IdentityFile none", "IdentitiesOnly no"]
        any_key = settings(sshd, "agent", *lines)
        works(place(sshd, served, ssh_config=any_key))
        assert "no key" in refused(place(sshd, served, ssh_config=any_key, agent=False))
        # One that lies beside its public half need not be readable: the agent signs.
        public = tmp_path / "mine.pub"
        public.write_bytes((sshd.folder / "client.pub").read_bytes())
        lines = [f"IdentityAgent {path}", f"IdentityFile {tmp_path}/mine"]
        only = sshd.folder / "only"
        block = sshd.config(HOST, *lines)
        only.write_text(block)
        works(place(sshd, served, ssh_config=only))
    said = refused(place(sshd, served, ssh_config=any_key))
    assert str(path) in said, "an agent that is gone is told"


# -- settings


def test_include_and_match(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text(sshd.config(HOST))
    main = tmp_path / "config"
    main.write_text(f"Include {tmp_path}/*.conf\nMatch host other\nPort 1\nHost *\nUser nobody\n")
    works(place(sshd, served, ssh_config=main))
    (tmp_path / "more.conf").write_text(f"Include {tmp_path}/config\n")
    assert "circle" in refused(place(sshd, served, ssh_config=main), BackendError)


def test_a_server_that_is_away(sshd: Sshd, served: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        config = str(settings(sshd, "away"))
        backend = open_place(f"sftp://{HOST}:{port}/{served}", ssh_config=config)
        said = refused(backend, BackendConnectionError)
    assert f"127.0.0.1:{port}" in said
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"sftp://{HOST}:{port}/{served}"
        started = time.monotonic()
        refused(open_place(url, ssh_config=config, connect_timeout=0.5), BackendConnectionError)
        assert time.monotonic() - started < 5


@contextmanager
def breaking_off(port: int, after: int, *, silently: bool = False) -> Iterator[int]:
    """Pass one connection on to a port of this machine, and end it after so many bytes of the
    client's, or pass nothing more on. Yields the port to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as at_the_end:
        here = listening.getsockname()[1]

        def run() -> None:
            client, _ = listening.accept()
            listening.close()  # who comes again finds nobody
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=pump, args=(server, client, 1 << 30))
                back.start()
                pump(client, server, after)
                if silently:
                    pump(client, None, 1 << 30)
                for each in (server, client):
                    with suppress(OSError):  # it has ended by itself
                        each.shutdown(socket.SHUT_RDWR)
                back.join()

        def pump(one: socket.socket, other: socket.socket | None, most: int) -> None:
            with suppress(OSError):
                while most and (data := one.recv(min(most, 4096))):
                    if other is not None:
                        other.sendall(data)
                    most -= len(data)

        passing = threading.Thread(target=run)
        passing.start()
        at_the_end.callback(passing.join, 60)
        yield here


@pytest.mark.parametrize("ways", ["keys", "a key and a password", "a password"])
def test_a_connection_that_ends_in_mid_login_is_no_refusal(
    sshd: Sshd, served: Path, ways: str
) -> None:
    wrong, right = f"IdentityFile {sshd.folder}/other-host", f"IdentityFile {sshd.folder}/client"
    keys = {
        "keys": [wrong, f"IdentityFile {sshd.folder}/host", right],
        "a key and a password": [wrong],
        "a password": ["IdentityFile none"],
    }[ways]
    config = str(settings(sshd, "breaking", "StrictHostKeyChecking accept-new", *keys))
    password = SECRET if "password" in ways else None
    ended: list[bool] = []
    for after in range(1280, 1920, 80):
        with breaking_off(sshd.port, after) as port:
            url = f"sftp://{HOST}:{port}/{served}"
            backend = open_place(url, ssh_config=config, password=password)
            try:
                with backend:
                    pass
            except BackendConnectionError as error:
                if "in the middle of the login" in str(error):
                    ended.append(error.retryable)
    assert ended
    assert all(ended)


def test_a_server_that_falls_silent_in_mid_login_is_no_refusal(sshd: Sshd, served: Path) -> None:
    config = str(settings(sshd, "silent", "StrictHostKeyChecking accept-new"))
    said = set()
    for after in range(1300, 1700, 80):
        with breaking_off(sshd.port, after, silently=True) as port:
            url = f"sftp://{HOST}:{port}/{served}"
            backend = open_place(url, ssh_config=config, connect_timeout=0.5, timeout=0.5)
            said.add(refused(backend, BackendConnectionError).partition("fell ")[2])
    assert "silent in the middle of the login" in said


def test_more_keys_than_a_server_wants_to_see(tmp_path: Path, served: Path) -> None:
    with Sshd(tmp_path / "strict", settings=["MaxAuthTries 2"]) as strict:
        names = ("other-host", "host", "client")
        keys = [f"IdentityFile {strict.folder}/{name}" for name in names]
        said = refused(place(strict, served, ssh_config=settings(strict, "many", *keys)))
        assert "broke off after 2 keys; name the right one" in said
        works(place(strict, served, key_file=str(strict.folder / "client")))


def test_a_server_without_sftp(tmp_path: Path, served: Path) -> None:
    with Sshd(tmp_path / "bare", settings=["ForceCommand echo hello; exit 1"]) as bare:
        said = refused(place(bare, served), BackendConnectionError)
    assert "SFTP" in said


def test_a_server_with_one_session_a_connection(tmp_path: Path, served: Path) -> None:
    with Sshd(tmp_path / "narrow", settings=["MaxSessions 1"]) as narrow:
        backend = place(narrow, served, connections=3)
        with backend:
            writers = [backend.open_writer(f"item{number}") for number in range(12)]
            for number, writer in enumerate(writers):
                writer.write(bytes([number]) * 1000)
            for writer in writers:
                writer.commit()
            assert len([*backend.list("")]) == 12
