"""Moments as an operator writes them: "2026-11-20 03:00", "2026-11-20T03:00Z", "36 h"."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from backupgw.runtime.command import UsageError


def parse_moment(text: str, now: float | None = None) -> float:
    """Return seconds since the epoch.

    Args:
        text: a date, with or without a time, local unless it names a zone; or for how long ago, as
            "90 min", "36 h", "3 days".
        now: default the clock's.

    Raises:
        UsageError: it is neither, or lies in the future.
    """
    now = time.time() if now is None else now
    text = text.strip()
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        moment = _ago(text, now)
    if moment > now:
        raise UsageError(f"{text!r} lies in the future")
    return moment


def _ago(text: str, now: float) -> float:
    # Imported late: most commands only print moments.
    from backupgw.kvstore.layers import options

    try:
        if not text or text[-1].isdigit():  # seconds without a unit: a mistyped date, more likely
            raise options.OptionInvalid("since", text)
        return now - options.duration("since", text)
    except options.OptionInvalid:
        raise UsageError(
            f'{text!r} is no moment; write one such as "2026-11-20 03:00" (local time), '
            '"2026-11-20T03:00Z", or for how long ago: "36 h", "3 days"'
        ) from None


def stamp(seconds: float | None) -> str | None:
    """Return a time as text for programs: ISO 8601, UTC, to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def minute(seconds: float | None) -> str:
    """Return a time as text for people, UTC, to the minute; "-" where there is none."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")
