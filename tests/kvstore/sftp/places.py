"""Places on a server of the tests, as other processes can make them too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.servers.sshd import Sshd

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError, PermissionDenied
from backupgw.kvstore.conformance.subject import Factory

HOST = "box"
SECRET = "s3cret-never-shown"
"""A password or passphrase."""


def settings(sshd: Sshd, name: str, *lines: str, host_key: str | None = "host") -> Path:
    """Write a file of ssh's settings in which the server is called HOST."""
    path = sshd.folder / f"ssh_config-{name}"
    path.write_text(sshd.config(HOST, *lines, host_key=host_key))
    return path


def factory(sshd: Sshd, folder: Path, **options: Any) -> Factory:
    """Return what makes a backend of a folder on the server."""
    config = options.pop("ssh_config", None) or settings(sshd, "plain")
    return partial(open_place, f"sftp://{HOST}/{folder}", ssh_config=str(config), **options)


def place(sshd: Sshd, folder: Path, **options: Any) -> Backend:
    """Return a backend of a folder on the server, not open."""
    return factory(sshd, folder, **options)()


def through(sshd: Sshd, jumps: list[Sshd], *lines: str) -> Path:
    """Write settings in which the server is HOST, and the hosts between are jump1, jump2, …"""
    path = sshd.folder / "ssh_config-through"
    blocks = [jump.config(f"jump{number}") for number, jump in enumerate(jumps, 1)]
    path.write_text("".join([sshd.config(HOST, *lines), *blocks]))
    return path


def works(backend: Backend) -> None:
    """Open a place, and store something."""
    with backend:
        backend.store("folder/item", b"value")
        assert backend.load("folder/item") == b"value"
        assert [info.name for info in backend.list("folder")] == ["item"]


def refused(backend: Backend, error: type[BackendError] = PermissionDenied) -> str:
    """Open a place that cannot be; return what is said, which is one line without secrets."""
    with pytest.raises(error) as caught:
        backend.open()
    said = str(caught.value)
    assert "\n" not in said
    assert SECRET not in said
    assert SECRET not in repr(backend)
    assert not caught.value.retryable or error is BackendConnectionError
    return said
