"""What a repository's folder shows to anyone who looks: every file whole, and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterator
from pathlib import Path

from tests.faults.protocol import KINDS

NAME = re.compile(r"[0-9a-f]{64}\Z")


def files(root: Path) -> Iterator[Path]:
    """Every file beneath a folder, the hidden ones too."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


def faults(
    root: Path, *, configs: dict[str, bytes] | None = None, known: Container[Path] = ()
) -> list[str]:
    """What is wrong with the repositories below `root`, one line each.

    Args:
        configs: the content that each repository's config must have, if it exists.
        known: files that were looked at before and need not be read again.
    """
    found = []
    for file in files(root):
        if file in known:
            continue
        relative = file.relative_to(root)
        if file.name == "config":
            expected = (configs or {}).get(str(relative.parent))
            if expected is not None and file.read_bytes() != expected:
                found.append(f"{relative}: not the config that was saved")
        elif not NAME.match(file.name) or not _in_its_folder(relative):
            found.append(f"{relative}: no name of a blob: left behind")
        elif (digest := hash_of(file)) != file.name:
            found.append(f"{relative}: {file.stat().st_size} bytes that hash to {digest}")
    return found


def hash_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _in_its_folder(relative: Path) -> bool:
    kind = relative.parts[-2]
    if kind in KINDS and kind != "data":
        return True
    return len(relative.parts) > 2 and relative.parts[-3] == "data" and relative.name[:2] == kind


def on_disk(root: Path, path: str) -> Path:
    """The file of a protocol path such as `repository/data/NAME`."""
    parts = path.split("/")
    if parts[-2] == "data":
        parts.insert(-1, parts[-1][:2])
    return root.joinpath(*parts)
