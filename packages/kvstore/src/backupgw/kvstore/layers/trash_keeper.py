"""What a layer that keeps deleted bytes tells the layers outside it, above all the quota.

Deleting an item here frees nothing: its bytes move to another name of the place. Who accounts for
them has to know that name before anything happens, or a crash in between could not be settled.
So the outer layer asks for the name (`keep_at`), records what is going to move where, and says it
again in the call that does it. Removing what is kept is a `delete` of the kept name, and bringing
it back a `move` from there: ordinary changes of the place, accounted like all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from ..backends.base import Backend, ItemInfo, Writer
from ..names import KernelPath


class Keeper(Backend):
    """A backend that keeps what is deleted or replaced, under names of the kernel's part."""

    @abstractmethod
    def keep_at(self, name: str, *, replaced: bool = False) -> KernelPath | None:
        """Return a fresh name for what `name` holds, if that were deleted or replaced now.

        None: it would not be kept. The answer is good for one change, now.
        """

    @abstractmethod
    def kept_name(self, path: str) -> str | None:
        """Return the former name of what is kept at `path`; None where that is no kept item."""

    @abstractmethod
    def delete_to(self, name: str, kept: KernelPath) -> None:
        """Delete an item; its bytes are at `kept` afterwards. Raises what `delete` raises."""

    @abstractmethod
    def move_keeping(self, name: str, new_name: str, kept: KernelPath) -> None:
        """Move an item; what it replaces is at `kept` afterwards. Raises what `move` raises."""

    @abstractmethod
    def list_all(self, folder: str) -> Iterator[ItemInfo]:
        """Like list, but with all that is kept; `folder` may name the kernel's part."""


class KeepingWriter(Writer, ABC):
    """A writer whose commit keeps what it replaces."""

    kept: KernelPath | None = None
    """Where; set by who asked for the name. Chosen by commit where it is None."""
