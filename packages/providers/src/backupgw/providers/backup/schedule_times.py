"""When a scheduled backup runs, as people write it, systemd and cron understand it.

02:30          every day
Sun 03:00      every Sunday
hourly, daily, weekly, monthly
30 2 * * 0     cron's five fields, for cron
Mon..Fri *-*-* 02:30, and whatever else `systemd-analyze calendar` takes, for systemd
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from backupgw.runtime.command import UsageError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CLOCK = re.compile(r"(?:(?P<day>[A-Za-z]{3,9})\s+)?(?P<hour>\d{1,2}):(?P<minute>\d\d)\Z")
_WORDS = {
    "hourly": ("hourly", "0 * * * *"),
    "daily": ("daily", "0 0 * * *"),
    "weekly": ("weekly", "0 0 * * 1"),
    "monthly": ("monthly", "0 0 1 * *"),
}


@dataclass(frozen=True)
class When:
    """Times of the local clock.

    Attributes:
        calendar: for systemd; "" where only cron knows it.
        cron: for cron; "" where only systemd may know it.
    """

    calendar: str
    cron: str


def read(text: str) -> When:
    """Understand what somebody wrote.

    Raises:
        UsageError: it is nothing that there could be.
    """
    text = " ".join(text.split())
    if text.lower() in _WORDS:
        return When(*_WORDS[text.lower()])
    if match := _CLOCK.match(text):
        return _clock(match, text)
    if len(text.split()) == 5 and re.fullmatch(r"[0-9A-Za-z*/,\- #]+", text) and ":" not in text:
        try:
            next(CronSim(text, datetime.now(UTC)))
        except (CronSimError, StopIteration):
            raise UsageError(f"{text!r}: cron does not know such a time") from None
        return When("", text)
    if not text or any(not sign.isprintable() for sign in text):
        raise UsageError(f"{text!r} is no time; write 02:30, or Sun 03:00")
    return When(text, "")


def _clock(match: re.Match[str], text: str) -> When:
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour > 23 or minute > 59:
        raise UsageError(f"{text!r}: there is no such time of day")
    clock = f"*-*-* {hour:02}:{minute:02}:00"
    if match["day"] is None:
        return When(clock, f"{minute} {hour} * * *")
    day = match["day"][:3].lower()
    if day not in _DAYS:
        raise UsageError(f"{text!r}: there is no such day; write Mon, Tue, Wed, Thu, Fri, Sat, Sun")
    return When(f"{day.capitalize()} {clock}", f"{minute} {hour} * * {_DAYS.index(day)}")
