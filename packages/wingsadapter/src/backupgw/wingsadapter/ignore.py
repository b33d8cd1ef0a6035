"""What a backup leaves out: lines with the meaning of .gitignore, below one server's folder.

The meaning is git's (gitignore(5), checked against `git check-ignore`): the last line that matches
decides, `!` takes back, a line with a slash in it is anchored, one with a slash at its end is for
folders, and what lies in a folder that is left out cannot be taken back. As git's, no line is ever
an error: one that cannot be understood matches nothing.

The lines come from customers. Matching takes time in proportion to pattern and name whatever is
written in them, and nothing in them is expanded.

One difference: git takes `a**/b` for `a` followed by `**/b`, against its own manual; here the
manual holds.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

FILES = (".pelicanignore", ".pteroignore")
"""Where a server's owner keeps rules, in its root; the first one that exists counts."""
MAX_BYTES = 32 << 10
"""The most that is read of rules, as Wings does."""

_SLASH, _STAR, _ONE, _CLASS, _BYTE = "/", "*", "?", "[", "b"
_DOUBLE = None
_CLASSES: dict[bytes, bytes] = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    b"space": rb"\t-\r ",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


class IgnoreError(ValueError):
    """Rules that no backup can be made with: too many, or with a zero byte."""


@dataclass(frozen=True)
class _Token:
    kind: str
    value: bytes = b""


@dataclass(frozen=True)
class _Name:
    """What one name of a path must be: a name itself, or a regular expression."""

    literal: bytes | None
    pattern: re.Pattern[bytes] | None = None
    pieces: tuple[bytes, ...] | None = None
    """The literal pieces between stars, where the pattern consists of these."""

    def matches(self, name: bytes) -> bool:
        if self.literal is not None:
            return name == self.literal
        assert self.pattern is not None
        return self.pattern.fullmatch(name) is not None


@dataclass(frozen=True)
class Rule:
    """One line.

    Attributes:
        number: of the line, from 1.
        negated: it takes back what lines before it left out.
        folders_only: it is for folders.
        names: what the names of a path must be, from the root; None stands for any number of
            them (`**`). Empty for a line that matches nothing.
    """

    number: int
    negated: bool
    folders_only: bool
    names: tuple[_Name | None, ...]

    def matches(self, path: Sequence[bytes], *, folder: bool) -> bool:
        """Whether this line is about the entry at `path`, its names from the root."""
        if self.folders_only and not folder:
            return False
        return bool(self.names) and _match(self.names, path)

    @property
    def stars_only(self) -> bool:
        """Whether it is made of names, `*` and `**` alone, and is for files as for folders."""
        return (
            bool(self.names)
            and not self.folders_only
            and all(
                each is None or each.literal is not None or each.pieces is not None
                for each in self.names
            )
        )


