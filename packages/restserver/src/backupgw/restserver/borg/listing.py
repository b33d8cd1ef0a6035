"""A folder's entries as borgstore's clients get them: one JSON array, in pieces."""

from __future__ import annotations

import json
from collections.abc import Generator

from backupgw.kvstore.backends.base import Backend, ItemInfo

LIST_BATCH = 1000
"""Entries that a thread fetches at a time."""


def listing(backend: Backend, name: str) -> Generator[bytes, None, None]:
    """Yield a folder's entries as one JSON array, in pieces."""
    lines: list[str] = []
    lead = "["
    for info in backend.list(name):
        lines.append(_entry(info))
        if len(lines) == LIST_BATCH:
            yield (lead + ",\n".join(lines)).encode()
            lines.clear()
            lead = ",\n"
    if lines:
        yield (lead + ",\n".join(lines) + "]").encode()
    else:
        yield b"[]" if lead == "[" else b"]"


def _entry(info: ItemInfo) -> str:
    return json.dumps(
        {
            "name": info.name,
            "size": info.size,
            "directory": info.directory,
            "atime": info.atime,
            "mtime": info.mtime,
        }
    )
