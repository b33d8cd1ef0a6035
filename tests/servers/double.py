"""A service of others as an ASGI application on loopback, with faults on demand.

For services that cannot run here: the application speaks the documented protocol to the real
client library over real HTTP; `Double` serves it, keeps a record of what was asked, and breaks
down as it is told.

    with Double(application) as double:
        client = TheRealClient(double.url)
        double.faults = Faults(rate=0.2, seed=1)          # a fifth of the requests fails
        double.kill(); double.start()                     # connections reset; the same port again
        double.calls.count(lambda call: call.method == "GET")
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .process import START_TIMEOUT, ServerFailed
from .tls import Certificate

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_TRANSPORT = "double.transport"


class Fault(enum.Enum):
    """How a request goes wrong."""

    TOO_MANY = "429 with Retry-After, before anything was done"
    UNAVAILABLE = "503, before anything was done"
    RESET = "the connection is reset before anything was done"
    LOST = "everything is done, and the connection is reset instead of an answer"
    CUT = "the connection is reset in the middle of the answer's body"
    STALL = "nothing happens for `Faults.stall` seconds, then all goes well"


@dataclass
class Faults:
    """Which requests go wrong, and how. By default nothing does.

    Attributes:
        rate: share of the requests, 0 to 1.
        kinds: one of them is drawn for each.
        seed: the same draws in the same order.
        retry_after: seconds that 429 asks for, in the header; None leaves it out.
        stall: seconds that a stalled request waits.
        only: whether a request may be hit; all of them by default.
        limit: how many requests are hit at most; None for no end.
        answer: what a 429 or 503 carries: called with the status, returns content type and body.
    """

    rate: float = 0.0
    kinds: Sequence[Fault] = (Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET)
    seed: int = 0
    retry_after: int | None = 0
    stall: float = 60.0
    only: Callable[[Scope], bool] = lambda scope: True
    limit: int | None = None
    answer: Callable[[int], tuple[str, bytes]] = lambda status: ("text/plain", b"try again later")
    hit: int = 0
    """How many requests went wrong so far."""
    _draws: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._draws = random.Random(self.seed)

    def draw(self, scope: Scope) -> Fault | None:
        """Decide on a request."""
        if not self.rate or not self.only(scope):
            return None
        if self.limit is not None and self.hit >= self.limit:
            return None
        if self._draws.random() >= self.rate:
            return None
        self.hit += 1
        return self._draws.choice(self.kinds)


async def whole_body(receive: Receive) -> bytes | None:
    """Return a request's body; None where the request was broken off, of which nothing is kept."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


class Call(NamedTuple):
    """A request that came, and what it was answered; status 0 for no answer."""

    method: str
    path: str
    query: str
    status: int
    fault: Fault | None


class Calls:
    """The requests so far. Safe to read from any thread."""

    def __init__(self) -> None:
        self._calls: list[Call] = []

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls[:])

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        self._calls.append(call)

    def count(self, wanted: Callable[[Call], bool] = lambda call: True) -> int:
        """Return how many calls are wanted ones."""
        return sum(map(wanted, self))

    def clear(self) -> None:
        """Forget what came so far."""
        self._calls.clear()


