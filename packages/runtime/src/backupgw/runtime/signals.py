"""Where Ctrl-C and SIGTERM take effect in a command: where they leave nothing half-done.

Python raises KeyboardInterrupt in the main thread between any two instructions, so also where a
lock is taken that no `with` guards yet (`threading.Condition` is written in Python), or where a
connection has left its pool. Whoever needs that next waits for ever, and what tidies up needs it.
So here it is raised

- at once where the main thread is in a command's own code, or waits for another thread;
- where it is within the kernel: when it begins an operation of a place, which may fail anyway, or
  has left the kernel. What ends something (commit, abort, close) is carried to its end, and so is
  the start of a thread, or nobody would end that.

A second signal ends the process at once, by that signal.
"""

from __future__ import annotations

import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self

_KERNEL = "backupgw.kvstore."
_CHECKS = "backupgw.kvstore.conformance"
"""What a command runs, rather than what it works on: it tidies up wherever it is interrupted."""
_PAUSES = "backupgw.kvstore.layers.retry_schedule"
"""Before the next attempt; no lock and no connection is held then."""
_BASE = "backupgw.kvstore.backends.base"
"""Where operations are declared."""
_LIBRARY = ("threading", "queue", "contextlib", "concurrent.futures", "logging", "importlib")
"""Modules with code of their own between the taking of a lock and what gives it back, or with
callbacks that let raise nothing."""

_OPERATIONS = frozenset(
    (
        "copy", "defrag", "delete", "delete_sized", "gather", "hash", "info", "list",
        "list_sizes", "load", "mkdir", "mkdirs", "move", "move_if_absent", "open_reader",
        "open_writer", "quarantine", "quota", "read", "read_into", "rmdir", "store", "sync",
        "write",
    )
)  # fmt: skip
_ENDINGS = frozenset(
    (
        "__exit__", "_acquire_restore", "abort", "abort_writer", "checkpoint", "close", "commit",
        "commit_over", "leave", "mark", "release",
    )
)  # fmt: skip


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


class Heard:
    """SIGINT and SIGTERM are heard as told above while the block lasts; for the main thread.

    A signal that is ignored, or handled in another way, is left alone.

    Args:
        hangup: SIGHUP is held back meanwhile: what serves takes it once it can reload.
    """

    def __init__(self, *, hangup: bool = False) -> None:
        self._hangup = hangup
        self._came: int | None = None
        self._pending = False
        self._before: dict[int, Any] = {}
        self._mask: set[int | signal.Signals] | None = None

    def take_effect(self) -> None:
        """Raise what came and was not raised yet."""
        if self._pending:
            self._raise()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        if self._hangup:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
        for number, handler in usual.items():
            if signal.getsignal(number) == handler:
                self._before[number] = handler
                signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pending:
            sys.setprofile(None)
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._hear:  # a command may have another use for it
                signal.signal(number, handler)
        if self._mask is not None:
            while signal.SIGHUP in signal.sigpending():  # else it would hide why nothing is served
                signal.sigwait({signal.SIGHUP})
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._came is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._came = number
        if frame is None or _leaves_nothing_half_done(frame):
            self._raise()
        self._pending = True
        sys.setprofile(self._look)

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            good = _begins_operation(frame) or _leaves_nothing_half_done(frame)
        elif event == "c_call":
            good = argument.__name__ not in _ENDINGS and _leaves_nothing_half_done(frame)
        else:
            good = False
        if good:
            self._raise()

    def _raise(self) -> NoReturn:
        if self._pending:
            self._pending = False
            sys.setprofile(None)
        raise Terminated if self._came == signal.SIGTERM else KeyboardInterrupt


def _leaves_nothing_half_done(frame: FrameType) -> bool:
    """Whether what runs there may be broken off."""
    if _waits(frame):
        return not _any(frame, _ends_or_starts_something)
    if _module(frame).startswith(_LIBRARY) or frame.f_code.co_name in _ENDINGS:
        return False
    return not _any(frame, _goes_on)


def _begins_operation(frame: FrameType) -> bool:
    """Whether a function that is entered there is an operation of a place, a reader or a writer,
    which nothing is ended by."""
    if frame.f_code.co_name not in _OPERATIONS:
        return False
    kinds = type(frame.f_locals.get("self")).__mro__
    mine = any(kind.__module__ == _BASE for kind in kinds)
    return mine and not _any(frame, _ends_something)


def _waits(frame: FrameType) -> bool:
    """Whether nothing is done there but to wait for another thread, or for a while."""
    if frame.f_code is threading.Condition.wait.__code__:
        return "gotit" in frame.f_locals  # from there on it takes its lock again in any case
    return _module(frame) == _PAUSES


def _ends_or_starts_something(frame: FrameType) -> bool:
    return _ends_something(frame) or frame.f_code is threading.Thread.start.__code__


def _ends_something(frame: FrameType) -> bool:
    return frame.f_code.co_name in _ENDINGS


def _goes_on(frame: FrameType) -> bool:
    """Whether it is code of the kernel, or what Python calls when something is dropped, and lets
    raise nothing."""
    module = _module(frame)
    if module in ("weakref", "_weakrefset") or frame.f_code.co_name == "__del__":
        return True
    return module.startswith(_KERNEL) and not module.startswith(_CHECKS)


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _any(frame: FrameType | None, such: Callable[[FrameType], bool]) -> bool:
    """Whether there is such a frame among those that led here."""
    while frame is not None:
        if such(frame):
            return True
        frame = frame.f_back
    return False
