"""An answer without a body: a status and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """What the edge sends.

    Attributes:
        headers: all but the common ones.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def wire(self) -> list[tuple[bytes, bytes]]:
        """Return the headers as ASGI has them."""
        return [
            (key.lower().encode(), value.encode("latin-1")) for key, value in self.headers.items()
        ]
