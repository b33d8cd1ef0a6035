"""An installation of `backupgw backup` in a folder: settings, local providers, files to back up."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from backupgw.providers.configured import ConfiguredProviders
from backupgw.runtime import cli
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.restic_key import make_cheap


class BackupSite:
    """Runs the command as a user types it: in this process, or in one of its own to be ended.

    Args:
        restic: which of the peers the settings name.
    """

    def __init__(self, folder: Path, *, restic: str = peers.RESTIC_NEW) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.config = folder / "backupgw.toml"
        self.state = folder / "state"
        self.home.mkdir()
        self._restic = restic
        self.write()
        self.providers = ConfiguredProviders(folder)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(folder / "user"),
        }

    def write(self, backup: str = "", sets: str = "") -> None:
        """Write the settings: lines of [backup], and whole sections behind it."""
        path = "restic"
        with contextlib.suppress(LookupError):  # archives need none
            path = str(peers.get(self._restic).path)
        self.config.write_text(
            f"[state]\nfolder = {json.dumps(str(self.state))}\n"
            f'[backup]\nhost = "nas"\nrestic = "{path}"\n'
            f"{backup}\n{sets}\n"
        )

    def add_local(self, *names: str) -> None:
        """Add and enable local providers, each a folder of its name."""
        for name in names:
            if name != "local":
                self.providers.add(name, "local")
            self.providers.set(name, {"container": str(self.folder / name), "enabled": True})

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line."""
        return [
            sys.executable, "-m", "backupgw.runtime.cli", "--config", str(self.config), "backup",
            *map(str, words),
        ]  # fmt: skip

    def run(
        self, *words: str | Path, status: int | None = 0, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, in this process, that ends with this status."""
        out, err = io.StringIO(), io.StringIO()
        arguments = ["--config", str(self.config), "backup", *map(str, words)]
        with (
            mock.patch.dict(os.environ, self.environment, clear=True),
            mock.patch("sys.stdin", io.StringIO(given)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                ended = cli.main(arguments)
            except SystemExit as error:  # argparse's
                ended = int(error.code or 0)
        done = subprocess.CompletedProcess(arguments, ended, out.getvalue(), err.getvalue())
        assert "Traceback" not in done.stderr, done.stderr
        assert "internal error" not in done.stderr, done.stderr
        if status is not None:
            assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    def records(self, *words: str | Path, status: int = 0) -> list[dict[str, Any]]:
        """Run a command and return its JSON lines, but for those of progress."""
        done = self.run(*words, "--json", status=status)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return [each for each in found if each.get("event") != "progress"]

    def start(self, *words: str | Path) -> Child[str]:
        """Start a command as a process group of its own."""
        return Child(
            self.command(*words), env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def status(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """Return what `status --json` tells, by set and provider."""
        done = self.run("status", "--json", status=None)
        return {(each["set"], each["provider"]): each for each in json.loads(done.stdout)}

    def cheap(self, name: str = "local") -> None:
        """Let a repository that a local provider has open quickly."""
        password = self.state / "backup" / "keys" / "restic-password"
        make_cheap(self.folder / name / "restic", password.read_text().strip())

    def files(self, name: str, folder: str = "") -> list[str]:
        """Return the files that a local provider has."""
        top = self.folder / name
        return sorted(
            str(path.relative_to(top)) for path in (top / folder).rglob("*") if path.is_file()
        )