class Double:
    """Serves an ASGI application from a thread of this process. A context manager.

    Args:
        application: an ASGI application (its lifespan is not run).
        certificate: speak TLS.

    Attributes:
        faults: may be replaced at any time; holds for requests that come later.
        delay: seconds before a request is looked at, as a far service takes. Where it is set
            before `start`, it is kept to a tenth of a millisecond.
        calls: what came.
        held: how many requests wait in a `holding` block.
        port: the same after a restart.
    """

    def __init__(self, application: Application, *, certificate: Certificate | None = None) -> None:
        self.faults = Faults()
        self.delay = 0.0
        self.held = 0
        self._free = threading.Event()
        self._free.set()
        self.calls = Calls()
        self.port = 0
        self._application = application
        self._certificate = certificate
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"{'http' if self._certificate is None else 'https'}://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Let requests that come meanwhile wait; they are looked at afterwards."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    @contextlib.contextmanager
    def all_held(self, count: int) -> Iterator[None]:
        """Let nothing that comes meanwhile be looked at before so many requests have come; the
        block fails where they do not come at once, but one after the other.

        Raises:
            ServerFailed: they did not come.
        """

        def release() -> None:
            end = time.monotonic() + START_TIMEOUT
            while self.held < count and time.monotonic() < end:
                time.sleep(0.002)
            came.append(self.held)
            self._free.set()

        came: list[int] = []
        releasing = threading.Thread(target=release)
        with self.holding():
            releasing.start()
            try:
                yield
            finally:
                releasing.join()
        if came[0] < count:
            raise ServerFailed(f"{came[0]} requests came at once, not {count}")

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one afterwards."""
        assert self._thread is None, "it runs"
        # The protocol is named, or asyncio would leave Nagle's algorithm on: 40 ms an answer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        settings = uvicorn.Config(
            self._serve,
            interface="asgi3",
            http=_Protocol,
            ws="websockets-sansio",
            proxy_headers=False,
            date_header=False,
            server_header=False,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=None if self._certificate is None else self._certificate.chain,
            ssl_keyfile=None if self._certificate is None else self._certificate.key,
        )
        self._server = uvicorn.Server(settings)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener, ready), name="double", daemon=True
        )
        self._thread.start()
        if not ready.wait(START_TIMEOUT):
            raise ServerFailed("the double did not start")

    def kill(self) -> None:
        """End abruptly: every connection is reset, whatever it was doing. Idempotent."""
        if self._thread is None:
            return
        assert self._server is not None
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # its loop has ended by itself
            self._loop.call_soon_threadsafe(self._abort, self._server)
        self._thread.join(START_TIMEOUT)
        if self._thread.is_alive():
            raise ServerFailed("the double did not stop")
        self._thread = None

    def restart(self) -> None:
        """Kill it and start it again; what the application keeps stays."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _run(self, server: uvicorn.Server, listener: socket.socket, ready: threading.Event) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(ready.set)
            await server.serve(sockets=[listener])

        loop = _exact_loop if self.delay else None
        with listener, asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve())

    def _abort(self, server: uvicorn.Server) -> None:
        server.should_exit = server.force_exit = True
        for connection in [*server.server_state.connections]:
            reset(getattr(connection, "transport", None))
        for task in [*server.server_state.tasks]:
            task.cancel()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a websocket: neither counted nor broken
            await self._application(scope, receive, send)
            return
        fault = self.faults.draw(scope)
        answered = False

        def note(status: int) -> None:
            query = scope["query_string"].decode("latin-1")
            self.calls.add(Call(scope["method"], scope["path"], query, status, fault))

        async def noting(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                note(message["status"])  # before the client can know
            await send(message)

        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            if not self._free.is_set():
                self.held += 1
                await asyncio.to_thread(self._free.wait)
                self.held -= 1
            await self._answer(fault, scope, receive, noting)
        finally:
            if not answered:
                note(0)

    async def _answer(
        self, fault: Fault | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        transport = scope.pop(_TRANSPORT)
        match fault:
            case Fault.TOO_MANY | Fault.UNAVAILABLE:
                await self._refuse(429 if fault is Fault.TOO_MANY else 503, receive, send)
            case Fault.RESET:
                reset(transport)
            case Fault.LOST:
                await self._application(scope, receive, _to_nowhere)
                reset(transport)
            case Fault.CUT:
                await self._application(scope, receive, _cutting(send, transport))
            case _:
                if fault is Fault.STALL:
                    await asyncio.sleep(self.faults.stall)
                await self._application(scope, receive, send)

    async def _refuse(self, status: int, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass  # the client may not listen before it has sent all
        kind, body = self.faults.answer(status)
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        if status == 429 and self.faults.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.faults.retry_after))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _exact_loop() -> asyncio.AbstractEventLoop:
    """Return a loop whose timers do not wait for whole milliseconds, as those of epoll do. It takes
    a thousand connections."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with a way to the connection for those who are to break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[_TRANSPORT] = self.transport  # type: ignore[literal-required]


async def _to_nowhere(_message: Message) -> None:
    pass


def _cutting(send: Send, transport: asyncio.Transport) -> Send:
    """A `send` that lets half of the first piece of a body through, or nothing of an empty one."""
    cut = False

    async def cutting(message: Message) -> None:
        nonlocal cut
        body = message.get("body", b"")
        if cut:
            return
        if message["type"] == "http.response.start":
            await send(message)
        elif body:
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
            cut = True
        elif not message.get("more_body"):
            cut = True
        if cut:
            transport.close()  # what was sent arrives; the rest never does

    return cutting


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Close a connection with RST: the peer sees ECONNRESET at once."""
    if transport is None or transport.is_closing():
        return
    end = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
