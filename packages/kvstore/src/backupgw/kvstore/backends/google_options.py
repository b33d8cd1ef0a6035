"""Options that places in Google's services have alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..layers import options
from ..layers.options import OptionInvalid
from .api_calls import OnCall, hook
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


@dataclass(frozen=True)
class Wire:
    """How requests go to Google's servers.

    Attributes:
        timeout: seconds without a byte after which a request failed.
        connections: kept open at most.
        cacert: file of the authorities that may sign the servers' certificates.
        on_call: is told of each request.
    """

    timeout: float
    connections: int
    cacert: str | None
    on_call: OnCall | None = field(repr=False)


def wire(timeout: object, connections: object, cacert: object, on_call: object) -> Wire:
    """Understand the options of that name.

    Args:
        cacert: None for the authorities that the libraries know.
        on_call: None where nobody is told.

    Raises:
        OptionInvalid: one of them cannot be.
    """
    return Wire(
        timeout=options.duration("timeout", timeout, least=1),
        connections=options.count("connections", connections, least=1),
        cacert=None if cacert is None else options.readable("cacert", cacert),
        on_call=hook(on_call),
    )
