"""The programs of others that tests run: where they lie and which versions they are.

`python -m tests.servers.install` brings them into `.peers/` and writes `.peers/versions.json`;
everything here only reads.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers"
VERSIONS = FOLDER / "versions.json"

RESTIC_OLD = "restic-old"
RESTIC_NEW = "restic-new"
REST_SERVER = "rest-server"
RCLONE = "rclone"
BORG2 = "borg2"
"""Borg 2 with a Python and C library of its own; not among ALL, since few tests need it."""
TUS_JS = "tus-js-client"
"""Node with the tus client of browsers. Not among ALL either."""
BACKENDAI = "backend.ai-client"
"""Backend.AI's client, on a Python of its own; for the soak only."""
ALL = (RESTIC_OLD, RESTIC_NEW, REST_SERVER, RCLONE)


@dataclass(frozen=True)
class Peer:
    """An installed program; `path` is absolute in memory and below .peers/ in the file."""

    name: str
    path: Path
    version: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, for comparisons: (0, 19, 1)."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version))


@dataclass
class Record:
    """What the last installation found, and why it could not have the rest."""

    peers: dict[str, Peer] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    system: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Write .peers/versions.json, whole or not at all."""
        text = json.dumps(
            {
                "peers": {
                    name: {"path": str(peer.path.relative_to(FOLDER)), "version": peer.version}
                    for name, peer in sorted(self.peers.items())
                },
                "missing": dict(sorted(self.missing.items())),
                "system": dict(sorted(self.system.items())),
            },
            indent=2,
        )
        temporary = VERSIONS.with_suffix(".new")
        temporary.write_text(text + "\n")
        temporary.replace(VERSIONS)


def load() -> Record:
    """Read what is installed; peers whose file has vanished are reported as missing."""
    record = Record()
    try:
        stored = json.loads(VERSIONS.read_text())
    except FileNotFoundError:
        return record
    record.missing.update(stored["missing"])
    record.system.update(stored["system"])
    for name, entry in stored["peers"].items():
        path = FOLDER / entry["path"]
        if os.access(path, os.X_OK):
            record.peers[name] = Peer(name, path, entry["version"])
        else:
            record.missing[name] = f"{entry['path']} has vanished from .peers"
    return record


def get(name: str) -> Peer:
    """Return an installed peer.

    Raises:
        LookupError: it is missing; the message says why, where that is known.
    """
    record = load()
    if name in record.peers:
        return record.peers[name]
    raise LookupError(f"{name} is missing: {record.missing.get(name, 'run `make peers`')}")
