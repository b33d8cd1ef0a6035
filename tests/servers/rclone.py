"""`rclone serve restic`: a second server of restic's protocol, without hashes or syncs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from . import peers
from .process import ServerProcess


class RcloneServer:
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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
