"""Redis as Debian has it."""

from __future__ import annotations

from typing import ClassVar

from .own_port import OwnPort


class Redis(OwnPort):
    """A Redis with its own folder and port, the same after a restart. A context manager."""

    program: ClassVar[str] = "redis-server"
    ready: ClassVar[str] = r"Ready to accept connections"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _arguments(self, port: int) -> list[str]:
        return [
            *["--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.folder)],
            # Kept over a restart: what a cache must not show again is there to be shown.
            *["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
        ]
