"""Ignore rules as an exclude file for restic, such that it leaves out exactly what they say.

restic's patterns are not git's: they have no lines for folders alone, a negated one also takes back
everything below what it matches, they are about whole absolute paths, and `?` is a character where
git's is a byte. So only lines that mean the same are handed on as patterns, anchored at the
server's folder; what the others leave out is found by walking the folder, and written as paths.

An exclude file is one more language: restic expands `$`, cuts white space off the ends of a line
and refuses a whole backup for one malformed pattern. What is written here has nothing of that: a
`$` is doubled, and each byte that means something is escaped. (restic's internal/filter and
cmd/restic/exclude; tried with 0.14 and 0.19.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from .ignore import IgnoreRules, Rule
from .server_tree import listing, open_folder

MAX_PATHS = 20_000
"""Paths written at most: restic compares every file with each of them."""

_SPECIAL = frozenset(b"*?[\\")
_LAST = chr(0x10FFFF).encode()


@dataclass(frozen=True)
class Excludes:
    """What restic is to be given.

    Attributes:
        lines: of the exclude file, without line ends.
        left_in: how many entries would have been too many to write, and so will be in the backup
            though the rules leave them out.
    """

    lines: tuple[bytes, ...]
    left_in: int = 0

    def file(self) -> bytes:
        """Return the content of the exclude file."""
        return b"".join(line + b"\n" for line in self.lines)


def excludes(rules: IgnoreRules, root: int, path: bytes) -> Excludes:
    """Translate rules for one backup.

    Args:
        root: descriptor of the server's folder.
        path: the same folder, absolute, as it is named to restic.

    Raises:
        OSError: the folder cannot be read. What vanishes meanwhile or is closed to us is passed
            over: restic will tell of it.
    """
    base = _literal(path.rstrip(b"/"))
    last_negated = max((n for n, rule in enumerate(rules.rules) if rule.negated), default=-1)
    native = {rule.number for rule in rules.rules[last_negated + 1 :] if rule.stars_only}
    lines = [base + b"/" + _pattern(rule) for rule in rules.rules if rule.number in native]
    left_in = 0
    if any(rule.names and rule.number not in native for rule in rules.rules):
        for names in _Walk(rules, native).left_out(root):
            if len(lines) < MAX_PATHS:
                lines.append(b"/".join((base, *names)))
            else:
                left_in += 1
    return Excludes(tuple(_line(line) for line in lines), left_in)


class _Walk:
    def __init__(self, rules: IgnoreRules, native: set[int]) -> None:
        self._rules = rules
        self._native = native

    def left_out(self, root: int) -> Iterator[list[bytes]]:
        """Yield the patterns of paths that no native line covers."""
        waiting: list[list[bytes]] = [[]]
        while waiting:
            folder = waiting.pop()
            entries = self._entries(root, folder)
            named = []
            kept = 0
            for name, is_folder in entries:
                names = [*folder, name]
                rule = self._rules.deciding(names, folder=is_folder)
                if rule is None or rule.negated:
                    kept += 1
                    if is_folder:
                        waiting.append(names)
                elif rule.number not in self._native:
                    named.append(names)
            if named and not kept and len(named) > 1:
                yield [*map(_literal, folder), b"*"]  # all that is there, in one line
            else:
                for names in named:
                    yield [_literal(name) for name in names]

    def _entries(self, root: int, folder: list[bytes]) -> list[tuple[bytes, bool]]:
        try:
            descriptor = open_folder(root, folder)
            try:
                return listing(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            if not folder:
                raise
            return []


def _pattern(rule: Rule) -> bytes:
    """Write a line of names and stars in restic's language."""
    parts = []
    for name in rule.names:
        if name is None:
            parts.append(b"**")
        elif name.literal is not None:
            parts.append(_literal(name.literal))
        else:
            assert name.pieces is not None
            parts.append(b"*".join(map(_literal, name.pieces)))
    return b"/".join(parts)


def _literal(text: bytes) -> bytes:
    """Write bytes so that they stand for themselves in a pattern."""
    return b"".join(
        b"\\" + bytes((byte,)) if byte in _SPECIAL else _line_end(byte) for byte in text
    )


def _line_end(byte: int) -> bytes:
    """A line end cannot be written in a line; a class without everything else can."""
    if byte not in b"\n\r":
        return bytes((byte,))
    return b"[^\x01-" + bytes((byte - 1,)) + bytes((byte + 1,)) + b"-" + _LAST + b"]"


def _line(pattern: bytes) -> bytes:
    """Guard a pattern against what is done to each line of an exclude file."""
    line = pattern.replace(b"$", b"$$")
    # Go cuts off Unicode's white space at the ends; the line begins with a slash.
    text = line.decode(errors="surrogateescape")
    last = text[-1:].encode(errors="surrogateescape")
    return line[: -len(last)] + b"[" + last + b"]" if text[-1:].isspace() else line
