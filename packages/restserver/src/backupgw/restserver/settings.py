"""The section [rest] of the settings: rest-server's options and the listener's."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from backupgw.kvstore.layers.options import OptionInvalid, duration
from backupgw.kvstore.layers.throttle_rate import timetable
from backupgw.kvstore.ledger import Limit
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.settings_times import Cron, Zone

from .limits import Limits
from .settings_rates import Patterns, RatesSettings


def _size(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int | float) and value <= 0):
        raise ValueError('must be more than 0, such as 500_000_000 or "500 GB"; remove it for none')
    return value


Size = Annotated[ByteSize, BeforeValidator(_size)]


class Allowance(BaseModel):
    """What an account may hold; what is not set has no limit.

    Attributes:
        bytes: a number, or text with a unit: "500 GB", "2 TiB"; more is refused.
        objects: how many objects; more are refused.
        soft_bytes: raises an event, and refuses nothing.
        soft_objects: the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: Size | None = None
    objects: int | None = Field(default=None, gt=0)
    soft_bytes: Size | None = None
    soft_objects: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for soft, hard in ((self.soft_bytes, self.bytes), (self.soft_objects, self.objects)):
            if soft is not None and hard is not None and soft > hard:
                raise ValueError("a soft limit above the hard one is never reached; lower it")
        return self

    def limit(self) -> Limit:
        """Return it as the ledger knows it."""
        return Limit(
            hard_bytes=None if self.bytes is None else int(self.bytes),
            hard_objects=self.objects,
            soft_bytes=None if self.soft_bytes is None else int(self.soft_bytes),
            soft_objects=self.soft_objects,
        )


class UserAllowance(Allowance):
    """One [[rest.quota.user]].

    Attributes:
        who: users, as patterns: "ann", "*".
    """

    who: Patterns

    @field_validator("who")
    @classmethod
    def _no_groups(cls, who: list[str]) -> list[str]:
        if any(pattern.startswith("@") for pattern in who):
            raise ValueError("names users, as patterns; a limit is each user's own, not a group's")
        return who


class RepositoryAllowance(Allowance):
    """One [[rest.quota.repository]].

    Attributes:
        on: paths of repositories, as patterns: "ann/laptop", "ann/*", "**".
    """

    on: Patterns


class QuotaSettings(BaseModel):
    """Limits: for all repositories, for each user, for each repository.

    Attributes:
        server: all repositories together.
        user: limits of users, as [[rest.quota.user]]; the first that fits.
        repository: limits of repositories, as [[rest.quota.repository]]; the first that fits.
        count_at_start: list the whole place at each start, for places where others write, too;
            default only with max_size alone, as rest-server does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: Allowance = Allowance()
    user: tuple[UserAllowance, ...] = ()
    repository: tuple[RepositoryAllowance, ...] = ()
    count_at_start: bool | None = None


class TrashSettings(BaseModel):
    """How the trash of the place is kept small, where it has one.

    Attributes:
        expire: when what was kept long enough is removed: cron's five fields; "" for never.
        zone: the time zone they are in, such as "Europe/Berlin".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    expire: Cron = "30 2 * * *"
    zone: Zone = "UTC"


class VerifySettings(BaseModel):
    """Verification of what is stored, by the calendar.

    Attributes:
        schedule: when it begins: cron's five fields, such as "0 3 * * 0"; default never.
        zone: the time zone they are in, such as "Europe/Berlin".
        limit: how fast it reads: "50 MB/s", or a timetable as the layer throttle has it.
        quarantine: set aside what is damaged; it is never deleted.
        threads: files read at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Cron | None = None
    zone: Zone = "UTC"
    limit: str | None = None
    quarantine: bool = True
    threads: int = Field(default=2, ge=1, le=64)

    @field_validator("limit")
    @classmethod
    def _rate(cls, limit: str | None) -> str | None:
        if limit is not None:
            try:
                timetable("limit", limit)
            except OptionInvalid as error:
                raise ValueError(error.message) from None
        return limit


_AUTOMATIC = (15 * 60.0, 6 * 3600.0)


class RepositoryMetricsSettings(BaseModel):
    """Metrics of the repositories, where there are metrics.

    Attributes:
        refresh: how often they are counted: "15 min", "6 hours"; "" for never; default every 15
            minutes on a local disk, where what has not changed costs nothing, else every 6 hours.
        most: how many repositories are shown; what is beyond is shown as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refresh: str | None = None
    most: int = Field(default=500, ge=0, le=100_000)

    @field_validator("refresh")
    @classmethod
    def _time(cls, refresh: str | None) -> str | None:
        if refresh:
            try:
                duration("refresh", refresh, least=1)
            except OptionInvalid as error:
                raise ValueError(error.message) from None
        return refresh

    def seconds(self, *, local: bool) -> float:
        """Return the time from one count to the next, 0 for no counts.

        Args:
            local: whether the place is a local disk.
        """
        if self.refresh is None:
            return _AUTOMATIC[0] if local else _AUTOMATIC[1]
        return duration("refresh", self.refresh) if self.refresh else 0.0


