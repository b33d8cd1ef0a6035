"""The places of `benchmarks.places`, and the three ways by which restic gets to each.

A further kind of place is a `Place`, listed in `benchmarks.places`: what it starts, and what
restic, rclone and backupgw are told of it.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.child import Child
from tests.servers.free_port import free_ports
from tests.servers.sshd import Sshd

from benchmarks import peers, process_tree
from benchmarks.peers import MissingPeer

START_SECONDS = 30


@dataclass(frozen=True)
class Route:
    """What restic is given: the repository's name, further flags, further environment."""

    repository: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Place(ABC):
    """A server where bytes live; a context manager. `port` is where it listens."""

    name: str
    port: int

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    def fresh_folder(self) -> str:
        """Return the name of a new, empty part of the place."""

    @abstractmethod
    def stored(self, folder: str) -> int:
        """Return how many bytes lie in it."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Remove it with all it holds."""

    @abstractmethod
    def cpu_seconds(self) -> float:
        """Return what the server has cost so far."""

    @abstractmethod
    def for_restic(self, port: int, folder: str) -> Route:
        """Return how restic's own backend gets there by way of `port`."""

    @abstractmethod
    def for_rclone(self, port: int, folder: str) -> tuple[str, str]:
        """Return the lines of rclone's settings that make a remote, and the path in it."""

    @abstractmethod
    def for_backupgw(self, port: int, folder: str) -> str:
        """Return the lines below `[places.served]`."""


class SftpPlace(Place):
    """OpenSSH, in folders of one file system."""

    name = "sftp"

    def __init__(self, folder: Path) -> None:
        self._sshd = Sshd(folder)
        self._served = folder / "served"
        self._config = folder / "ssh_config"

    def __enter__(self) -> Self:
        self._sshd.__enter__()
        self._served.mkdir()
        self.port = self._sshd.port
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sshd.__exit__(kind, error, trace)

    def fresh_folder(self) -> str:
        folder = self._served / secrets.token_hex(4)
        folder.mkdir()
        return str(folder)

    def stored(self, folder: str) -> int:
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())

    def remove(self, folder: str) -> None:
        shutil.rmtree(folder)

    def cpu_seconds(self) -> float:
        return process_tree.cpu_seconds(self._sshd.pid)

    def _settings(self, port: int) -> str:
        """Write ssh's settings for the server by way of a port; return the file."""
        block = self._sshd.config("box")
        line = f"Port {self._sshd.port}\n"
        known = f"HostKeyAlias [127.0.0.1]:{self._sshd.port}\n"
        self._config.write_text(block.replace(line, f"Port {port}\n{known}"))
        return str(self._config)

    def for_restic(self, port: int, folder: str) -> Route:
        command = f"ssh -F {self._settings(port)} box -s sftp"
        return Route(f"sftp:box:{folder}/repo", ("-o", f"sftp.command={command}"))

    def for_rclone(self, port: int, folder: str) -> tuple[str, str]:
        key = f"{self._sshd.folder}/client"
        lines = ["type = sftp", "host = 127.0.0.1", f"port = {port}", f"user = {self._sshd.user}"]
        # The line's port is in no file of known hosts, and rclone has no name beside it.
        return "\n".join([*lines, f"key_file = {key}", "shell_type = none"]), folder

    def for_backupgw(self, port: int, folder: str) -> str:
        return f'url = "sftp://box/{folder}"\nssh_config = "{self._settings(port)}"'


class Way(ABC):
    """How restic's bytes get to a place."""

    name: str
    caveats = ""

    @staticmethod
    def named(name: str) -> Way:
        """Return a way. Raises MissingPeer where its program is not there."""
        ways: dict[str, Callable[[], Way]] = {
            "restic": OwnBackend,
            "rclone": Rclone,
            "backupgw": Backupgw,
        }
        return ways[name]()

    @abstractmethod
    def started(
        self, place: Place, port: int, folder: str, work: Path
    ) -> AbstractContextManager[tuple[Route, int]]:
        """Yield what restic is given, and the id of the process that stands between (0: none)."""


class OwnBackend(Way):
    """restic's own backend."""

    name = "restic"
    caveats = "its own backend; syncs nothing"

    @contextmanager
    def started(
        self, place: Place, port: int, folder: str, work: Path
    ) -> Iterator[tuple[Route, int]]:
        del work
        yield place.for_restic(port, folder), 0


class Rclone(Way):
    """`rclone serve restic`."""

    name = "rclone"

    def __init__(self) -> None:
        self._program = peers.find("rclone")
        version = peers.version_of(self._program, "version")
        self.caveats = f"{version}; neither hashes nor syncs uploads"

    @contextmanager
    def started(
        self, place: Place, port: int, folder: str, work: Path
    ) -> Iterator[tuple[Route, int]]:
        lines, path = place.for_rclone(port, folder)
        config = work / "rclone.conf"
        config.write_text(f"[place]\n{lines}\n")
        (listen,) = free_ports(1)
        command = [self._program, "--config", str(config), "serve", "restic", f"place:{path}"]
        with _running([*command, "--addr", f"127.0.0.1:{listen}"], listen, work) as pid:
            yield Route(f"rest:http://127.0.0.1:{listen}/repo/"), pid


class Backupgw(Way):
    """`backupgw rest serve`."""

    name = "backupgw"
    caveats = "hashes uploads, and has the place sync them before it acknowledges"

    def __init__(self) -> None:
        self._program = Path(sys.executable).parent / "backupgw"

    @contextmanager
    def started(
        self, place: Place, port: int, folder: str, work: Path
    ) -> Iterator[tuple[Route, int]]:
        settings = work / "backupgw.toml"
        settings.write_text(
            f"[places.served]\n{place.for_backupgw(port, folder)}\n"
            f'[rest]\nplace = "served"\n[state]\nfolder = "{work}/state"\n'
        )
        settings.chmod(0o600)
        (listen,) = free_ports(1)
        command = [str(self._program), "rest", "serve", "--config", str(settings), "--no-auth"]
        with _running([*command, "--listen", f"127.0.0.1:{listen}"], listen, work) as pid:
            yield Route(f"rest:http://127.0.0.1:{listen}/repo/"), pid


@contextmanager
def _running(command: list[str], port: int, work: Path) -> Iterator[int]:
    """Run a server until the block ends; yield its process id once it listens."""
    output = work / "output"
    with output.open("wb") as file:
        process = Child(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        _wait_for(port, process, output)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: Child[bytes], output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = output.read_text(errors="replace")[-2000:]
                raise MissingPeer(f"{process.args!r} does not listen: {said}") from None
            time.sleep(0.05)
        else:
            return
