"""The settings file: where it is searched, and on which line of it each value stands.

Lines are found with the standard library's own parser: tomlkit keeps no positions either, and a
second grammar would disagree with the first. A TOML document is a row of statements that start on
lines of their own, so lines are gathered until `tomllib` accepts them as one.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .settings_errors import Issue, Key, Origin, SettingsError
from .small_file import read_small_file

NAME = "backupgw.toml"
MAX_BYTES = 1 << 20


class SettingsFile:
    """A settings file that was read and is valid TOML.

    Attributes:
        path: as it was given or found.
        values: the parsed document.
        mode: permission bits when it was read.
    """

    def __init__(self, path: Path, text: str, mode: int) -> None:
        """Parse `text`; raises SettingsError with line and column for bad TOML."""
        self.path = path
        self.mode = mode
        self._text = text
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(_syntax_issue(path, text, str(error))) from None
        except RecursionError:
            raise SettingsError(
                Issue(Origin("file", str(path)), "", "is nested too deep to be settings")
            ) from None

    def line_of(self, key: Key) -> int:
        """Return the line, from 1, where `key` is set or its first table opens; 0 if nowhere."""
        return self._lines.get(key, 0)

    @cached_property
    def _lines(self) -> dict[Key, int]:
        lines: dict[Key, int] = {}
        table: Key = ()
        counts: dict[Key, int] = {}
        for number, statement in _statements(self._text):
            parsed = tomllib.loads(statement)
            if statement.lstrip().startswith("["):
                table = _table(parsed, counts)
                _note(lines, table, number)
            else:
                _note_elements(lines, table, parsed, number, statement)
                _note_values(lines, table, parsed, number)
        return lines


def _statements(text: str) -> list[tuple[int, str]]:
    """Split valid TOML into statements, each with the line it starts on."""
    found = []
    pending = ""
    start = 1
    # Only "\n" ends a line here; str.splitlines would split at characters that TOML keeps.
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            start = number
            if not line.strip() or line.lstrip().startswith("#"):
                continue
        pending += f"{line}\n"
        try:
            tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        found.append((start, pending))
        pending = ""
    return found


def _table(parsed: dict[str, Any], counts: dict[Key, int]) -> Key:
    """Return the key of the table that a header line, parsed by itself, opens."""
    key: list[str | int] = []
    value: Any = parsed
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        key.append(name)
        if tuple(key) in counts and value != [{}]:
            key.append(counts[tuple(key)])  # a table below the latest entry of an array of tables
    if value == [{}]:
        array = tuple(key)
        counts[array] = counts.get(array, -1) + 1
        key.append(counts[array])
    return tuple(key)


def _note(lines: dict[Key, int], key: Key, number: int) -> None:
    for length in range(1, len(key) + 1):
        lines.setdefault(key[:length], number)


def _note_values(lines: dict[Key, int], key: Key, value: Any, number: int) -> None:
    if key:
        _note(lines, key, number)
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        _note_values(lines, (*key, name), item, number)


_LONGEST_ARRAY = 200
"""Lines of an array whose elements are looked for one by one."""


def _note_elements(
    lines: dict[Key, int], table: Key, parsed: dict[str, Any], number: int, statement: str
) -> None:
    """Note on which line each element of an array stands that is written over several lines."""
    text = statement.removesuffix("\n").split("\n")
    if not 1 < len(text) <= _LONGEST_ARRAY:
        return
    path: list[str] = []
    value: Any = parsed
    while isinstance(value, dict) and len(value) == 1:
        name, value = next(iter(value.items()))
        path.append(name)
    if not isinstance(value, list):
        return
    _note(lines, (*table, *path), number)
    done = 0
    start = 0
    for line in range(len(text)):
        if text[start].strip() == "" or text[start].lstrip().startswith("#"):
            start = line  # an element cannot begin there
        complete = _elements("\n".join(text[: line + 1]), path)
        for element in range(done, complete):
            _note_values(lines, (*table, *path, element), value[element], number + start)
        if complete > done or line == 0:
            done, start = complete, min(line + 1, len(text) - 1)


def _elements(beginning: str, path: list[str]) -> int:
    """Return how many elements of an array its first lines hold whole; 0 if that cannot be told."""
    try:
        value: Any = tomllib.loads(f"{beginning}\n]")
    except tomllib.TOMLDecodeError:
        return 0
    for name in path:
        value = value[name]
    return len(value)


def read(path: Path) -> SettingsFile:
    """Read a settings file.

    Raises:
        SettingsError: it cannot be read, is not UTF-8 or not TOML.
    """
    origin = Origin("file", str(path))
    try:
        content, status, _ = read_small_file(path, MAX_BYTES)
    except OSError as error:
        raise SettingsError(
            Issue(origin, "", f"cannot be read: {error.strerror}; check the path and its mode")
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            Issue(Origin("file", str(path), line), "", "is not UTF-8; save the file as UTF-8")
        ) from None
    return SettingsFile(path, text.replace("\r\n", "\n"), stat.S_IMODE(status.st_mode))


_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def _syntax_issue(path: Path, text: str, message: str) -> Issue:
    """Write tomllib's complaint with its position in front, as a compiler would."""
    match = _PLACE.search(message)
    message = _PLACE.sub("", message)
    if match and match[1]:
        line, column = int(match[1]), int(match[2])
    else:
        line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    content = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    # The line itself is not shown: it may hold a secret.
    key, equals, value = content.partition("=")
    advice = "see https://toml.io for the syntax"
    if message.startswith("Cannot"):
        advice = "the key or table is there twice; keep one"
    elif equals and re.fullmatch(r"\s*[A-Za-z0-9_./:@-]+\s*", value):
        advice = f'text needs quotes: {key.strip()} = "…"'
    return Issue(
        Origin("file", str(path), line),
        "",
        f"column {column}: not valid TOML: {message[:1].lower()}{message[1:]}; {advice}",
    )


def find(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file to use, None if there is none.

    The first that exists of: `config`, $BACKUPGW_CONFIG, ./backupgw.toml,
    $XDG_CONFIG_HOME/backupgw/backupgw.toml, /etc/backupgw/backupgw.toml. The first two, when
    given, are used whether they exist or not, so that a mistyped path is told.
    """
    if config is not None:
        return config
    if named := environ.get("BACKUPGW_CONFIG"):
        return Path(named)
    for candidate in candidates(environ):
        # Whatever exists is meant; reading it tells what is wrong with it.
        if os.path.lexists(candidate):
            return candidate
    return None


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """Return where a settings file is searched when none is named, first come first."""
    found = [Path(NAME)]
    if home := environ.get("XDG_CONFIG_HOME"):
        found.append(Path(home, "backupgw", NAME))
    elif home := environ.get("HOME"):
        found.append(Path(home, ".config", "backupgw", NAME))
    return [*found, Path("/etc/backupgw", NAME)]
