"""One service in one process: uvicorn's server with our sockets, signals and housekeeping.

This is the only place where uvicorn is set up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from backupgw.runtime.http.access_log import AccessLog
from backupgw.runtime.http.dealing import Line, Taker
from backupgw.runtime.http.endpoints import App, Endpoints, hook
from backupgw.runtime.http.errors import HostError
from backupgw.runtime.http.first_step import NOWAIT, PROMISE
from backupgw.runtime.http.listeners import Listener
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.http.protocol import GatewayProtocol
from backupgw.runtime.http.reload import run_reload_callbacks
from backupgw.runtime.http.state import HostState
from backupgw.runtime.http.tls import CHECK_EVERY, Certificate
from backupgw.runtime.http.tls_door import TlsDoor, TlsListener

if TYPE_CHECKING:
    from backupgw.runtime.metrics import RequestMetrics

logger = logging.getLogger(__name__)

BEAT = 0.25  # seconds between two steps of the clock and looks at the deadlines
LONGEST_BEAT = 4 * BEAT  # what took longer was our own delay, and no client pays for it
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Hosted:
    """A service to be served.

    Attributes:
        name: the service's name, a label of its metrics.
        app: `module:function`, imported in each worker; called with `argument` it returns an ASGI
            application that understands the lifespan protocol.
        argument: anything that can be pickled.
        options: how it is served.
        modules: what the application imports beside its own module, sooner or later.
    """

    name: str
    app: str
    argument: Any = field(repr=False)
    options: HttpOptions
    modules: tuple[str, ...] = ()


def load(reference: str) -> Any:
    """Import what `module:name` names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


