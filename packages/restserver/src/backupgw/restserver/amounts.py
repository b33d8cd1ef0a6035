"""Sizes and names as an operator's commands print them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(count: float) -> str:
    """Return bytes with a binary unit and one decimal: "16.0 MiB"."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def plain(name: str) -> str:
    """Return a name without what a terminal would act on or take for another line."""
    return "".join(char if char.isprintable() else "?" for char in name)
