"""What happens here that others want to know, told as events.

Every call returns at once and raises nothing: no client waits for whoever listens.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from backupgw.kvstore.ledger import Alarm, LimitExceeded
from backupgw.runtime.auth.throttle import network
from backupgw.runtime.events import (
    DamageFound,
    Event,
    PlaceFailed,
    PlaceRecovered,
    QuotaCleared,
    QuotaReached,
    RepositoryCreated,
    RepositoryDeleted,
    SnapshotDeleted,
    SnapshotWritten,
)
from backupgw.runtime.secrets import redact_url

from .event_records import LoginThrottled
from .paths import Target

QUIET = 300.0
"""Seconds between two events about the same network's wrong passwords, or the same full account."""
_SUBJECTS = 1000


def ignore(_event: Event) -> None:
    """Tell nobody."""


class Announcer:
    """Turns what clients do into events.

    Args:
        publish: where events go, such as `Events.publish`; must not wait.
        place: what the settings call the place.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        publish: Callable[[Event], object] = ignore,
        place: str = "default",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish = publish
        self._place = place
        self._clock = clock
        self._told: OrderedDict[str, float] = OrderedDict()
        self._away_since: float | None = None

    def stored(self, user: str | None, target: Target, size: int) -> None:
        """A new object of `size` bytes is durable.

        A repository is made when its config is: of all that `restic init` writes it alone is
        written once, whatever was tried before and however many workers there are.
        """
        if target.type == "snapshots":
            event = SnapshotWritten(
                place=self._place,
                repository=target.repo,
                snapshot=target.id,
                user=user or None,
                size=size,
            )
            self._publish(event)
        elif target.type == "config":
            self._publish(
                RepositoryCreated(place=self._place, repository=target.repo, user=user or None)
            )

    def deleted(self, user: str | None, target: Target) -> None:
        """An object that was there is gone."""
        if target.type == "snapshots":
            self._publish(
                SnapshotDeleted(
                    place=self._place,
                    repository=target.repo,
                    snapshot=target.id,
                    user=user or None,
                )
            )

    def repository_deleted(self, user: str | None, repo: str) -> None:
        """A whole repository is gone."""
        self._publish(RepositoryDeleted(place=self._place, repository=repo, user=user or None))

    def damaged(self, target: Target, *, repaired: bool) -> None:
        """What was stored does not hash to its name, as an upload of the same object showed."""
        self._publish(
            DamageFound(
                place=self._place,
                name=target.name,
                problem="another hash",
                repository=target.repo,
                repaired=repaired,
            )
        )

    def throttled(self, address: str) -> None:
        """A client tried too many wrong passwords; told once in a while for each network."""
        if self._is_news(f"network {network(address)}"):
            self._publish(LoginThrottled(place=self._place, address=address))

    def refused(self, limit: LimitExceeded) -> None:
        """An upload had no room left; told once in a while for each account.

        An account is seldom filled to the last byte: that nothing more fits is what full means.
        """
        if self._is_news(f"limit {limit.scope} {limit.measure}"):
            self._publish(
                QuotaReached(
                    scope=limit.scope,
                    measure=limit.measure.value,
                    level=1.0,
                    limit=limit.limit,
                    used=limit.used,
                )
            )

    @property
    def place_is_away(self) -> bool:
        """Whether the place's failure was told, and not yet its return."""
        return self._away_since is not None

    def place_failed(self, reason: str) -> None:
        """The place could not be reached; told once until it was, and not for each hiccup.

        Each worker tells for itself: it is its connections that broke.
        """
        if self._away_since is None and self._is_news("place"):
            self._away_since = self._clock()
            self._publish(PlaceFailed(place=self._place, reason=redact_url(reason)))

    def place_works(self) -> None:
        """A request that needs the place went well."""
        if self._away_since is not None:
            seconds, self._away_since = self._clock() - self._away_since, None
            self._publish(PlaceRecovered(place=self._place, seconds=round(seconds, 3)))

    def _is_news(self, subject: str) -> bool:
        now = self._clock()
        if now - self._told.get(subject, -QUIET) < QUIET:
            return False
        self._told[subject] = now
        self._told.move_to_end(subject)
        if len(self._told) > _SUBJECTS:
            self._told.popitem(last=False)
        return True

    def alarm(self, alarm: Alarm) -> None:
        """A quota's level was reached, or is left again; from any thread."""
        kind = QuotaCleared if alarm.cleared else QuotaReached
        self._publish(
            kind(
                scope=alarm.scope,
                measure=alarm.measure.value,
                level=alarm.level,
                limit=alarm.value,
                used=alarm.used,
            )
        )
