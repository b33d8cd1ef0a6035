"""A double in a process of its own: its values and its work are not the client's.

    with DoubleProcess(GcsDouble) as double:                  # any class with `start`, made there
        client = TheRealClient(double.url)
        double.tell(deny, "storage.objects.delete")           # deny(the double, …) is run there

What is told is a function of a module, and so are its arguments and its result data.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from .double import Double, Faults
from .process import START_TIMEOUT, STOP_TIMEOUT, ServerFailed

P = ParamSpec("P")
T = TypeVar("T")


class Runs(Protocol):
    """A double: one service, or several that belong together."""

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


D = TypeVar("D", bound=Runs)


class DoubleProcess(Generic[D]):
    """Runs a double. A context manager.

    Args:
        make: returns it, not yet started; a class or function of a module.
    """

    def __init__(self, make: Callable[[], D]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, there), daemon=True)
        self._there = there
        self.url = ""

    def __enter__(self) -> Self:
        self._process.start()
        self._there.close()
        if not self._pipe.poll(START_TIMEOUT):
            self._process.kill()
            raise ServerFailed("the double did not start")
        self.url = self._pipe.recv()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join(STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(STOP_TIMEOUT)
        self._process.close()

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        assert self._process.pid is not None
        return self._process.pid

    def tell(
        self, work: Callable[Concatenate[D, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Call `work(double, …)` in the double's process and return what it returns.

        Raises:
            RuntimeError: it raised; the message is the exception's.
        """
        self._pipe.send((work, arguments, named))
        done, result = self._pipe.recv()
        if not done:
            raise RuntimeError(result)
        answer: T = result
        return answer

    def fail(self, **faults: Any) -> None:
        """Set the `faults` of a `Double` to `Faults(**faults)`; nothing goes wrong without any."""
        self.tell(_set_faults, faults)  # type: ignore[arg-type]  # of doubles that have some

    def kill(self) -> None:
        """Reset every connection and stop listening."""
        self.tell(_kill)

    def start(self) -> None:
        """Listen again, on the same port; what the service keeps is as it was."""
        self.tell(_start)


def _kill(double: Runs) -> None:
    double.kill()


def _start(double: Runs) -> None:
    double.start()


def _set_faults(double: Double, faults: dict[str, Any]) -> None:
    double.faults = Faults(**faults)


def _serve(make: Callable[[], Runs], pipe: Connection) -> None:
    with make() as double:
        pipe.send(double.url)
        while True:
            try:
                work, arguments, named = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send((True, work(double, *arguments, **named)))
            except Exception as error:  # noqa: BLE001 - told to whoever asked
                pipe.send((False, f"{type(error).__name__}: {error}"))
