"""Servers that are reached through other hosts, or through a command."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tests.kvstore.sftp.places import HOST, place, refused, settings, through, works
from tests.servers.sshd import Sshd

from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError
from backupgw.kvstore.backends.sftp_known_hosts import HostKeyRefused

pytestmark = pytest.mark.root("sshd")


def test_through_two_hosts(sshd: Sshd, jumps: list[Sshd], served: Path) -> None:
    config = through(sshd, jumps, "ProxyJump jump1,jump2")
    backend = place(sshd, served, ssh_config=config)
    with backend:
        assert all(jump.sessions for jump in jumps)
        backend.store("item", os.urandom(3 << 20))
        assert len(backend.load("item")) == 3 << 20
    second = sshd.folder / "ssh_config-second"
    text = config.read_text().replace("jump1,jump2", "jump2")
    second.write_text(text + "Host jump2\nProxyJump jump1\n")
    works(place(sshd, served, ssh_config=second))


def test_a_host_between_that_is_not_known_or_does_not_reach(
    sshd: Sshd, jumps: list[Sshd], served: Path
) -> None:
    config = through(sshd, jumps, "ProxyJump jump1")
    known = jumps[0].folder / "known-host"
    before = known.read_text()
    known.write_text("")
    try:
        said = refused(place(sshd, served, ssh_config=config), HostKeyRefused)
        assert f":{jumps[0].port} is unknown" in said
    finally:
        known.write_text(before)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        text = config.read_text().replace(f"Port {sshd.port}\n", f"Port {port}\n", 1)
        config.write_text(text)
        said = refused(place(sshd, served, ssh_config=config), BackendConnectionError)
    assert f"127.0.0.1:{port} cannot be reached from the host before it" in said


def test_a_circle_of_hosts(sshd: Sshd, jumps: list[Sshd], served: Path) -> None:
    config = sshd.folder / "ssh_config-circle"
    config.write_text(
        jumps[0].config("jump1", f"ProxyJump {HOST}") + sshd.config(HOST, "ProxyJump jump1")
    )
    assert "circle" in refused(place(sshd, served, ssh_config=config), BackendError)


def test_through_a_command(sshd: Sshd, jumps: list[Sshd], served: Path) -> None:
    config = through(sshd, jumps)
    config.write_text(
        config.read_text().replace(
            f"Host {HOST}\n", f"Host {HOST}\nProxyCommand ssh -F {config} -W %h:%p jump1\n"
        )
    )
    works(place(sshd, served, ssh_config=config))
    bad = settings(sshd, "bad-command", "ProxyCommand echo nothing doing >&2; exit 3")
    said = refused(place(sshd, served, ssh_config=bad, connect_timeout=5), BackendConnectionError)
    assert "nothing doing" in said
