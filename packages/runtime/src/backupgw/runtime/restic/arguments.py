"""What restic is asked for, as arguments that cannot become others: a user's text is never an
option, a path never a pattern, a tag never two."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import SnapshotMissing

Option = str | tuple[str, str]
"""`--flag`, or a flag with its value, which is joined to it and so never read as a flag."""

_ID = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Limits:
    """What a restic may take.

    Attributes:
        upload, download: bytes a second; None: no limit. restic counts in KiB.
        compression: one of `ResticProgram.compressions`; None: its own choice.
    """

    upload: int | None = None
    download: int | None = None
    compression: str | None = None

    def options(self) -> list[str]:
        """Return them as restic's options."""
        found = [
            f"--limit-{way}={max(1, rate // 1024)}"
            for way, rate in (("upload", self.upload), ("download", self.download))
            if rate
        ]
        return found + ([f"--compression={self.compression}"] if self.compression else [])


NO_LIMITS = Limits()


def tag(text: str) -> str:
    """Return a tag that stays one.

    Raises:
        ValueError: restic would split it, or leave it out.
    """
    if not text.strip() or "," in text:
        raise ValueError(f"{text!r} cannot be a tag: no commas, not empty")
    return text


def snapshot_id(text: str, *, whole: bool = False) -> str:
    """Return a snapshot's id, which is no path, "latest" or option.

    Raises:
        SnapshotMissing: it is none, and so there is no such snapshot.
    """
    if not _ID.fullmatch(text) or (whole and len(text) != 64):
        raise SnapshotMissing(f"{text[:80]!r} is no snapshot's id")
    return text


def absolute(path: str) -> str:
    """Return a path that starts with a slash and has no parts that lead elsewhere.

    Raises:
        ValueError: it is another.
    """
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"{path[:200]!r} is no absolute path without '..'")
    return path


def pattern(path: str) -> str:
    """Return a path as a pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path)
