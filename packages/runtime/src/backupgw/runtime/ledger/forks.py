"""What a fork does to the ledgers that a process has open: the child begins sessions of its own."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forking(Protocol):
    """Something with locks and connections that a child must not use."""

    def before_fork(self) -> None:
        """Keep everybody out until the fork is over."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew."""


_followed: weakref.WeakSet[Forking] = weakref.WeakSet()
_forking: list[Forking] = []


def follow(forking: Forking) -> None:
    """Tell it of forks from now on."""
    _followed.add(forking)


def leave(forking: Forking) -> None:
    """Tell it no more."""
    _followed.discard(forking)


def _before_fork() -> None:
    _forking.extend(sorted(_followed, key=id))
    for each in _forking:
        each.before_fork()


def _after_fork_in_parent() -> None:
    for each in _forking:
        each.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for each in _forking:
        each.after_fork_in_child()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