class RestSettings(HttpOptions):
    """Settings of restic's REST server.

    Attributes:
        workers: processes that answer requests; 0 leaves the number to `workers.options`.
        place: name of the place that holds the repositories.
        htpasswd_file: users and password hashes; default `.htpasswd` in the place's folder.
        no_auth: serve everybody who can connect.
        proxy_auth_username: name of the header in which a trusted proxy hands over the user it
            has authenticated. Whoever can reach the listener can set it, unless trusted_proxies
            says who may.
        trusted_proxies: networks from which that header is believed, such as "10.0.0.5/32"; what
            connects over a unix socket is always believed.
        tls_client_users: the common name of the certificate that a client shows (tls_client_ca) is
            its user's name; there are no passwords then.
        append_only: clients can add, but delete nothing except locks.
        private_repos: users have only the repositories below their own name.
        group_accessible_repos: files and folders are made readable and writable for the group.
        verify_upload: refuse an upload that does not hash to its name.
        removable_repos: a whole repository can be removed by its owner, or who may manage it.
        max_size: bytes that all repositories together may take; 0 sets no limit.
        quota: limits, by server, user and repository; see docs/restserver.md.
        ledger: file of the accounts that limits need, on a local disk; default
            `.backupgw-ledger/ledger.sqlite3` in the place's folder.
        trash: how the place's trash is kept small.
        verify: verification by the calendar.
        repository_metrics: what /metrics says of repositories.
        rates: requests, connections and bandwidth by address and user.
        threads: blocking storage calls at a time in each worker.
        cpu_profile: file that receives a profile of the event loop's thread at the end.
    """

    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="processes that answer requests; 0: as many as there are cores, 4 at most, for "
        "a place on a local disk, else 1",
    )
    place: str = "default"
    htpasswd_file: Path | None = None
    no_auth: bool = False
    proxy_auth_username: str | None = Field(None, pattern=r"^[A-Za-z0-9-]+$")
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    tls_client_users: bool = False
    append_only: bool = False
    private_repos: bool = False
    group_accessible_repos: bool = False
    verify_upload: bool = True
    removable_repos: bool = False
    max_size: int = Field(0, ge=0)
    quota: QuotaSettings = QuotaSettings()
    ledger: Path | None = None
    trash: TrashSettings = TrashSettings()
    verify: VerifySettings = VerifySettings()
    repository_metrics: RepositoryMetricsSettings = RepositoryMetricsSettings()
    rates: RatesSettings = RatesSettings()
    threads: int = Field(24, ge=2, le=512)
    cpu_profile: Path | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_size and self.quota.server.bytes is not None:
            raise ValueError("max_size and bytes in [rest.quota.server] say the same; keep one")
        return self

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.trusted_proxies and self.proxy_auth_username is None:
            raise ValueError("trusted_proxies without proxy_auth_username, the header they may set")
        if self.tls_client_users and self.tls_client_ca is None:
            raise ValueError("tls_client_users needs tls and tls_client_ca, which signs for users")
        if self.tls_client_users and (
            self.proxy_auth_username is not None or self.htpasswd_file is not None
        ):
            raise ValueError(
                "tls_client_users leaves no room for passwords or a proxy's word; remove "
                "htpasswd_file and proxy_auth_username, or it"
            )
        return self

    def limits(self) -> Limits:
        """Return all limits together."""
        server = self.quota.server.limit()
        if self.max_size:
            server = Limit(
                self.max_size, server.hard_objects, server.soft_bytes, server.soft_objects
            )
        return Limits(
            server,
            tuple((tuple(each.who), each.limit()) for each in self.quota.user),
            tuple((tuple(each.on), each.limit()) for each in self.quota.repository),
        )

    @property
    def count_at_start(self) -> bool:
        """Whether the place is counted at each start."""
        if self.quota.count_at_start is not None:
            return self.quota.count_at_start
        return bool(self.max_size) and self.quota == QuotaSettings()
