"""When something is done by the calendar, as settings write it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _comes(cron: str, zone: str) -> None:
    # Imported late: the jobs' database takes time, and few settings have a schedule.
    from .jobs import BadSchedule
    from .jobs.schedules import following

    try:
        if following(cron, zone, 0.0) is None:
            raise ValueError(f"{cron!r} never comes")
    except BadSchedule as error:
        raise ValueError(str(error)) from None


def _cron(text: str) -> str:
    if text:
        _comes(text, "UTC")
    return text


def _zone(name: str) -> str:
    _comes("0 0 * * *", name)
    return name


Cron = Annotated[str, AfterValidator(_cron)]
"""Cron's five fields, of a time that comes; "" for never."""

Zone = Annotated[str, AfterValidator(_zone)]
"""A time zone that this machine knows, such as "Europe/Berlin"."""