class IgnoreRules:
    """All lines of one source."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._backwards = tuple(reversed(self.rules))

    @classmethod
    def parse(cls, text: str | bytes) -> IgnoreRules:
        """Read rules, lines ended by LF or CR LF.

        Raises:
            IgnoreError: they have more than MAX_BYTES bytes, or a zero byte.
        """
        content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        if len(content) > MAX_BYTES:
            raise IgnoreError(f"the ignore rules have more than {MAX_BYTES} bytes")
        if b"\0" in content:
            raise IgnoreError("the ignore rules have a zero byte in them")
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        rules = (_rule(line, number) for number, line in enumerate(lines, 1))
        return cls([rule for rule in rules if rule is not None])

    def __bool__(self) -> bool:
        return bool(self.rules)

    def deciding(self, path: Sequence[bytes], *, folder: bool) -> Rule | None:
        """Return the line that decides on an entry, None where none is about it.

        Args:
            path: the names from the server's root; no folder on the way is left out.
            folder: whether it is a folder itself (a link to one is not).
        """
        for rule in self._backwards:
            if rule.matches(path, folder=folder):
                return rule
        return None

    def leaves_out(self, path: Sequence[bytes], *, folder: bool) -> bool:
        """Whether an entry is left out. Arguments as `deciding`."""
        rule = self.deciding(path, folder=folder)
        return rule is not None and not rule.negated


NOTHING = IgnoreRules(())
"""Rules that leave out nothing."""


def read_rules(root: int) -> IgnoreRules:
    """Read the rules that a server keeps in its root.

    As with Wings, a link, what is no regular file and a file of more than MAX_BYTES count as
    none; the log says so.

    Args:
        root: descriptor of the server's folder.

    Raises:
        OSError: a file is there and cannot be read.
    """
    for name in FILES:
        try:
            # O_NONBLOCK: a named pipe must be refused, not waited for.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=root)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            log.warning("%s is not a regular file: not heeded", name)
            return NOTHING
        try:
            content = _content(descriptor)
            return IgnoreRules.parse(content)
        except IgnoreError as error:
            log.warning("%s is not heeded: %s", name, error)
            return NOTHING
        finally:
            os.close(descriptor)
    return NOTHING


def _content(descriptor: int) -> bytes:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise IgnoreError("it is not a regular file")
    parts = []
    left = MAX_BYTES + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


# -- one line


def _rule(line: bytes, number: int) -> Rule | None:
    line = line.removesuffix(b"\r")
    if line.startswith(b"#"):
        return None
    line = _without_trailing_spaces(line)
    if not line:
        return None
    negated = line.startswith(b"!")
    line = line[negated:]
    folders_only = line.endswith(b"/")
    if folders_only:
        line = line[:-1]
    tokens = _tokens(line)
    if tokens is None or not line:
        return Rule(number, negated, folders_only, ())
    if b"/" not in line:
        # Without a slash a line is about names in any folder, and `**` is nothing special in one.
        name = _name(tokens)
        found = () if name.literal in (b".", b"..") else (_DOUBLE, name)
        return Rule(number, negated, folders_only, found)
    names: list[_Name | None] = []
    for part in _parts(tokens):
        if not part:
            return Rule(number, negated, folders_only, ())  # `a//b`: no path is like that
        double = len(part) > 1 and all(token.kind == _STAR for token in part)
        if not double:
            names.append(_name(part))
        elif not names or names[-1] is not _DOUBLE:
            names.append(_DOUBLE)
    if any(name is not None and name.literal in (b".", b"..") for name in names):
        return Rule(number, negated, folders_only, ())  # no entry has such a name
    if names[-1] is _DOUBLE:
        names.append(_name([_Token(_STAR)]))  # `a/**` is about what lies in a, not about a
    return Rule(number, negated, folders_only, tuple(names))


def _without_trailing_spaces(line: bytes) -> bytes:
    """Cut spaces off the end, but for one behind a backslash."""
    end = len(line.rstrip(b" "))
    if end < len(line):
        backslashes = end - len(line[:end].rstrip(b"\\"))
        end += backslashes % 2
    return line[:end]


def _parts(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """Divide at slashes; one at the start anchors and is nothing else."""
    parts: list[list[_Token]] = [[]]
    for index, token in enumerate(tokens):
        if token.kind != _SLASH:
            parts[-1].append(token)
        elif index:
            parts.append([])
    return parts


def _tokens(line: bytes) -> list[_Token] | None:
    """Take a line apart; None if it is malformed, and so matches nothing."""
    tokens = []
    at = 0
    while at < len(line):
        byte = line[at : at + 1]
        at += 1
        if byte == b"\\":
            byte = line[at : at + 1]
            if not byte:
                return None
            at += 1
            tokens.append(_Token(_SLASH) if byte == b"/" else _Token(_BYTE, byte))
        elif byte in (b"/", b"*", b"?"):
            tokens.append(_Token(byte.decode()))
        elif byte == b"[":
            found = _class(line, at)
            if found is None:
                return None
            at, expression = found
            tokens.append(_Token(_CLASS, expression))
        else:
            tokens.append(_Token(_BYTE, byte))
    return tokens


def _class(line: bytes, at: int) -> tuple[int, bytes] | None:
    """Read a bracket expression from behind its bracket.

    Returns:
        Where the line goes on, and the expression for `re`; None if it has no end or names a
        class that does not exist.
    """
    negated = line[at : at + 1] in (b"!", b"^")
    at += negated
    members: list[bytes] = []
    previous: int | None = None
    first = True
    while first or line[at : at + 1] != b"]":
        first = False
        byte = line[at : at + 1]
        if not byte:
            return None
        if byte == b"[" and line[at + 1 : at + 2] == b":":
            end = line.find(b"]", at + 2)
            if end < 0:
                return None
            if end > at + 2 and line[end - 1 : end] == b":":
                known = _CLASSES.get(line[at + 2 : end - 1])
                if known is None:
                    return None
                members.append(known)
                previous = None
                at = end + 1
                continue
        is_range = (
            byte == b"-" and previous is not None and line[at + 1 : at + 2] not in (b"", b"]")
        )
        if is_range:
            at += 1
            byte = line[at : at + 1]
        if byte == b"\\":
            at += 1
            byte = line[at : at + 1]
            if not byte:
                return None
        at += 1
        if is_range:
            assert previous is not None
            if previous <= byte[0]:
                members.append(_byte(previous) + b"-" + _byte(byte[0]))
            previous = None
        else:
            members.append(_byte(byte[0]))
            previous = byte[0]
    inside = b"".join(members)
    # A slash is never matched, whatever the class says; and no name has one.
    if not inside:
        return at + 1, rb"[^\x00-\xff]" if not negated else rb"[\x00-\xff]"
    return at + 1, b"[" + (b"^" if negated else b"") + inside + b"]"


def _byte(value: int) -> bytes:
    return b"\\x%02x" % value


def _name(tokens: Sequence[_Token]) -> _Name:
    """Turn the tokens of one name into what matches it."""
    if all(token.kind == _BYTE for token in tokens):
        return _Name(b"".join(token.value for token in tokens))
    pieces: list[list[_Token]] = [[]]
    for token in tokens:
        if token.kind != _STAR:
            pieces[-1].append(token)
        elif pieces[-1] or len(pieces) == 1:
            pieces.append([])
    plain = None
    if all(token.kind == _BYTE for piece in pieces for token in piece):
        plain = tuple(b"".join(token.value for token in piece) for piece in pieces)
    first, *middle = map(_expression, pieces)
    if not middle:
        return _Name(None, re.compile(first, re.DOTALL), plain)
    *middle, last = middle
    # Every piece has a fixed length, so the first place where it fits is as good as any: atomic
    # groups never try another one, or a line of many stars would take for ever.
    expression = first + b"".join(b"(?>.*?" + piece + b")" for piece in middle) + b".*" + last
    return _Name(None, re.compile(expression, re.DOTALL), plain)


def _expression(piece: Sequence[_Token]) -> bytes:
    text = b""
    for token in piece:
        match token.kind:
            case "?":
                text += b"."
            case "[":
                text += token.value
            case _:
                text += re.escape(token.value)
    return text


def _match(names: Sequence[_Name | None], path: Sequence[bytes]) -> bool:
    """Match as one matches a text against stars: only the last `**` is ever tried again."""
    at = place = 0
    again_at = again_place = -1
    while place < len(path):
        if at < len(names):
            wanted = names[at]
            if wanted is None:
                again_at, again_place = at, place
                at += 1
                continue
            if wanted.matches(path[place]):
                at += 1
                place += 1
                continue
        if again_at < 0:
            return False
        again_place += 1
        at, place = again_at + 1, again_place
    return all(each is None for each in names[at:])
