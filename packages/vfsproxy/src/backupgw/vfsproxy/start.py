"""From settings to running services: what is checked once, what each worker builds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import sqlalchemy as sa
from starlette.types import Receive, Scope, Send

from backupgw.runtime.events import Events, check_hooks, start_gateway
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_tokens import TokenSettings
from backupgw.runtime.threads import Threads

from .api.app import Api, Authenticate, Observe
from .api.cors import Cors
from .api.exchange import Exchange
from .api.operation import Operation
from .api.router import Router
from .authentication import (
    CLIENT_SECURITY,
    MANAGER_SECURITY,
    ClientAuthentication,
    ManagerAuthentication,
)
from .core import Core
from .operation_log import OperationLog
from .operations import client_operations, manager_operations
from .problems import Problem
from .settings import ManagerSettings, VfsSettings
from .tasks.pace import Traffic
from .volumes.registry import volumes_of

log = logging.getLogger(__name__)

SHORTEST_TOKEN = 16
"""Characters of the manager's token, at least: whoever has it has everything."""


def check(settings: Settings) -> None:
    """Find out whether the settings can be used, with every secret in them, and change nothing.

    Raises:
        SettingsError, CommandError: what is wrong; `SecretError` is one, too.
        BackendError: a place cannot be made.
    """
    vfs = settings.section("vfs", VfsSettings)
    for secret in (vfs.cache.url, None if vfs.manager is None else vfs.manager.token):
        if secret is not None:
            secret.reveal()
    if settings.section("tokens", TokenSettings).key:
        # Imported late: what verifies signatures takes memory.
        from backupgw.runtime.tokens.signed import keys_of

        keys_of(settings)
    check_hooks(settings)
    volumes_of(settings)


def prepare(settings: Settings) -> str:
    """Make what is missing, count what nobody has counted; say how to use the service.

    Raises:
        SettingsError, CommandError: the settings or the database cannot be used.
        BackendError: a volume cannot be used.
    """
    with start_gateway(settings) as events, Core(settings, events.publish) as core:
        core.accounts.learn_all(core.database)
    vfs = settings.section("vfs", VfsSettings)
    shown = vfs.listen[0]
    where = f"http{'s' if vfs.tls else ''}://{shown}" if not shown.startswith("unix:") else shown
    return "\n".join(
        [
            f"Serving virtual folders on {where}; what there is to call: {where}/openapi.json",
            "Make a key for a user, and a folder:",
            "",
            "    export KEY=$(backupgw vfs token create alice)",
            "    curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' \\",
            f'        -d \'{{"name": "documents"}}\' {where}/v1/folders',
            "",
        ]
    )


def check_manager(settings: Settings) -> None:
    """Check what the manager's service needs.

    Raises:
        SettingsError: there is no token, or one that can be guessed.
    """
    token = _manager_token(settings)
    if len(token) < SHORTEST_TOKEN:
        raise settings.mistake(
            f"a manager's token has {SHORTEST_TOKEN} characters or more; make one with: "
            "openssl rand -hex 32",
            "vfs_manager",
            "token",
        )


def _manager_token(settings: Settings) -> str:
    secret = settings.section("vfs_manager", ManagerSettings).token
    if secret is None:
        raise settings.mistake(
            'is missing: whoever shows it may do everything; set token = { file = "…" }',
            "vfs_manager",
            "token",
        )
    return secret.reveal()


def build_clients(settings: Settings) -> Running:
    """Return the application for clients; called in each worker."""
    return Running(
        settings,
        "vfs",
        ClientAuthentication(settings),
        partial(client_operations, security=CLIENT_SECURITY),
    )


def build_manager(settings: Settings) -> Running:
    """Return the application for managers; called in each worker."""
    return Running(
        settings,
        "vfs_manager",
        ManagerAuthentication(_manager_token(settings)),
        partial(manager_operations, security=MANAGER_SECURITY),
    )


def _noting(traffic: Traffic) -> Observe:
    """Return what notes that there was a request: tasks give way to them."""

    def noting(
        _exchange: Exchange, operation: Operation | None, _problem: Problem | None, _seconds: float
    ) -> None:
        if operation is None or operation.tag != "tasks":
            traffic.note()

    return noting


def _each(*observers: Observe) -> Observe:
    """Return what tells all of them of a request that has ended."""

    def observe(
        exchange: Exchange, operation: Operation | None, problem: Problem | None, seconds: float
    ) -> None:
        for observer in observers:
            observer(exchange, operation, problem, seconds)

    return observe


class Running:
    """An API with what it holds while it runs: the ASGI callable of a worker."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        authenticate: Authenticate,
        operations: Callable[[Core, Threads], Sequence[Operation]],
    ) -> None:
        vfs = settings.section("vfs", VfsSettings)
        self._events: Events = start_gateway(settings)
        self._authenticate = authenticate
        self._core = Core(
            settings, self._events.publish, application=f"backupgw {name}", events=self._events
        )
        try:
            self._core.open()
            self._core.tasks.start()
        except BaseException:
            self._events.close()
            raise
        self._threads = Threads(vfs.threads, name)
        # Imported late: whoever serves nothing needs no prometheus_client.
        from .metrics import RequestObserver

        api = Api(
            Router(operations(self._core, self._threads)),
            authenticate,
            self._threads,
            Cors(vfs.cors),
            ready=self._check,
            observe=_each(
                RequestObserver(name),
                OperationLog(self._core.folders.backend_of, everything=vfs.operation_log),
                _noting(self._core.traffic),
            ),
            source=self._core.source,
        )
        self._api = api
        self.ready = api.ready
        self.metrics_allowed = api.metrics_allowed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or follow the life of the worker."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._api(scope, receive, send)

    def _check(self) -> bool:
        with self._core.database.read() as connection:
            connection.execute(sa.select(sa.literal(1)))
        for volume in self._core.volumes.values():
            volume.volume.backend.info("")
        return True

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._threads.close()
        if isinstance(self._authenticate, ClientAuthentication):
            await self._authenticate.close()
        await asyncio.to_thread(self._core.close)
        await asyncio.to_thread(self._events.close)
        await send({"type": "lifespan.shutdown.complete"})
