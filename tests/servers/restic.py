"""restic as a user runs it, with nothing of the machine's own settings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import peers
from .restic_key import make_cheap, make_cheap_there
from .tls import Certificate

TIMEOUT = 240
"""Seconds for one restic command: a command that retries for ever must fail its test."""


class ResticFailed(Exception):
    """A restic command ended with another status than the test expects."""


class Restic:
    """One user's restic: a program, a repository, its password and a place for its cache."""

    def __init__(
        self,
        peer: peers.Peer,
        repository: str,
        home: Path,
        *,
        password: str | None = "correct horse",
        certificate: Certificate | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the user.

        Args:
            repository: as `RestServer.repository` tells it.
            home: a folder for what restic keeps on the client; made where missing.
            password: the repository's; None for a repository without (newer restic).
            certificate: whose authority restic is to trust.
            environment: further variables.
        """
        self.peer = peer
        self.repository = repository
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._options = ["--cacert", str(certificate.authority)] if certificate else []
        if password is None:
            self._options.append("--insecure-no-password")
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "TMPDIR": str(home),
            "RESTIC_REPOSITORY": repository,
            "RESTIC_PROGRESS_FPS": "0.1",
            "LC_ALL": "C.UTF-8",
            **({"RESTIC_PASSWORD": password} if password is not None else {}),
            **(environment or {}),
        }

    def command(self, *arguments: str | Path) -> list[str]:
        """The whole command line, for those who start it themselves with `environment`."""
        return [str(self.peer.path), *self._options, *map(str, arguments)]

    def run(
        self,
        *arguments: str | Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in `directory` and return what it printed.

        Raises:
            ResticFailed: it ended with another status than 0, or not within TIMEOUT seconds.
        """
        done = self.attempt(*arguments, directory=directory, environment=environment)
        if done.returncode:
            raise ResticFailed(self._describe(arguments, done))
        return done

    def fail(
        self,
        *arguments: str | Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command that has to fail and return all it printed.

        Raises:
            ResticFailed: it succeeded, or did not end within TIMEOUT seconds.
        """
        done = self.attempt(*arguments, directory=directory, environment=environment)
        if done.returncode == 0:
            raise ResticFailed(self._describe(arguments, done))
        return done.stdout + done.stderr

    def attempt(
        self,
        *arguments: str | Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that may end either way.

        Raises:
            ResticFailed: it did not end within TIMEOUT seconds.
        """
        command = self.command(*arguments)
        try:
            return subprocess.run(
                command,
                env={**self.environment, **(environment or {})},
                cwd=directory or self._home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            printed = (error.stderr or b"").decode(errors="replace")
            raise ResticFailed(f"{command} did not end; printed:\n{printed}") from None

    def _describe(
        self, arguments: tuple[str | Path, ...], done: subprocess.CompletedProcess[str]
    ) -> str:
        return (
            f"restic {self.peer.version} {' '.join(map(str, arguments))} ended with "
            f"{done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )

    def init(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Make the repository, kept in the server's `folder`, with a key that opens quickly."""
        self.run("init", *arguments, environment=environment)
        make_cheap(folder, self.environment["RESTIC_PASSWORD"])

    def init_there(self) -> None:
        """Make the repository of a plain HTTP server, wherever that keeps it, with such a key."""
        self.run("init")
        make_cheap_there(self.repository.removeprefix("rest:"), self.environment["RESTIC_PASSWORD"])

    def json(self, *arguments: str | Path) -> Any:
        """Run a command with --json and return what it printed, of several lines the last."""
        return self.last_message(self.run(*arguments, "--json").stdout)

    @staticmethod
    def last_message(output: str) -> Any:
        """The JSON value that `output` is, or else the one in its last line."""
        try:
            return json.loads(output)
        except json.JSONDecodeError:
            return json.loads(output.strip().splitlines()[-1])

    def snapshots(self) -> list[str]:
        """The ids of all snapshots, oldest first."""
        found = self.json("snapshots") or []
        return [entry["id"] for entry in sorted(found, key=lambda entry: str(entry["time"]))]

    def check(self) -> None:
        """Read and verify every byte of the repository. Raises ResticFailed."""
        done = self.run("check", "--read-data", "--no-cache")
        if "no errors were found" not in done.stdout:
            raise ResticFailed(f"check says: {done.stdout}\n{done.stderr}")
