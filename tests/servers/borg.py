"""Servers of borgstore's protocol: ours as users start it, and borgstore 0.7's own."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .process import ServerProcess


class BorgServer:
    """A server of one store on 127.0.0.1. A context manager.

    Args:
        folder: the store's; a client creates it.
        flags: more of the server's flags.
    """

    name = "backupgw"
    ready = r"start server on (?:\S+:)?(\d+|/\S+)"

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags
        self._private: Path | None = None
        self._process: ServerProcess | None = None

    def command(self) -> Sequence[str]:
        """The command with all flags."""
        program = Path(sys.executable).parent / "backupgw"
        listen = [] if "--listen" in self.flags else ["--listen", "127.0.0.1:0"]
        return [str(program), "borg", "serve", "--path", str(self.folder), *listen, *self.flags]

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None, "the server was not started"
        return self._process

    @property
    def port(self) -> int:
        return int(self.process.match[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        self._private = Path(tempfile.mkdtemp(prefix="bg-"))
        try:
            self._process = ServerProcess(
                self.command(),
                ready=self.ready,
                # No settings of this machine's user may reach a test.
                environment={
                    "XDG_CONFIG_HOME": str(self._private),
                    "XDG_STATE_HOME": str(self._private),
                },
                directory=self._private,
            )
        except BaseException:
            shutil.rmtree(self._private, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.process.stop()
        finally:
            if self._private is not None:
                shutil.rmtree(self._private, ignore_errors=True)


class FastBorgServer(BorgServer):
    """Ours, leaving the syncs to the system as borgstore's server does."""

    def command(self) -> Sequence[str]:
        settings = self.folder.parent / "fast.toml"
        settings.write_text(f'[places.borg]\nurl = "{self.folder.as_uri()}"\ndurability = "fast"\n')
        program = str(Path(sys.executable).parent / "backupgw")
        listen = ["--listen", "127.0.0.1:0"]
        return [program, "--config", str(settings), "borg", "serve", *listen, *self.flags]


class BorgstoreServer(BorgServer):
    """borgstore 0.7's own server, the reference."""

    name = "borgstore"
    ready = r"listening on \S+:(\d+)"

    def command(self) -> Sequence[str]:
        with socket.socket() as probe:  # it does not tell which port 0 became
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        module = [sys.executable, "-m", "borgstore.server.rest"]
        return [*module, "--port", str(port), "--backend", self.folder.as_uri(), *self.flags]
