"""What packages register by entry points, imported."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TypeVar

from .command import CommandError

T = TypeVar("T")


def load(entry: EntryPoint, what: str, kind: type[T]) -> T:
    """Import what an entry point names.

    Args:
        what: what its group registers, for messages: "command".
        kind: what that has to be an instance of.

    Raises:
        CommandError: it cannot be imported, or is of another kind.
    """
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise CommandError(
            f"the {what} {entry.name!r} ({entry.value}) cannot be imported: {error}; "
            "install its package again"
        ) from error
    if not isinstance(found, kind):
        raise CommandError(f"{entry.value} is registered as a {what} and is none")
    return found
