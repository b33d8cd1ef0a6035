"""What `Backend.open_writer` was told, and whether what came agrees with it."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ContentMismatch


@dataclass(frozen=True, slots=True)
class Plan:
    """The terms of a write; see `Backend.open_writer`."""

    name: str
    size: int | None
    if_absent: bool
    expected_hash: str | None

    def check_room(self, written: int) -> None:
        """Raise ContentMismatch when more came than was announced."""
        if self.size is not None and written > self.size:
            raise ContentMismatch(f"{self.name}: more than the {self.size} bytes due")

    def check_content(self, written: int, digest: str | None) -> None:
        """Raise ContentMismatch when another number of bytes came, or others.

        Args:
            digest: SHA-256 in lower-case hex of what came; None where none was expected.
        """
        if self.size is not None and written != self.size:
            raise ContentMismatch(f"{self.name}: {written} of {self.size} bytes came")
        if self.expected_hash is not None and digest != self.expected_hash:
            raise ContentMismatch(f"{self.name}: the content has SHA-256 {digest}")
