"""Options that places in Google's services have alike."""

from __future__ import annotations

from ..layers import options
from ..layers.options import OptionInvalid
from .part_transfers import MEMORY

MIB = 1 << 20
_UNIT = 256 << 10
"""Bytes; an upload takes multiples of them (`google_uploads.UNIT`, without its library)."""


def upload_sizes(part_size: object, memory: object) -> tuple[int, int]:
    """Return the bytes of a part, and those of parts that are held for all writers together.

    Args:
        memory: None for what two large parts need.

    Raises:
        OptionInvalid: one of them cannot be.
    """
    part = options.size("part_size", part_size, least=_UNIT)
    if part % _UNIT:
        raise OptionInvalid("part_size", "must be a multiple of 256 KiB")
    if memory is None:
        return part, max(MEMORY, 2 * part)
    return part, options.size("memory", memory, least=part)
