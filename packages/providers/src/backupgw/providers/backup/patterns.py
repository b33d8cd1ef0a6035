"""Which paths are left out of a backup, or wanted from one: patterns as restic has them.

    *.tmp            whatever has such a name, in any folder
    cache/*.db       these, in a folder cache anywhere
    /home/*/.cache   from the root on
    /srv/**/old      any number of folders between
    !keep.tmp        taken back, if an earlier pattern left it out

https://restic.readthedocs.io/en/stable/040_backup.html#excluding-files. One meaning for both kinds
of backup: a pattern that leaves a file out of one leaves it out of the other. A folder that is left
out is left out with all that is in it, so nothing below it can be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_MAGIC = re.compile(r"[*?\[\\]")


class BadPattern(ValueError):
    """A pattern that nothing can be compared with; the message says which and why."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    parts: tuple[re.Pattern[str] | str | None, ...]
    """Of the path: text as it is, an expression, or None for `**`."""
    negated: bool


class Patterns:
    """Some patterns, of which a later one has more to say than an earlier.

    Args:
        patterns: empty lines and those that begin with `#` say nothing, as in a file of them.

    Raises:
        BadPattern: one of them is none.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [
            _read(text) for text in patterns if text.strip() and not text.startswith("#")
        ]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, path: str) -> bool:
        """Whether the patterns mean this path.

        Args:
            path: absolute; names that are not UTF-8 as `os.fsdecode` has them.
        """
        parts = _split(path)
        matched = False
        for pattern in self._patterns:
            if pattern.negated != matched:
                continue  # it could only say what is known already
            if _matches(pattern.parts, parts):
                matched = not pattern.negated
        return matched


def _read(text: str) -> _Pattern:
    negated = text.startswith("!")
    body = text[1:] if negated else text
    if not body or "\0" in body:
        raise BadPattern(f"{text!r} is no pattern")
    return _Pattern(tuple(_part(part, text) for part in _split(body)), negated)


def _split(path: str) -> list[str]:
    """Return the segments; an absolute path's first is "/"."""
    parts: list[str] = ["/"] if path.startswith("/") else []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        elif part not in ("", ".") and not (part == ".." and parts == ["/"]):
            parts.append(part)
    return parts


def _part(part: str, whole: str) -> re.Pattern[str] | str | None:
    if part == "**":
        return None
    if not _MAGIC.search(part):
        return part
    return _expression(part, whole)


@lru_cache(maxsize=1024)
def _expression(part: str, whole: str) -> re.Pattern[str]:
    """Translate a segment: `*`, `?`, `[a-z]`, `[^a-z]`, and `\\` before what is meant as it is."""
    out = []
    at = 0
    while at < len(part):
        sign = part[at]
        at += 1
        if sign == "*":
            out.append(".*")
        elif sign == "?":
            out.append(".")
        elif sign == "\\":
            if at == len(part):
                raise BadPattern(f"{whole!r} ends with a \\ that has nothing after it")
            out.append(re.escape(part[at]))
            at += 1
        elif sign == "[":
            group, at = _group(part, at, whole)
            out.append(group)
        else:
            out.append(re.escape(sign))
    return re.compile("".join(out), re.DOTALL)


def _group(part: str, at: int, whole: str) -> tuple[str, int]:
    """Translate from behind a `[` to behind its `]`."""
    negated = part[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if part[at : at + 1] == "]" and ranges:
            return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1
        low, at = _sign(part, at, whole)
        high = low
        if part[at : at + 1] == "-":
            high, at = _sign(part, at + 1, whole)
        if low > high:
            raise BadPattern(f"{whole!r} has a range from {low} to {high}, which is empty")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")


def _sign(part: str, at: int, whole: str) -> tuple[str, int]:
    if part[at : at + 1] in ("-", "]"):
        raise BadPattern(f"{whole!r} has a {part[at]} in brackets; write \\{part[at]}")
    if part[at : at + 1] == "\\":
        at += 1
    if at >= len(part):
        raise BadPattern(f"{whole!r} has a [ without its ]")
    return part[at], at + 1


def _matches(pattern: Sequence[re.Pattern[str] | str | None], path: Sequence[str]) -> bool:
    """Whether the pattern is some segments of the path that follow each other."""
    last = 0 if pattern and pattern[0] == "/" else len(path) - (len(pattern) - pattern.count(None))
    return any(_from(pattern, path, start) for start in range(last + 1))


def _from(pattern: Sequence[re.Pattern[str] | str | None], path: Sequence[str], at: int) -> bool:
    for number, part in enumerate(pattern):
        if part is None:
            rest = pattern[number + 1 :]
            return any(_from(rest, path, start) for start in range(at, len(path) + 1))
        if at >= len(path):
            return False
        if isinstance(part, str):
            if part != path[at]:
                return False
        elif not part.fullmatch(path[at]):
            return False
        at += 1
    return True