class Housekeeping:
    """What is done a few times a second: clock, deadlines, log, metrics, certificate."""

    def __init__(
        self,
        host: HostState,
        state: uvicorn.server.ServerState,
        log: AccessLog | None,
        metrics: RequestMetrics | None,
        certificate: Certificate | None,
        publish: Callable[[], None] | None,
    ) -> None:
        self.log = log
        self.certificate = certificate
        self._host = host
        self._state = state
        self._metrics = metrics
        self._publish = publish
        self._last = 0.0
        self._beats = 0
        self._next_certificate = CHECK_EVERY
        self._next_write = host.options.write_stall_timeout

    def start(self) -> None:
        """Begin, on the running loop."""
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        self._set_date()
        loop.call_later(BEAT, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._host.clock += min(now - self._last, LONGEST_BEAT)
        self._last = now
        self._beats += 1
        loop.call_later(BEAT, self._beat, loop)
        self._expire()
        if self.log is not None:
            self.log.flush()
        if self._beats % 4 == 0:
            self._set_date()
            self.publish()
            if self._publish is not None:
                self._publish()
        if self._host.clock >= self._next_certificate:
            self._next_certificate += CHECK_EVERY
            if self.certificate is not None:
                self.certificate.refresh_if_changed()

    def _expire(self) -> None:
        clock = self._host.clock
        connections = self._state.connections
        late = [c for c in connections if isinstance(c, GatewayProtocol) and c.deadline < clock]
        for connection in late:
            connection.expire()
        if clock >= self._next_write:
            self._next_write = clock + self._host.options.write_stall_timeout
            for other in list(connections):
                if isinstance(other, GatewayProtocol):
                    other.check_write_stall()

    def _set_date(self) -> None:
        self._host.end_of_head = f"date: {formatdate(usegmt=True)}\r\n\r\n".encode()

    def publish(self) -> None:
        """Bring the metrics up to date."""
        if self._metrics is not None:
            self._metrics.publish(
                self._host.requests, len(self._state.tasks), len(self._state.connections)
            )


class HostServer(uvicorn.Server):
    """uvicorn's server on our listeners.

    SIGTERM and SIGINT stop it gracefully, a second SIGINT at once, SIGHUP reloads. It also stops
    when the supervisor that started it is gone.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        host: HostState,
        listeners: Sequence[Listener],
        connection: socket.socket | None = None,
        line: Line | None = None,
        alive: int | None = None,
    ) -> None:
        super().__init__(config)
        self.host = host
        self.listeners = listeners
        self.connection = connection
        self.line = line
        self.alive = alive
        self.taker: Taker | None = None
        self.housekeeping: Housekeeping | None = None
        self.on_ready: Callable[[], None] | None = None
        self.before_stop: Callable[[], None] | None = None
        self.failed = False

    async def startup(self, sockets: Any = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Start the application, then accept."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.failed = self.should_exit = True
            return
        loop = asyncio.get_running_loop()
        if self.housekeeping is not None:
            self.housekeeping.start()

        def protocol() -> GatewayProtocol:
            return GatewayProtocol(
                self.config, self.server_state, self.lifespan.state, loop, host=self.host
            )

        door = None
        if self.config.ssl is not None:
            door = TlsDoor(self.config.ssl, protocol, self.host.options.header_timeout)
        self.servers: list[asyncio.base_events.Server] = []
        for listener in self.listeners:
            server: Any
            if listener.is_unix:
                server = await loop.create_unix_server(protocol, sock=listener.sock)
            elif door is not None:
                server = TlsListener(listener.sock, door)
            else:
                server = await loop.create_server(protocol, sock=listener.sock)
            self.servers.append(server)
        if self.connection is not None:
            await loop.connect_accepted_socket(protocol, self.connection)
        if self.line is not None:
            self._take_from(self.line, protocol, door)
        # What stands now stays: the collector need not walk over it with every young generation
        # that fills up.
        gc.collect()
        gc.freeze()
        self.started = True
        if self.on_ready is not None:
            self.on_ready()

    def _take_from(
        self, line: Line, protocol: Callable[[], GatewayProtocol], door: TlsDoor | None
    ) -> None:
        loop = asyncio.get_running_loop()

        def take(connection: socket.socket, unix: bool) -> Awaitable[object]:
            if unix or door is None:
                return loop.connect_accepted_socket(protocol, connection)
            return door.enter(connection)

        self.taker = Taker(line, take)
        self.host.connection_lost = self.taker.count_end
        self.taker.start()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop: when told to, or when the one client there is has hung up."""
        alone = self.connection is not None and not self.server_state.connections
        return await super().on_tick(counter) or alone

    async def shutdown(self, sockets: Any = None) -> None:
        """Take no new connection, let running requests end, stop the application."""
        self.host.stopping = True
        if self.before_stop is not None:
            self.before_stop()
        if self.taker is not None:
            self.taker.close()
        running = len(self.server_state.tasks)
        if running:
            logger.info("stopping: %d running requests may end first", running)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals on the loop; they were blocked until now."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._handle, number)
        if self.alive is not None:
            loop.add_reader(self.alive, self._orphaned, loop, self.alive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            # Blocked again, and then ignored, also by other threads, so that none kills the process
            # while it tidies up.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            if self.alive is not None:
                loop.remove_reader(self.alive)
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._reload()
            return
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        self.should_exit = self.host.stopping = True

    def _orphaned(self, loop: asyncio.AbstractEventLoop, alive: int) -> None:
        logger.error("the supervisor is gone; stopping")
        loop.remove_reader(alive)
        self.should_exit = self.host.stopping = True

    def _reload(self) -> None:
        logger.info("SIGHUP: reloading")
        if self.housekeeping is not None:
            if self.housekeeping.log is not None:
                self.housekeeping.log.reopen()
            if self.housekeeping.certificate is not None:
                self.housekeeping.certificate.refresh()
        run_reload_callbacks()


def serve(
    hosted: Hosted,
    listeners: Sequence[Listener],
    on_ready: Callable[[], None],
    connection: socket.socket | None = None,
    line: Line | None = None,
    alive: int | None = None,
) -> int:
    """Serve until a signal; return the exit status.

    Args:
        hosted: the service.
        listeners: sockets that listen already.
        on_ready: called once when requests are being answered.
        connection: a connected socket to serve, too; the server stops when its client hangs up.
        line: where connections come from that the supervisor has accepted.
        alive: descriptor that has an end of file once the supervisor is gone.

    Raises:
        HostError: the access log or the TLS pair cannot be used.
        Exception: what the service's own start raised.
    """
    options = hosted.options
    certificate = Certificate(options) if options.tls else None
    log = AccessLog(options.access_log, options.access_log_format) if options.access_log else None
    try:
        host = HostState(options, log.add if log is not None else None, hosted.name)
        metrics = _request_metrics(hosted.name) if options.metrics else None
        app: App = load(hosted.app)(hosted.argument)
        host.begins_at_once = bool(hook(app, PROMISE))
        host.answer_nowait = hook(app, NOWAIT)
        config = _config(options, certificate)
        server = HostServer(config, host, listeners, connection, line, alive)
        housekeeping = Housekeeping(
            host, server.server_state, log, metrics, certificate, hook(app, "publish_metrics")
        )
        config.app = Endpoints(app, host, housekeeping.publish if metrics else None)
        server.housekeeping = housekeeping
        server.on_ready = on_ready
        server.before_stop = hook(app, "before_stop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve())
    finally:
        if log is not None:
            log.close()
    if server.failed:
        raise HostError(f"{hosted.name} could not start; the reason is logged above")
    return 0


def _request_metrics(service: str) -> RequestMetrics:
    # Imported late: whoever serves nothing needs no prometheus_client.
    from backupgw.runtime.metrics import RequestMetrics

    return RequestMetrics(service)


def _config(options: HttpOptions, certificate: Certificate | None) -> uvicorn.Config:
    context = certificate.context if certificate is not None else None
    return uvicorn.Config(
        "",  # replaced by the application once the server's state exists
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=ceil(options.graceful_timeout),
        ssl_context_factory=None if context is None else (lambda _config, _default: context),
    )
