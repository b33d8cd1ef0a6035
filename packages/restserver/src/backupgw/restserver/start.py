"""From settings to a running server: what is checked once, what each worker builds, what a person
is told."""

from __future__ import annotations

import asyncio
import cProfile
import logging
import os
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError
from backupgw.kvstore.ledger import Alarm, Ledger
from backupgw.runtime import authorisation
from backupgw.runtime.auth import BasicAuthenticator, Htpasswd
from backupgw.runtime.certificate import check_pair
from backupgw.runtime.command import CommandError
from backupgw.runtime.events import Events, check_hooks, start_gateway
from backupgw.runtime.http.reload import on_reload
from backupgw.runtime.rates import Rates
from backupgw.runtime.secrets import redact_url
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_tokens import TokenSettings
from backupgw.runtime.threads import Threads

from . import operator_jobs, quota
from .access import Access
from .announcements import Announcer
from .app import RestApp
from .identification import Identification, Tokens, identification, place_folder
from .place import disk_of, place_of
from .rates import Limiter
from .reload import Change, Reloader, take_hooks, take_rules
from .settings import RestSettings

if TYPE_CHECKING:
    from .counters import BlobCounters
    from .operator_metrics import OperatorMetrics
    from .repository_metrics import RepositoryMetrics

log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Find out whether the settings can be used, with every secret in them, and change nothing.

    Raises:
        SettingsError, CommandError: what is wrong; `SecretError` is one, too.
        BackendError: the place cannot be made.
    """
    who = identification(settings)
    if who.htpasswd is not None and settings.section("tokens", TokenSettings).key:
        # Imported late: what verifies signatures takes memory, and few need it.
        from backupgw.runtime.tokens.signed import keys_of

        keys_of(settings)
    check_hooks(settings)
    place_of(settings)


def prepare(settings: Settings) -> str:
    """Check what can only be checked here, make a missing folder, say how to use the server.

    Raises:
        SettingsError: the server would be open to strangers, or its users cannot be told apart.
        HtpasswdError: the password file cannot be used.
        BackendError: the place cannot be used.
    """
    rest = settings.section("rest", RestSettings)
    who = identification(settings)
    if who.htpasswd is not None:
        Htpasswd(who.htpasswd)  # each worker would say the same about it
    backend = place_of(settings)
    try:
        backend.open()
    except BackendDoesNotExist:
        backend.create()
        backend.open()
        log.info("%s was not there; it was made, and is empty", _where(settings))
    try:
        links = [] if (disk := disk_of(backend)) is None else list(disk.unlisted_links())
    finally:
        backend.close()
    folder = place_folder(settings)
    if folder is not None and not os.access(folder, os.W_OK, effective_ids=True):
        log.warning("%s cannot be written, so clients can only read from it", folder)
    _warn_of_certificate(rest)
    _prepare_quota(settings, backend)
    if operator_jobs.is_needed(settings):
        from backupgw.runtime.database.state import require_state

        require_state(settings)
    for name, target in links:
        log.warning(
            "%s is a symbolic link to %s and is not followed; to serve it, add the target to "
            "follow in [places.%s]",
            name,
            target,
            rest.place,
        )
    return _instructions(settings, who)


def _prepare_quota(settings: Settings, backend: Backend) -> None:
    rest = settings.section("rest", RestSettings)
    alarms: list[Alarm] = []
    limited = quota.limited(settings, backend, alarms.append)
    if limited is None:
        try:
            quota.distrust(settings)
        except (BackendError, CommandError) as error:
            # Reading must go on from a read-only disk, or while the gateways' database is away.
            log.warning(
                "the accounts of earlier limits will be wrong (%s); before there are limits "
                "again, remove them",
                error,
            )
        return
    limited.prepare(count=rest.count_at_start or quota.was_kept_elsewhere(settings))
    quota.note_keeper(settings)
    if alarms:
        # Told by this process: the ledger raises each only once.
        with start_gateway(settings) as events:
            announcer = Announcer(events.publish, rest.place)
            for alarm in alarms:
                announcer.alarm(alarm)


def _take_limits(limited: quota.RepositoryQuota | None) -> Change:
    """Return what gives the limits of new settings to a place; None is one without any."""

    def change(settings: Settings) -> None:
        limits = settings.section("rest", RestSettings).limits()
        if limited is None:
            if limits:
                raise CommandError("the first limit of all needs a restart")
            return
        try:
            limited.limit(limits)
        except ValueError as error:
            raise CommandError(str(error)) from error

    return change


def build(settings: Settings) -> Running:
    """Return the application, with its place open; called in each worker."""
    rest = settings.section("rest", RestSettings)
    who = identification(settings)
    rules = authorisation.from_settings(settings)
    changes: dict[str, Change] = {"the rules": take_rules(rules)}
    authenticator = tokens = None
    if who.htpasswd is not None:
        authenticator = BasicAuthenticator(Htpasswd(who.htpasswd))
        on_reload(authenticator.reload)
        tokens = Tokens(settings)
        changes["the keys of tokens"] = tokens.rotate
    access = Access(
        authenticator,
        user_header=who.user_header,
        proxies=rest.trusted_proxies,
        certificates=who.certificates,
        private=rest.private_repos,
        append_only=rest.append_only,
        tokens=None if tokens is None else tokens.authenticator,
        rules=rules,
        place=rest.place,
    )
    events = start_gateway(settings)
    changes["the hooks"] = take_hooks(events)
    announcer = Announcer(events.publish, rest.place)
    access.throttled = announcer.throttled
    backend = place_of(settings)
    ledger = None
    limited = quota.limited(settings, backend, announcer.alarm)
    changes["the limits"] = _take_limits(limited)
    if limited is not None:
        backend, ledger = limited, limited.ledger
        ledger.open()
    backend.open()
    threads = Threads(rest.threads, "rest")
    counters = operator_metrics = repository_metrics = None
    if rest.metrics:
        # Imported late: whoever serves nothing needs no prometheus_client.
        from prometheus_client import REGISTRY

        from .counters import BlobCounters
        from .operator_metrics import OperatorMetrics
        from .repository_metrics import RepositoryMetrics

        counters = BlobCounters(REGISTRY, most=rest.repository_metrics.most)
        operator_metrics = OperatorMetrics(settings, REGISTRY)
        repository_metrics = RepositoryMetrics(settings, backend)
    limiter = Limiter(rest.rates.rules(), Rates("rest"), limited=_count_limited)
    changes["the rates"] = lambda new: limiter.change(
        new.section("rest", RestSettings).rates.rules()
    )
    app = RestApp(
        backend,
        access,
        threads,
        counters,
        announcer,
        verify=rest.verify_upload,
        removable=rest.removable_repos,
        limiter=limiter,
    )
    on_reload(Reloader(settings, changes).trigger)
    jobs = None
    if operator_jobs.is_needed(settings):
        jobs = operator_jobs.OperatorJobs(settings, backend, events)
    held = Held(
        backend,
        ledger,
        threads,
        authenticator,
        tokens,
        jobs,
        repository_metrics,
        limiter,
        events,
        counters,
    )
    return Running(app, held, rest.cpu_profile, operator_metrics)


def _count_limited(what: str) -> None:
    # Imported late: whoever serves nothing needs no prometheus_client.
    from backupgw.runtime.metrics import counter

    counter(
        "backupgw_rest_limited_total",
        "Requests refused with 429, by whose rate was used up: address, user or connections.",
        ("by",),
    ).add(1, what)


@dataclass(frozen=True)
class Held:
    """What a worker has to let go of at its end."""

    backend: Backend
    ledger: Ledger | None
    threads: Threads
    authenticator: BasicAuthenticator | None
    tokens: Tokens | None
    jobs: operator_jobs.OperatorJobs | None
    repository_metrics: RepositoryMetrics | None
    limiter: Limiter
    events: Events
    counters: BlobCounters | None

    async def close(self) -> None:
        """Wait for running calls, then close everything."""
        if self.counters is not None:
            self.counters.publish()
        if self.jobs is not None:
            await asyncio.to_thread(self.jobs.close)
        if self.repository_metrics is not None:
            await asyncio.to_thread(self.repository_metrics.close)
        self.threads.close()
        self.backend.close()
        if self.ledger is not None:
            self.ledger.close()
        if self.tokens is not None:
            await self.tokens.close()
        if self.authenticator is not None:
            self.authenticator.close()
        self.limiter.close()
        # Last: the others may have had something to tell.
        await asyncio.to_thread(self.events.close)


class Running:
    """The application with what it holds while it runs: the ASGI callable of a worker."""

    begins_without_task = True
    """See `backupgw.runtime.http.first_step`: the application waits for threads alone."""

    def __init__(
        self,
        app: RestApp,
        held: Held,
        profile: Path | None,
        operator_metrics: OperatorMetrics | None,
    ) -> None:
        self._app = app
        self._operator_metrics = operator_metrics
        self._held = held
        self._profile = profile
        self.ready = app.ready
        self.metrics_allowed = app.metrics_allowed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or follow the life of the worker."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._app(scope, receive, send)

    def publish_metrics(self) -> None:
        """Let all workers see what this one has counted."""
        if self._held.counters is not None:
            self._held.counters.publish()

    async def before_metrics(self) -> None:
        """Bring up to date what other processes have found out."""
        self.publish_metrics()
        if self._operator_metrics is not None:
            await self._held.threads.run(self._operator_metrics.refresh)

    async def _live(self, receive: Receive, send: Send) -> None:
        profiler = cProfile.Profile() if self._profile is not None else None
        await receive()
        if profiler is not None:
            profiler.enable()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if profiler is not None and self._profile is not None:
            profiler.disable()
            profiler.dump_stats(self._profile)
        await self._held.close()
        await send({"type": "lifespan.shutdown.complete"})


def _where(settings: Settings) -> str:
    """What messages call the place."""
    place = settings.places[settings.section("rest", RestSettings).place]
    return str(place_folder(settings) or redact_url(place.url))


def _warn_of_certificate(rest: RestSettings) -> None:
    """Tell of a certificate that clients refuse; the host tells of files that cannot be used."""
    if not rest.tls or rest.tls_cert is None or rest.tls_key is None:
        return
    try:
        check_pair(rest.tls_cert, rest.tls_key)
    except CommandError as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            log.warning("TLS certificate %s; clients will refuse it", error)


def _instructions(settings: Settings, who: Identification) -> str:
    """Return the restic commands to try, with the password handling that they need."""
    rest = settings.section("rest", RestSettings)
    address = rest.listen[0]
    scheme = "https" if rest.tls else "http"
    owner = "USER/" if rest.private_repos else ""
    if address.startswith("unix:"):
        url = f"rest:http+unix://{address.removeprefix('unix:')}:/{owner}my-machine/"
    else:
        host = address if not address.startswith(":") else f"THIS-MACHINE{address}"
        url = f"rest:{scheme}://{host}/{owner}my-machine/"
    lines = [
        f"Serving restic repositories in {_where(settings)}.",
        "In another terminal, line by line or all at once:",
        "",
        "    # The password that encrypts the backups; whoever loses it has lost them.",
        "    test -e ~/.restic-password ||"
        " (umask 077; head -c 24 /dev/urandom | base64 > ~/.restic-password)",
        "    export RESTIC_PASSWORD_FILE=~/.restic-password",
        f"    export RESTIC_REPOSITORY={url}",
    ]
    if who.htpasswd is not None:
        lines += [
            f"    export RESTIC_REST_USERNAME=USER       # one of the users in {who.htpasswd}",
            "    export RESTIC_REST_PASSWORD=PASSWORD   # and what htpasswd was told",
        ]
    if rest.tls:
        lines.append(f"    export RESTIC_CACERT={rest.tls_cert}   # unless an authority signed it")
    lines += [
        "    restic init",
        "    restic backup /usr/share/doc",
        "    restic snapshots",
        "    restic check --read-data",
        "    restic restore latest --target /tmp/restored",
        "",
    ]
    if who == Identification():
        lines.append("There is no password file: whoever can connect can read and delete.")
    return "\n".join(lines)
