"""Writers that ask somebody just before their value gets its name.

A layer that only has to know when an item appears need not pass every piece of its body on: it
leaves word with the inner backend's own writer. Whoever wraps such a writer in one of its own says
nothing of this, and so what changes the bytes or the name on the way is never left out.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from .base import Writer


class Gate(Protocol):
    """Who is asked."""

    def commit(self, writer: GatedWriter, size: int) -> None:
        """Let the writer, whose gate is None now, commit; raises what `Writer.commit` raises.

        Args:
            size: the bytes that it was opened for; it stores as many or raises ContentMismatch.
        """

    def checkpoint(self, writer: GatedWriter, size: int) -> str:
        """Let the writer, whose gate is None now, make a checkpoint; as `Writer.checkpoint`."""


class GatedWriter(Writer):
    """A writer that has a gate, if one was set before its value is named.

    Only for what was opened with if_absent and a size.
    """

    gate: Gate | None = None
    anew: bool = False
    """Set with the gate: name and size are all that it was opened with."""
    known_as: str = ""
    """The name by which it was opened where the gate was set; a layer on the way may have added to
    it."""

    looks_at_once: bool = False
    """Whether `surely_new` waits for nothing: not for a network, nor for another thread."""

    @abstractmethod
    def surely_new(self, known_as: str) -> bool:
        """Whether nothing has the value's name for sure, as `Backend.surely_missing`."""

    def file_number(self) -> int:
        """Return what `Backend.file_number` is going to say of the item; 0 where it may say 0."""
        return 0
