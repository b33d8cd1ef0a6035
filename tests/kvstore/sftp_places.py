"""Places on a server of the tests, as other processes can make them too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.servers.sshd import Sshd

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.conformance.subject import Factory

HOST = "box"


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
