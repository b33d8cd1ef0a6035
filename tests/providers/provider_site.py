"""An installation with providers, and ways to run `backupgw provider` on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime import cli
from tests.servers.child import Child

PATIENCE = 60.0
"""Seconds after which something that should happen counts as missing."""


class Site:
    """Settings, state and files of one user, all below `folder`."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.config = folder / "etc" / "gw.toml"
        self.config.parent.mkdir()
        self.state = folder / "state"
        self.config.write_text(f'[state]\nfolder = "{self.state}"\n')
        self._capture = capture

    def run(self, *words: object, status: int = 0) -> str:
        """Run a verb; return what it wrote to standard output."""
        return self.told(*words, status=status)[0]

    def told(self, *words: object, status: int = 0) -> tuple[str, str]:
        """Run a verb; return what it wrote to standard output and to standard error."""
        verb, *rest = map(str, words)
        self._capture.readouterr()
        given = cli.main(["provider", verb, *rest, "--config", str(self.config)])
        out, err = self._capture.readouterr()
        assert given == status, f"{words}: status {given}, not {status}\n{out}{err}"
        assert "Traceback" not in err
        return out, err

    def json(self, *words: object, status: int = 0) -> Any:
        """Run a verb with --json; return its document."""
        return json.loads(self.run(*words, "--json", status=status))

    def lines(self, *words: object, status: int = 0) -> list[dict[str, Any]]:
        """Run a verb that answers in JSON lines; return them, progress left out."""
        found = [
            json.loads(line) for line in self.run(*words, "--json", status=status).splitlines()
        ]
        return [each for each in found if each.get("event") != "progress"]

    def command(self, *words: object) -> list[str]:
        """Return the command for another process."""
        program = [sys.executable, "-m", "backupgw.runtime.cli", "provider"]
        return [*program, *map(str, words), "--config", str(self.config)]

    def start(self, *words: object, **environ: str) -> Child[bytes]:
        """Start a verb as a process of its own."""
        return Child(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )

    def local(self, name: str = "local", **fields: object) -> Path:
        """Enable a provider in a folder; return the folder."""
        folder = self.folder / name
        words = [f"--set={key}={value}" for key, value in fields.items()]
        self.run(
            "enable", name, "--type", "local",
            f"--set=container={folder}", "--set=retry_delay=0.1", *words,
        )  # fmt: skip
        return folder

    def file(self, name: str, content: bytes) -> Path:
        """Make a file of the user's."""
        path = self.folder / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def written(self, secret: bytes) -> list[Path]:
        """Return the files below `folder` that hold these bytes."""
        return [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and secret in path.read_bytes()
        ]
