"""What a fork does to the ledgers that a process has open: the child begins sessions of its own.

One fork at a time, whichever thread it comes from. A session that cannot get ready for it keeps
neither the fork nor the other sessions waiting: what it raised is told as an exception of
os.fork's that nobody can catch, and in the child it begins anew as all do.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol


class Forking(Protocol):
    """Something with locks and connections that a child must not use."""

    def before_fork(self) -> None:
        """Keep everybody out until the fork is over. What raises keeps nobody out."""

    def after_fork_in_parent(self) -> None:
        """Go on. Not called where `before_fork` raised."""

    def after_fork_in_child(self) -> None:
        """Begin anew. Called also where `before_fork` raised."""


_followed: weakref.WeakSet[Forking] = weakref.WeakSet()
_following = threading.Lock()
"""Held while `_followed` is read or changed, and while nothing else is waited for."""
_one_fork = threading.Lock()
_ready: list[Forking] = []
_unready: list[Forking] = []


def follow(forking: Forking) -> None:
    """Tell it of forks from now on."""
    with _following:
        _followed.add(forking)


def leave(forking: Forking) -> None:
    """Tell it no more."""
    with _following:
        _followed.discard(forking)


def _before_fork() -> None:
    _one_fork.acquire()
    with _following:
        _unready.extend(_followed)
    _each(list(_unready), _make_ready)


def _make_ready(forking: Forking) -> None:
    forking.before_fork()
    _unready.remove(forking)
    _ready.append(forking)


def _after_fork_in_parent() -> None:
    _after(_ready, lambda each: each.after_fork_in_parent())


def _after_fork_in_child() -> None:
    global _following
    _following = threading.Lock()  # another thread of the parent may have had it
    _after([*_ready, *_unready], lambda each: each.after_fork_in_child())


def _after(told: Iterable[Forking], tell: Callable[[Forking], None]) -> None:
    told = list(told)
    _ready.clear()
    _unready.clear()
    try:
        _each(told, tell)
    finally:
        _one_fork.release()


def _each(told: Iterable[Forking], tell: Callable[[Forking], None]) -> None:
    """Tell all of them, whatever some of them raise; the first of that is raised at the end."""
    first: BaseException | None = None
    for each in told:
        try:
            tell(each)
        except BaseException as error:  # noqa: BLE001 - the others must be told all the same
            first = first or error
    try:
        if first is not None:
            raise first
    finally:
        first = None  # its traceback holds this frame, and what was to be told


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
