"""What a bucket tells of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MARK = "backupgw-write"
"""Metadata that tells one write from another."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object, as far as a listing or HEAD tells. `mtime` is in seconds since the epoch."""

    key: str
    size: int
    etag: str
    mtime: float
    mark: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing; `after` leads to the next, None where there is none."""

    found: Sequence[Found]
    prefixes: Sequence[str]
    after: str | None
