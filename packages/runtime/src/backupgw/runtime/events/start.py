"""From the settings to running events."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backupgw.runtime.command import CommandError

from . import current
from .dispatcher import Events, Sink
from .log_sink import LogSink
from .metrics_sink import MetricsSink
from .settings import EventsSettings, HookSettings, check_url
from .stream import EventStream

if TYPE_CHECKING:
    from backupgw.runtime.settings import Settings

    from .hooks import Carrier

JOURNAL = "events.sqlite3"
HOOKS = "hooks"
"""What the sink of commands and webhooks is called."""


def start(
    settings: EventsSettings,
    *,
    stream: EventStream | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Events:
    """Start what the section describes, in this process; `Events.close` ends it.

    Call it in each worker: they share the journal, and each hook is told once.

    Args:
        stream: told as well; a service keeps it for its route.
        environ: what commands may inherit from; default `os.environ`.
        folder: where the journal lies unless the settings name it; default the working directory.

    Raises:
        CommandError: a secret cannot be had, or the journal cannot be used. The message says which
            hook and what to do.
    """
    sinks: list[Sink] = [MetricsSink()]
    if settings.log:
        sinks.insert(0, LogSink())
    if stream is not None:
        sinks.append(stream)
    if settings.hook:
        sinks.append(_hooks(settings, environ, folder))
    events = Events(sinks, queue_size=settings.queue, gateway=settings.gateway)
    events.start()
    return events


def start_gateway(settings: Settings, *, stream: EventStream | None = None) -> Events:
    """Start what a gateway's settings describe, with its journal in the state folder.

    Raises:
        CommandError: as `start`, or the state folder cannot be used.
    """
    section = settings.section("events", EventsSettings)
    return current.remember(start(section, stream=stream, folder=_journal_folder(settings)))


def check_hooks(settings: Settings) -> None:
    """Find out whether the hooks can be told, with every secret of theirs, and change nothing.

    Raises:
        CommandError: as `start_gateway`.
    """
    for hook in settings.section("events", EventsSettings).hook:
        _carrier(hook, os.environ)


def renew_hooks(events: Events, settings: Settings) -> int:
    """Tell the hooks of other settings from now on, with their secrets read anew; return how many.

    What waits for a hook of the same name is brought to where it points now; what waits for one
    that is gone is forgotten. An attempt under way may be made again.

    Raises:
        CommandError: as `start_gateway`; the hooks stay as they were.
    """
    section = settings.section("events", EventsSettings)
    hooks = _hooks(section, None, _journal_folder(settings)) if section.hook else None
    events.exchange(HOOKS, hooks)
    return len(section.hook)


def _journal_folder(settings: Settings) -> Path | None:
    from backupgw.runtime import state_folder

    section = settings.section("events", EventsSettings)
    if not section.hook or section.journal is not None:
        return None
    return state_folder.prepare(state_folder.find(settings))


def _hooks(
    settings: EventsSettings, environ: Mapping[str, str] | None, folder: Path | None
) -> Sink:
    from .hooks import Hook, Hooks
    from .journal import Journal

    environ = os.environ if environ is None else environ
    hooks = [
        Hook(hook.name, hook.filter(), _carrier(hook, environ), hook.keep_for)
        for hook in settings.hook
    ]
    journal = settings.journal or (folder or Path()) / JOURNAL
    return Hooks(hooks, Journal(str(journal)), pending=settings.pending)


def _carrier(hook: HookSettings, environ: Mapping[str, str]) -> Carrier:
    if hook.command:
        from .commands import CommandCarrier

        return CommandCarrier(hook.command, hook.time_limit, environ)
    try:
        from .webhooks import Endpoint, WebhookCarrier
    except ImportError as error:
        raise CommandError(
            f"the hook {hook.name} needs the library {error.name}; install backupgw-runtime[events]"
        ) from error
    from .signature import key_of

    assert hook.url is not None
    url = hook.url.reveal()
    headers = {name: value.reveal() for name, value in hook.headers.items()}
    try:
        check_url(url)
        key = key_of(hook.secret.reveal()) if hook.secret is not None else None
    except ValueError as error:
        raise CommandError(f"the hook {hook.name}: {error}") from None
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise CommandError(f"the hook {hook.name}: the header {name} is not printable ASCII")
    ca_file = None if hook.ca_file is None else str(hook.ca_file)
    try:
        return WebhookCarrier(Endpoint(url, key, headers, ca_file), hook.time_limit)
    except OSError as error:
        raise CommandError(
            f"the hook {hook.name}: cannot use the certificates in {ca_file}: {error.strerror}"
        ) from error
