"""From settings to a running node: what is checked once, and what the worker builds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable

from starlette.types import Receive, Scope, Send

from backupgw.runtime import state_folder
from backupgw.runtime.command import CommandError
from backupgw.runtime.database.state import open_state, require_state
from backupgw.runtime.events import check_hooks, start_gateway
from backupgw.runtime.jobs import Jobs
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_jobs import JobsSettings
from backupgw.runtime.threads import Threads

from .adapter import Adapter
from .answering import VERSION, Manner
from .app import WingsApp
from .archive_start import ArchivesHere
from .endings import Endings
from .event_hub import EventHub
from .hooks import Hooks
from .node import Node, node_of, restic_plan
from .operations import NodeOperations
from .orphans import Orphans, put_in_order
from .panel import Panel
from .records import Records
from .reports import Reporter
from .repositories import Repositories
from .restic_adapter import ResticAdapter
from .running_server import AskedWings, RunningServers, WorkingProcesses
from .servers import Servers
from .settings import WingsSettings
from .snapshots import SnapshotIndex
from .upkeep import Upkeep
from .upstream import Upstream
from .upstream_events import UpstreamEvents
from .work import Worker

log = logging.getLogger(__name__)

RECORDS = "wings.sqlite3"
THREADS = 32
SPARE_JOBS = 4
"""Places among running jobs for deletes and upkeep, beside backups and restores."""


def check(settings: Settings) -> None:
    """Find out whether the settings can be used, with every secret in them, and change nothing.

    Raises:
        SettingsError, CommandError: what is wrong; `SecretError` is one, too.
        BackendError: the place cannot be made.
    """
    plan = restic_plan(settings, node_of(settings), state_folder.find(settings))
    check_hooks(settings)
    if plan is None:
        return
    section = settings.section("wings", WingsSettings)
    for secret in (plan.password, *section.restic.passwords.values()):
        if secret is not None:
            secret.reveal()
    if plan.place is not None:
        settings.open_place(plan.place)


def prepare(settings: Settings) -> str:
    """Check what can only be checked here, and say what the node is.

    Raises:
        SettingsError: something is missing, or contradicts itself.
        CommandError: the state folder or its database cannot be used.
    """
    node = node_of(settings)
    state = state_folder.prepare(state_folder.find(settings))
    plan = restic_plan(settings, node, state)
    require_state(settings)
    told = f"telling {node.panel}" if node.panel else "with no Panel to be told"
    lines = [f"Backups of the servers in {node.data}, {told}."]
    if plan is not None:
        where = f"the place {plan.place}" if plan.place else "a repository of its own address"
        lines.append(f"Snapshots by {plan.program.shown} in {where}.")
    return "\n".join(lines)


def build(settings: Settings) -> Running:
    """Return the application with all that runs behind it.

    Raises:
        CommandError, SettingsError: it cannot be.
    """
    with contextlib.ExitStack() as stack:
        running = _build(settings, stack)
        running.held = stack.pop_all()
        return running


def _build(settings: Settings, stack: contextlib.ExitStack) -> Running:
    section = settings.section("wings", WingsSettings)
    # Each request to the Panel would be a line.
    logging.getLogger("httpx").setLevel(max(logging.getLogger().level, logging.WARNING))
    node = node_of(settings)
    state = state_folder.prepare(state_folder.find(settings))
    plan = restic_plan(settings, node, state)
    events = start_gateway(settings)
    stack.callback(events.close)
    records = Records(state / RECORDS)
    stack.callback(records.close)
    panel = _panel(node)
    if panel is not None:
        stack.callback(panel.close)
    deny = section.unknown_servers != "allow"
    servers = Servers(node, records, panel, deny=deny)
    stack.callback(servers.close)
    reporter = Reporter(records, panel if section.notify else None)
    stack.callback(reporter.close)
    hub = EventHub()
    adapters: dict[str, Adapter] = {}
    repositories: Repositories | None = None
    index: SnapshotIndex | None = None
    if plan is not None:
        repositories = Repositories(settings, plan, state)
        stack.callback(repositories.close)
        repositories.start()
        index = SnapshotIndex(repositories, records, section.restic.refresh)
        stack.callback(index.close)
        adapters["restic"] = ResticAdapter(repositories, index)
    archives = ArchivesHere(section, node, panel)
    adapters["wings"] = archives.wings
    if archives.s3 is not None:
        adapters["s3"] = archives.s3
    for adapter in adapters.values():
        stack.callback(adapter.close)
    upstream = section.upstream
    behind = None if upstream is None else Upstream(upstream, verify=section.upstream_verify)
    endings = Endings(records, reporter, hub, events)
    worker = Worker(
        section,
        node,
        adapters,
        records,
        endings,
        hub,
        Hooks(section.hook, os.environ),
        servers,
        _running(section, node),
    )
    handlers = worker.handlers()
    upkeep = None
    if repositories is not None and index is not None:
        upkeep = Upkeep(section, node, repositories, index, records, panel, events)
        handlers += upkeep.handlers()
    database = open_state(settings, application="backupgw wings")
    stack.callback(database.close)
    orphans = Orphans(records, endings, events)
    stack.callback(orphans.close)
    jobs = Jobs(database, handlers, settings=_jobs(settings, section), events=orphans)
    stack.callback(jobs.close)
    put_in_order(node, records, endings)
    servers.start()
    if index is not None:
        index.start()
    jobs.start()
    jobs.set_schedules(f"wings {node.uuid}", upkeep.schedules() if upkeep is not None else [])
    if upkeep is not None:
        for name in sorted(set(records.to_remove().values())):
            jobs.submit(upkeep.kind("forget"), {"repository": name}, key=f"wings forget {name}")
    orphans.start(jobs)
    reporter.start()
    threads = Threads(THREADS, "wings")
    stack.callback(threads.close)
    stack.callback(hub.close)
    operations = NodeOperations(
        section, node, adapters, records, servers, jobs, repositories, index
    )
    app = WingsApp(
        operations,
        node.token,
        Manner(node.token_id, node.panel, node.wings.allowed_origins if node.wings else ()),
        hub,
        threads,
        keep_alive=section.keep_alive,
        download=archives.downloads(database, threads, servers.knows),
        upstream=behind,
        other_events=None if behind is None else UpstreamEvents(behind, node.token),
    )
    return Running(app, node.token, hub, repositories, behind)


def _panel(node: Node) -> Panel | None:
    if node.panel is None:
        return None
    return Panel(
        node.panel,
        node.token_id,
        node.token,
        headers=node.wings.remote_query.custom_headers if node.wings else None,
        agent=f"Pelican Wings/v{VERSION} (id:{node.token_id})",
    )


def _running(section: WingsSettings, node: Node) -> RunningServers:
    if section.upstream is None:
        return WorkingProcesses()
    address = section.upstream.rstrip("/")
    return AskedWings(address, node.token, verify=section.upstream_verify)


def _jobs(settings: Settings, section: WingsSettings) -> JobsSettings:
    """Return the settings of jobs, with room for what this section allows at a time."""
    given = settings.section("jobs", JobsSettings)
    wanted = section.running + section.restores + SPARE_JOBS
    return given.model_copy(
        update={"here": max(given.here, wanted), "running": max(given.running, wanted)}
    )


class Running:
    """The application with what it holds while it runs: the ASGI callable of the worker."""

    def __init__(
        self,
        app: WingsApp,
        token: str,
        hub: EventHub,
        repositories: Repositories | None,
        behind: Upstream | None,
    ) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode()
        self._hub = hub
        self._repositories = repositories
        self._behind = behind
        self.held = contextlib.ExitStack()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or follow the life of the worker."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._app(scope, receive, send)

    async def ready(self) -> bool:
        """Whether repositories can be reached, as far as that is this process's affair."""
        return self._repositories is None or self._repositories.served

    def before_stop(self) -> None:
        """End the streams of events: they would be waited for."""
        self._hub.close()

    async def metrics_allowed(self, scope: Scope) -> int:
        """Return 200 for who shows the node's token."""
        import hmac

        shown = dict(scope["headers"]).get(b"authorization", b"")
        return 200 if hmac.compare_digest(shown, self._token) else 401

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._behind is not None:
            await self._behind.aclose()
        try:
            # On a thread: running backups are stopped first, and that takes a while.
            await asyncio.to_thread(self.held.close)
        except CommandError as error:
            log.warning("%s", error)
        await send({"type": "lifespan.shutdown.complete"})
