"""What can be said of a folder beside its path, as it comes from outside.

Options are written in a settings file, the environment or a command line: whatever type they are
declared with, they can be of another, and a person must be told.
"""

from __future__ import annotations

import os
from typing import Literal

from .errors import BackendURLInvalid

Durability = Literal["full", "fast"]


def known_durability(durability: object) -> Durability:
    """Return a durability. Raises BackendURLInvalid for any other value."""
    if durability == "full":
        return "full"
    if durability == "fast":
        return "fast"
    raise BackendURLInvalid(f"durability is 'full' or 'fast', not {durability!r}")


def targets(follow: object) -> list[str]:
    """Return absolute paths, of which one alone need not be in a list.

    Raises:
        BackendURLInvalid: it is something else.
    """
    paths = [follow] if isinstance(follow, str) else follow
    if not isinstance(paths, list | tuple):
        raise BackendURLInvalid(f"follow is a list of absolute paths, not {follow!r}")
    for path in paths:
        if not isinstance(path, str) or not os.path.isabs(path):
            raise BackendURLInvalid(f"follow: {path!r} is no absolute path")
    return list(paths)


def mode(option: str, value: object, least: int) -> int:
    """Return permission bits that hold those of `least`; text is taken for octal.

    Raises:
        BackendURLInvalid: they are none, or shut the owner out.
    """
    bits = value
    if isinstance(value, str):
        try:
            bits = int(value, 8)
        except ValueError:
            bits = None
    if type(bits) is int and 0 <= bits <= 0o777 and bits & least == least:
        return bits
    raise BackendURLInvalid(
        f"{option}: {value!r} is no mode that lets the owner in; write for example {least:#o}"
    )
