"""The servers under comparison: how each is found, started, described and stopped."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import bcrypt
import trustme
from tests.servers.child import Child
from tests.servers.free_port import free_ports

from benchmarks.load import PASSWORD, USER, Address

START_SECONDS = 30
ROOT = Path(__file__).resolve().parent.parent


class MissingPeer(Exception):
    """A program that the run needs is not there; the message says how to get it."""


@dataclass(frozen=True)
class Site:
    """Files that every server of one run shares: password file and certificate."""

    folder: Path
    htpasswd: Path
    htpasswd_sha: Path
    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Launch:
    """What a command line is built from."""

    store: Path
    port: int
    metrics_port: int
    site: Site
    tls: bool
    log: Path


@dataclass(frozen=True)
class Program:
    """A server that can be started; `caveats` says what it leaves out that the others do."""

    name: str
    version: str
    caveats: str
    command: Callable[[Launch], list[str]] = field(repr=False)
    stores: bool = True


def make_site(folder: Path) -> Site:
    """Write a certificate and the password files: bcrypt at htpasswd's own cost of 5, and SHA-1."""
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    site = Site(
        folder,
        folder / "htpasswd",
        folder / "htpasswd-sha",
        folder / "cert.pem",
        folder / "key.pem",
        folder / "ca.pem",
    )
    site.htpasswd.write_bytes(
        f"{USER}:".encode() + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)) + b"\n"
    )

    sha = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    site.htpasswd_sha.write_text(f"{USER}:{{SHA}}{sha}\n")
    site.htpasswd.chmod(0o600)
    authority.cert_pem.write_to_path(str(site.authority))
    issued.private_key_pem.write_to_path(str(site.key))
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(str(site.certificate), append=number > 0)
    return site


def find(name: str, *others: str) -> str:
    """Path of a program: from .peers/, where `make peers` puts them, else from PATH."""
    names = (name, *others)
    for candidate in sorted((ROOT / ".peers").rglob("*")):
        if candidate.name in names and candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    for known in names:
        found = shutil.which(known)
        if found:
            return found
    raise MissingPeer(f"{name} is neither in .peers/ nor on PATH: run `make peers`")


def version_of(*command: str) -> str:
    """The first line that `command` prints about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else "unknown"


def rest_server(path: str) -> Program:
    def command(launch: Launch) -> list[str]:
        argv = [path, "--path", str(launch.store), "--listen", f"127.0.0.1:{launch.port}"]
        argv += ["--htpasswd-file", str(launch.site.htpasswd), "--log", str(launch.log)]
        argv += ["--prometheus"]
        return argv + _tls_flags(launch)

    return Program("rest-server", version_of(path, "--version"), "", command)


def rclone(path: str, *, bcrypt_each_time: bool) -> Program:
    """`rclone serve restic`; it checks bcrypt anew for each request, so it gets a SHA-1 password.

    With `bcrypt_each_time` it gets the same bcrypt file as the others (about 1.8 ms a request).
    """

    def command(launch: Launch) -> list[str]:
        password = launch.site.htpasswd if bcrypt_each_time else launch.site.htpasswd_sha
        argv = [path, "serve", "restic", "--config", "", "--addr", f"127.0.0.1:{launch.port}"]
        argv += ["--htpasswd", str(password), "-v", "--log-file", str(launch.log)]
        argv += ["--metrics-addr", f"127.0.0.1:{launch.metrics_port}"]
        if launch.tls:
            argv += ["--cert", str(launch.site.certificate), "--key", str(launch.site.key)]
        return [*argv, str(launch.store)]

    caveats = "neither hashes nor syncs uploads; logs errors and changes only"
    if not bcrypt_each_time:
        caveats += "; SHA-1 password, as it would compute bcrypt for each request"
    return Program("rclone", version_of(path, "version"), caveats, command)


def backupgw(path: str, workers: int | None = None) -> Program:
    """`backupgw rest serve` with so many worker processes, by default as many as it takes."""

    def command(launch: Launch) -> list[str]:
        argv = [path, "rest", "serve", "--path", str(launch.store)]
        argv += ["--listen", f"127.0.0.1:{launch.port}"]
        argv += ["--htpasswd-file", str(launch.site.htpasswd), "--log", str(launch.log)]
        argv += ["--prometheus"]
        if workers is not None:
            argv += ["--workers", str(workers)]
        return argv + _tls_flags(launch)

    name = "backupgw" if workers is None else f"backupgw/{workers}"
    return Program(name, version_of(path, "--version"), "", command)


def ceiling() -> Program:
    """The generator's own limit: a server that answers from memory and does nothing else."""

    def command(launch: Launch) -> list[str]:
        return [sys.executable, "-m", "benchmarks.ceiling", str(launch.store), str(launch.port)]

    caveats = "no server: answers from memory without auth, hash, disk or log; the client's limit"
    return Program("(ceiling)", "", caveats, command, stores=False)


def _tls_flags(launch: Launch) -> list[str]:
    if not launch.tls:
        return []
    site = launch.site
    return ["--tls", "--tls-cert", str(site.certificate), "--tls-key", str(site.key)]


class Server:
    """A started program; a context manager that stops it by its process id."""

    def __init__(self, program: Program, store: Path, site: Site, *, tls: bool) -> None:
        self.program = program
        self.store = store
        label = program.name.replace("/", "-")
        self._output = site.folder / f"{label}.output"
        log = site.folder / f"{label}.access"
        port, metrics_port = free_ports(2)
        self.address = Address("127.0.0.1", port, str(site.authority) if tls else None)
        launch = Launch(store, port, metrics_port, site, tls, log)
        with self._output.open("wb") as output:
            self._process = Child(
                program.command(launch),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={
                    **os.environ,
                    "BACKUPGW_CONFIG": os.devnull,
                    # Not the machine's own, which other versions may have made.
                    "BACKUPGW_STATE__FOLDER": str(site.folder / f"{label}.state"),
                },
            )
        self.pid = self._process.pid
        try:
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise MissingPeer(f"{self.program.name} ended at once: {self.output()}")
            try:
                socket.create_connection((self.address.host, self.address.port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise MissingPeer(
                        f"{self.program.name} does not listen after {START_SECONDS} s: "
                        f"{self.output()}"
                    ) from None
                time.sleep(0.05)
            else:
                return

    def output(self) -> str:
        """The end of what the server printed."""
        return self._output.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End the server: SIGTERM, and SIGKILL where that does not help within 20 s."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
