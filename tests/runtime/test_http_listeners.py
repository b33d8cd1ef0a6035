"""Addresses: what may be written, what is listened on, and what is said when it cannot be."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backupgw.runtime.http.errors import HostError
from backupgw.runtime.http.listeners import (
    Tcp,
    Unix,
    activated_sockets,
    open_listeners,
    parse_address,
)
from tests.runtime.http_process import ROOT, HostProcess, Wire
from tests.servers.child import Child

LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="demo:demo")
os.set_inheritable(3, True); os.set_inheritable(4, True)
os.execv(sys.executable, [sys.executable, "-m", "tests.runtime.http_app", sys.argv[3]])
"""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Tcp("127.0.0.1", 8000)),
        (":8000", Tcp("", 8000)),
        ("[::1]:0", Tcp("::1", 0)),
        ("localhost:65535", Tcp("localhost", 65535)),
        ("unix:/run/x.sock", Unix("/run/x.sock")),
    ],
)
def test_forms_of_an_address(text: str, address: Tcp | Unix) -> None:
    assert parse_address(text) == address


def test_a_path_too_long_for_a_unix_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        parse_address("unix:/" + "x" * 107)


@pytest.mark.parametrize(
    "text",
    ["", "8000", "host", "host:", "host:x", "host:65536", "host:-1", "::1:8000", "host:²", "unix:"],
)
def test_a_bad_address_is_named_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_address(text)


def test_a_port_in_use_is_one_line_and_exit_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host = HostProcess({"listen": f"127.0.0.1:{port}"})
        assert host.wait() == 1
        host.stop()
    assert len(host.lines) == 1
    assert f"127.0.0.1:{port}" in host.lines[0]
    assert "in use" in host.lines[0]


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(HostError, match=r"192\.0\.2\.1:1.*does not have"):
        open_listeners(["192.0.2.1:1"], 0o600)


def test_an_error_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(HostError):
        open_listeners([f"unix:{path}", "192.0.2.1:1"], 0o600)
    assert not path.exists()


def test_every_address_takes_both_families() -> None:
    with HostProcess({"listen": ":0"}) as host:
        assert host.addresses[0].startswith("[::]:")
        with host.connect() as wire:
            assert wire.request("GET", "/echo").json()["client"][0] == "127.0.0.1"
        with Wire(socket.create_connection(("::1", host.port))) as wire:
            assert wire.request("GET", "/echo").json()["client"][0] == "::1"


def test_several_addresses_are_each_announced(tmp_path: Path) -> None:
    listen = ["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s"]
    with HostProcess({"listen": listen}) as host:
        host.wait_for(f"start server on {tmp_path}/s")
        assert [address[:5] for address in host.addresses[:2]] == ["127.0", "[::1]"]


def unix_wire(path: Path) -> Wire:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Wire(sock)


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_unix_socket_has_its_mode_and_is_removed_at_the_end(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "s"
    with HostProcess({"listen": f"unix:{path}", "socket_mode": mode}) as host:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        with unix_wire(path) as wire:
            answer = wire.request("GET", "/echo").json()
            assert (answer["client"], answer["scheme"]) == (None, "http")
        assert host.stop() == 0
    assert not path.exists()


def test_a_unix_socket_is_never_open_wider_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode at the moment of bind(2), before anything could narrow it."""
    path = tmp_path / "s"
    modes = []
    listen = socket.socket.listen

    def spy(sock: socket.socket, backlog: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        listen(sock, backlog)

    def no_chmod(*_: object, **__: object) -> None:
        raise AssertionError("a mode that is set later was wrong before")

    monkeypatch.setattr(socket.socket, "listen", spy)
    monkeypatch.setattr(os, "chmod", no_chmod)
    before = os.umask(0)
    try:
        (listener,) = open_listeners([f"unix:{path}"], 0o600)
    finally:
        os.umask(before)
    listener.close()
    assert modes == [0o600]


def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with HostProcess({"listen": f"unix:{path}"}), unix_wire(path) as wire:
        assert wire.request("GET", "/echo").status == 200


def test_the_socket_of_a_living_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with HostProcess({"listen": f"unix:{path}"}):
        second = HostProcess({"listen": f"unix:{path}"})
        assert second.wait() == 1
        second.stop()
        assert "another program is listening there" in second.lines[0]
        with unix_wire(path) as wire:
            assert wire.request("GET", "/echo").status == 200


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(HostError, match="no socket"):
        open_listeners([f"unix:{path}"], 0o600)
    assert path.read_text() == "precious"


def test_a_socket_that_another_server_took_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (ours,) = open_listeners([f"unix:{path}"], 0o600)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        ours.close()
        assert path.exists()


def test_sockets_from_systemd_take_precedence_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        for sock in (tcp, unix):
            sock.set_inheritable(True)
        options = '{"options": {"listen": "127.0.0.1:1"}}'
        process = Child(
            [sys.executable, "-c", LAUNCH, str(tcp.fileno()), str(unix.fileno()), options],
            cwd=ROOT,
            pass_fds=(tcp.fileno(), unix.fileno()),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        with process, process.stderr:
            assert process.stderr.readline() == f"start server on 127.0.0.1:{port}\n"
            assert process.stderr.readline() == f"start server on {path}\n"
            with Wire(socket.create_connection(("127.0.0.1", port))) as wire:
                assert wire.request("GET", "/echo").status == 200
            with unix_wire(path) as wire:
                assert wire.request("GET", "/echo").status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert path.exists()


def test_sockets_meant_for_another_process_are_not_taken() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "OTHER": "x"}
    assert activated_sockets(environ) == []
    assert environ == {"OTHER": "x"}
