"""Patterns of names and paths: `*` within a segment, `**` for any number of segments.

Matching takes time in proportion to pattern times text, whatever either is: the text comes from
clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

P = TypeVar("P")
T = TypeVar("T")

USER = "{user}"


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is what `pattern` says, where `*` stands for any characters, also none."""
    return _in_order([list(part) for part in pattern.split("*")], list(text), str.__eq__)


def path_matches(pattern: str, path: str, user: str) -> bool:
    """Whether `path` is what `pattern` says.

    `*` stands for any characters but `/`; `**`, alone between slashes, for any number of segments,
    also none; `{user}` for the user's name, character for character, and for nothing where there
    is no user.
    """
    if USER in pattern and not user:
        return False
    runs: list[list[str]] = [[]]
    for segment in pattern.split("/"):
        if segment == "**":
            runs.append([])
        else:
            runs[-1].append(segment)
    return _in_order(runs, path.split("/"), lambda part, segment: _segment(part, segment, user))


def _segment(pattern: str, segment: str, user: str) -> bool:
    # The user's name goes in after the stars were found: one in a name is an ordinary character.
    runs = [list(part.replace(USER, user)) for part in pattern.split("*")]
    return _in_order(runs, list(segment), str.__eq__)


def _in_order(runs: Sequence[list[P]], items: list[T], same: Callable[[P, T], bool]) -> bool:
    """Whether `items` are the runs with anything between: first and last run at the two ends."""

    def at(run: list[P], start: int) -> bool:
        return all(same(part, items[start + number]) for number, part in enumerate(run))

    first, *middle = runs
    if not middle:
        return len(items) == len(first) and at(first, 0)
    last = middle.pop()
    end = len(items) - len(last)
    position = len(first)
    if end < position or not at(first, 0) or not at(last, end):
        return False
    # The leftmost fit of each leaves the most room to those after it, so no other is tried.
    for run in middle:
        while position + len(run) <= end and not at(run, position):
            position += 1
        position += len(run)
        if position > end:
            return False
    return True
