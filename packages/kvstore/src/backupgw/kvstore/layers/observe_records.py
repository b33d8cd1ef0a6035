"""The record of an operation, as `observe` tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

OPERATIONS = (
    "create",
    "destroy",
    "open",
    "close",
    "mkdir",
    "mkdirs",
    "rmdir",
    "info",
    "list",
    "load",
    "store",
    "resume",
    "discard",
    "delete",
    "move",
    "sync",
    "hash",
    "copy",
    "gather",
    "defrag",
    "quota",
    "reap",
    "quarantine",
)
"""`resume` and `discard` take a checkpointed write up and give one up."""


@dataclass(slots=True)
class Operation:
    """One operation that ended.

    Attributes:
        place: the name that the layer was given.
        kind: one of OPERATIONS.
        name: of the item or folder; empty where it concerns the whole place.
        seconds: that the place took.
        bytes: that were read or written; 0 for what moves none.
        entries: that were listed.
        outcome: "ok"; "aborted" for a write that was given up, and "broken off" for an item or a
            listing that was not read to its end; else the name of the error's class.
    """

    place: str
    kind: str
    name: str
    seconds: float = 0.0
    bytes: int = 0
    entries: int = 0
    outcome: str = "ok"


Hook = Callable[[Operation], None]
"""Called once when an operation has ended, by the thread that ended it. It must not raise."""
