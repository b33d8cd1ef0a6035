"""Places in a double of Drime, made the same way in any process."""

from __future__ import annotations

from typing import Any

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.registry import open_place


def place(url: str, key: str, folder: str = "drime:backups/place", **options: Any) -> Backend:
    """Return a place in the double at `url`, not open."""
    return open_place(folder, api_key=key, api_url=url, **options)
