"""`rclone serve restic`: a second server of restic's protocol, without hashes or syncs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from backupgw.kvstore import open_place
from backupgw.kvstore.conformance.subject import Factory

from . import peers
from .process import ServerProcess
from .running import Running
from .sshd import make_key


class RcloneServer(Running):
    """A server of the repositories below a folder, on a free port. A context manager."""

    def __init__(
        self, folder: Path, *, append_only: bool = False, flags: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._arguments = ["--append-only"] * append_only + list(flags)
        self._process: ServerProcess | None = None

    def start(self) -> None:
        """Run it until `stop`. Raises LookupError without rclone, process.ServerFailed."""
        program = peers.get(peers.RCLONE).path
        command = [str(program), "--config", "/dev/null", "serve", "restic", str(self.folder)]
        self._process = ServerProcess(
            [*command, "--addr", "127.0.0.1:0", *self._arguments],
            ready=r"Serving restic REST API on \[?(http://[^\]\s]+)",
        )

    def stop(self) -> None:
        """End it; idempotent."""
        if self._process is not None:
            self._process.stop()

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None, "the server was not started"
        return self._process

    @property
    def port(self) -> int:
        port = urlsplit(self.process.match[1]).port
        assert port is not None
        return port

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def repository(self, path: str = "") -> str:
        """restic's name for the repository at `path`."""
        return f"rest:http://127.0.0.1:{self.port}/{path}/" if path else f"rest:{self._root()}"

    def _root(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class RcloneSftp:
    """`rclone serve sftp`, an SFTP server that is not OpenSSH's. A context manager.

    Args:
        folder: for its keys; `served` in it is what it serves.
        flags: of rclone's.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self._flags = flags
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        program = peers.get(peers.RCLONE).path
        for key in ("host", "client"):
            make_key(self.folder / key)
        self._process = ServerProcess(
            [
                *(str(program), "--config", "/dev/null", "serve", "sftp"),
                *(str(self.folder / "served"), "--addr", "127.0.0.1:0"),
                *("--key", str(self.folder / "host")),
                *("--authorized-keys", str(self.folder / "client.pub")),
                *("--cache-dir", str(self.folder / "cache"), *self._flags),
            ],
            ready=r"SFTP server listening on (\S+)",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.stop()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        assert self._process is not None
        return int(self._process.match[1].rpartition(":")[2])

    def factory(self, path: str) -> Factory:
        """Return what makes a backend of a folder on it."""
        port = self.port
        known = self.folder / "known"
        key = (self.folder / "host.pub").read_text()
        known.write_text(f"[127.0.0.1]:{port} {key}")
        return partial(
            open_place,
            f"sftp://somebody@127.0.0.1:{port}/{path}",
            ssh_config="none",
            agent=False,
            key_file=str(self.folder / "client"),
            known_hosts=str(known),
        )
