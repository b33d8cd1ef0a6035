"""The kinds of event that only restic's server has."""

from __future__ import annotations

from dataclasses import dataclass

from backupgw.runtime.events.records import Event, Severity


@dataclass(frozen=True, kw_only=True)
class LoginThrottled(Event, type="login.throttled", severity=Severity.WARNING):
    """Somebody tried so many wrong passwords that they have to wait.

    Attributes:
        place: the place whose repositories they were after.
        address: where they came from; empty for a unix socket.
    """

    place: str
    address: str
