"""What is cached, how, and how much of it: borgstore's cache modes and limits."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class CacheMode(enum.Enum):
    """How a cache is used.

    off: not at all. writethrough: reads come from the cache, a miss loads the whole item into it,
    writes go to both. mirror: reads always come from the place, and the cache is kept current.
    """

    C_OFF = "off"
    C_MIRROR = "mirror"
    C_WRITETHROUGH = "writethrough"

    @classmethod
    def from_str(cls, value: object) -> CacheMode:
        """Return the mode of that name, in any case. Raises ValueError."""
        if isinstance(value, cls):
            return value
        try:
            return cls(value.lower() if isinstance(value, str) else value)
        except ValueError as error:
            known = ", ".join(repr(mode.value) for mode in cls)
            raise ValueError(f"unknown CacheMode: {value!r} (known: {known})") from error


class CachePolicy(NamedTuple):
    """A mode with its limits: seconds since the last use, and bytes of all items; None for none."""

    mode: CacheMode = CacheMode.C_OFF
    max_age: float | None = None
    size: int | None = None

    @property
    def limited(self) -> bool:
        return self.max_age is not None or self.size is not None

    @classmethod
    def from_config(cls, settings: Mapping[str, object]) -> CachePolicy:
        """Read `cache`, `max_age` and `size` of a namespace's config. Raises ValueError."""
        if settings.get("cache") is None:
            return cls()
        mode = CacheMode.from_str(settings["cache"])
        max_age, size = settings.get("max_age"), settings.get("size")
        if max_age is not None and (
            isinstance(max_age, bool) or not isinstance(max_age, int | float) or not max_age >= 0
        ):
            raise ValueError(f"Invalid cache max_age value: {max_age!r}")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise ValueError(f"Invalid cache size value: {size!r}")
        return cls(mode, None if max_age is None else float(max_age), size)


Policies = Sequence[tuple[str, CachePolicy]]
"""(namespace, policy), the longest namespace first; those that are off are left out."""


def policies(by_namespace: Mapping[str, CachePolicy]) -> Policies:
    """Return the policies that cache anything, the longest namespace first."""
    return sorted(
        (entry for entry in by_namespace.items() if entry[1].mode is not CacheMode.C_OFF),
        key=lambda entry: len(entry[0]),
        reverse=True,
    )
