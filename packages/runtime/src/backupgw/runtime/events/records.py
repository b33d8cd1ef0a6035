"""The typed records of what can happen, and how one is written as JSON.

A package adds a kind of its own by a frozen dataclass that derives from `Event`:

    @dataclass(frozen=True, kw_only=True)
    class VolumeMounted(Event, type="volume.mounted", severity=Severity.INFO):
        volume: str

Fields are text, numbers, truth values or None, so that every receiver can filter by them. A field
never holds a secret: events leave the gateway.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

Value = str | int | float | bool | None

_TYPE = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+\Z")
_KNOWN: dict[str, type[Event]] = {}

LONGEST = 64 << 10
"""Characters of an event's JSON."""
RESERVED = frozenset({"id", "type", "time", "severity", "gateway"})
"""What every event has; a field of its own may not be called so."""


class Severity(enum.StrEnum):
    """How much an event matters to the person who runs the gateway."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for what matters least."""
        return list(Severity).index(self)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. Subclasses name it and say what there is to know.

    Attributes:
        type: dotted and lower case, such as "snapshot.written"; unique.
        severity: of this kind of event, unless an event overrides `weight`.
    """

    type: ClassVar[str]
    severity: ClassVar[Severity]

    def __init_subclass__(cls, *, type: str, severity: Severity = Severity.INFO) -> None:  # noqa: A002
        if not _TYPE.match(type):
            raise TypeError(f"{type!r} is not an event's type; write one such as 'backup.finished'")
        if type in _KNOWN and _KNOWN[type].__qualname__ != cls.__qualname__:
            raise TypeError(f"there is another event of the type {type!r}")
        # Annotations, because the dataclass decorator has not run yet.
        if taken := RESERVED & inspect.get_annotations(cls).keys():
            raise TypeError(f"an event's field may not be called {', '.join(sorted(taken))}")
        cls.type = type
        cls.severity = severity
        _KNOWN[type] = cls

    @property
    def weight(self) -> Severity:
        """The severity of this one event."""
        return self.severity

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """Return the names of the event's own fields."""
        return frozenset(field.name for field in dataclasses.fields(cls))

    def data(self) -> dict[str, Value]:
        """Return the event's own fields."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclass(frozen=True, kw_only=True)
class SnapshotWritten(Event, type="snapshot.written"):
    """A snapshot is safely in its repository.

    Attributes:
        place: the place's name in the settings.
        repository: its path in the place.
        snapshot: the snapshot's id.
        user: who wrote it; None where nobody logs in.
        size: bytes of the snapshot's own file, where known.
    """

    place: str
    repository: str
    snapshot: str
    user: str | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class SnapshotDeleted(Event, type="snapshot.deleted"):
    """A snapshot was removed by a client."""

    place: str
    repository: str
    snapshot: str
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class RepositoryCreated(Event, type="repository.created"):
    """A repository was made."""

    place: str
    repository: str
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class RepositoryDeleted(Event, type="repository.deleted", severity=Severity.WARNING):
    """A whole repository was removed."""

    place: str
    repository: str
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class BackupFinished(Event, type="backup.finished"):
    """A backup that the gateway itself made or received as a whole has ended.

    Attributes:
        subject: what was backed up: a server, a volume.
        backup: the backup's id.
        successful: False makes this event an error.
        size: bytes.
        seconds: how long it took.
        reason: why it failed, in a line.
    """

    subject: str
    backup: str
    successful: bool
    place: str | None = None
    size: int | None = None
    seconds: float | None = None
    reason: str | None = None

    @property
    def weight(self) -> Severity:
        """An error where the backup failed."""
        return Severity.INFO if self.successful else Severity.ERROR


@dataclass(frozen=True, kw_only=True)
class QuotaReached(Event, type="quota.reached", severity=Severity.WARNING):
    """A scope of the ledger has reached a level; told once until it was cleared.

    Attributes:
        scope: the ledger's scope, such as a user or a repository.
        measure: "bytes" or "objects".
        level: the fraction of the hard limit; None for the soft limit.
        limit: bytes or objects where the level lies.
        used: bytes or objects.
    """

    scope: str
    measure: str
    level: float | None
    limit: int
    used: int

    @property
    def weight(self) -> Severity:
        """An error where nothing more fits."""
        full = self.level is not None and self.level >= 1
        return Severity.ERROR if full else Severity.WARNING


@dataclass(frozen=True, kw_only=True)
class QuotaCleared(Event, type="quota.cleared"):
    """A scope has fallen well below a level that it had reached."""

    scope: str
    measure: str
    level: float | None
    limit: int
    used: int


@dataclass(frozen=True, kw_only=True)
class DamageFound(Event, type="damage.found", severity=Severity.ERROR):
    """Bytes in a place are not what they were when they were stored.

    Attributes:
        place: the place's name.
        name: the item's name in the place.
        problem: in a line: missing, short, another hash.
        repaired: whether a good copy took its place.
    """

    place: str
    name: str
    problem: str
    repository: str | None = None
    repaired: bool = False

    @property
    def weight(self) -> Severity:
        """A warning where the damage is repaired already."""
        return Severity.WARNING if self.repaired else Severity.ERROR


@dataclass(frozen=True, kw_only=True)
class PlaceFailed(Event, type="place.failed", severity=Severity.ERROR):
    """A place cannot be used: `reason` says why in a line.

    `mirror` names the place whose mirror it is one of; what that place holds is still served.
    """

    place: str
    reason: str
    mirror: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlaceRecovered(Event, type="place.recovered"):
    """A place that had failed can be used again, after that many seconds."""

    place: str
    seconds: float | None = None
    mirror: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobFinished(Event, type="job.finished"):
    """A job has succeeded, or was cancelled.

    Attributes:
        job: its id.
        kind, key: what it was, and for whom.
        state: "succeeded" or "cancelled".
        attempts: how often it was started.
        seconds: from the beginning of its last attempt; None: it was never started.
    """

    job: str
    kind: str
    state: str
    attempts: int
    key: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class JobGivenUp(Event, type="job.failed", severity=Severity.ERROR):
    """A job has failed for good: `reason` says why in a line."""

    job: str
    kind: str
    attempts: int
    reason: str
    key: str | None = None
    seconds: float | None = None


def known_types() -> dict[str, type[Event]]:
    """Return every kind of event that was imported, by its type."""
    return dict(_KNOWN)


@dataclass(frozen=True, slots=True)
class Message:
    """An event with when, where and under which id it was published.

    Attributes:
        id: sorts by time: 16 hexadecimal digits of nanoseconds, a dash, 8 random ones.
        time: seconds since the epoch.
        gateway: the name of the gateway that tells it.
        text: all of it as one line of JSON.
    """

    id: str
    time: float
    gateway: str
    event: Event
    text: str


def message(event: Event, gateway: str) -> Message:
    """Stamp an event with the time and a new id, and write it as JSON.

    Raises:
        TypeError, ValueError: a field holds what JSON cannot, or the whole is longer than LONGEST.
    """
    now = time.time_ns()
    identity = f"{now:016x}-{secrets.token_hex(4)}"
    document = {
        "id": identity,
        "type": event.type,
        "time": datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds"),
        "severity": event.weight.value,
        "gateway": gateway,
        "data": event.data(),
    }
    # ASCII: names in file systems need not be valid Unicode, and escapes survive every receiver.
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    if len(text) > LONGEST:
        raise ValueError(f"it is {len(text)} characters long; {LONGEST} are allowed")
    return Message(identity, now / 1e9, gateway, event, text)


def this_gateway() -> str:
    """Return the machine's name, which a gateway goes by unless the settings name it."""
    return socket.gethostname() or "gateway"
