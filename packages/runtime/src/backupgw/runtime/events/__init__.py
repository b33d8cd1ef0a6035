"""What happened, told to whoever wants to know: log, metrics, browsers, commands and webhooks.

    events = start_gateway(settings)              # once in each worker process
    events.publish(SnapshotWritten(place="default", repository="alice/laptop", snapshot=name))
    ...
    events.close()

`publish` may be called from any thread and from the event loop: it never waits, never raises for
what a receiver does, and never slows a client down. What that costs, dropping, is bounded, counted
and described in `dispatcher`.
"""

from .dispatcher import Events, Sink
from .records import (
    BackupFinished,
    DamageFound,
    Event,
    JobFinished,
    JobGivenUp,
    PlaceFailed,
    PlaceRecovered,
    QuotaCleared,
    QuotaReached,
    RepositoryCreated,
    RepositoryDeleted,
    Severity,
    SnapshotDeleted,
    SnapshotWritten,
)
from .settings import EventsSettings, HookSettings
from .start import check_hooks, renew_hooks, start, start_gateway
from .stream import EventStream

__all__ = [
    "BackupFinished",
    "DamageFound",
    "Event",
    "EventStream",
    "Events",
    "EventsSettings",
    "HookSettings",
    "JobFinished",
    "JobGivenUp",
    "PlaceFailed",
    "PlaceRecovered",
    "QuotaCleared",
    "QuotaReached",
    "RepositoryCreated",
    "RepositoryDeleted",
    "Severity",
    "Sink",
    "SnapshotDeleted",
    "SnapshotWritten",
    "check_hooks",
    "renew_hooks",
    "start",
    "start_gateway",
]
