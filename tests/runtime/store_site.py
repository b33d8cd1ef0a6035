"""Places for `backupgw store`, and ways to run it."""

from __future__ import annotations

import json
import os
import random
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
    """A settings file with places, and `backupgw store` on it.

    Attributes:
        folder: where the places lie, each in a folder of its own name.
        config: the settings file.
    """

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.config = folder / "gw.toml"
        self._capture = capture
        self._text = f'[state]\nfolder = "{folder}/state"\n[rest]\nplace = "main"\n'
        self.add("main")

    def add(self, name: str, *layers: str, exists: bool = True) -> None:
        """Declare a place on disk."""
        self._text += (
            f'[places.{name}]\nurl = "file://{self.folder}/{name}"\ndurability = "fast"\n'
            f"layers = [{', '.join(layers)}]\n"
        )
        self.config.write_text(self._text)
        if exists:
            (self.folder / name).mkdir()

    def write(self, name: str, value: bytes) -> None:
        """Put a file into a place."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)

    def fill(self, name: str, count: int = 20, size: int = 3000) -> dict[str, bytes]:
        """Put random files into a place; return them by name."""
        rng = random.Random(count)
        values = {f"d{n % 3}/{n:04}": rng.randbytes(size) for n in range(count)}
        for item, value in values.items():
            self.write(f"{name}/{item}", value)
        return values

    def tree(self, name: str) -> dict[str, bytes]:
        """Return what is in a place, whatever its name: half of something too."""
        top = self.folder / name
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
        }

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command; return its exit status and what it wrote to stdout and stderr."""
        self._capture.readouterr()
        status = cli.main(["--config", str(self.config), "store", *words])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        assert "internal error" not in err
        return status, out, err

    def refused(self, *words: str) -> str:
        """Run a command that fails with one line on stderr; return that."""
        status, out, err = self.run(*words)
        assert status in (1, 2), (status, out, err)
        assert out == ""
        [line] = err.splitlines()
        return line

    def records(self, *words: str, status: int = 0) -> list[dict[str, Any]]:
        """Run a command whose answer is JSON lines."""
        done, out, err = self.run(*words)
        assert done == status, err
        return [json.loads(line) for line in out.splitlines()]

    def start(self, *words: str, **options: Any) -> Child[str]:
        """Start a command as a process of its own."""
        command = [sys.executable, "-m", "backupgw.runtime.cli", "--config", str(self.config)]
        return Child(
            [*command, "store", *words],
            text=True,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            **options,
        )
