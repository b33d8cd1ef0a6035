"""File, environment and flags laid over each other, an etcd beneath, and which of them set what.

pydantic-settings is not used for this: it forgets which source a value came from, and a mistake
must be told where it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .secrets import Secret
from .settings_errors import DEFAULT, Key, Origin
from .settings_file import SettingsFile

PREFIX = "BACKUPGW_"
SEPARATOR = "__"


@dataclass(frozen=True)
class Flag:
    """An override that knows its flag: `{"rest.listen": Flag("--listen", ":8000")}`."""

    name: str
    value: Any


class Sources:
    """All values as one nested dict, later sources over earlier ones."""

    def __init__(self, file: SettingsFile | None) -> None:
        self.file = file
        self.values: dict[str, Any] = _copy(file.values) if file else {}
        self.named: set[str] = set()
        """Places that come from a file of their own."""
        self._over: dict[Key, Origin] = {}

    def add_places(self, places: Mapping[str, Mapping[str, Any]], path: str) -> None:
        """Add places that the settings file has none of, from the file at `path`."""
        tables = self.values.setdefault("places", {}) if places else {}
        if not isinstance(tables, dict):
            return  # a mistake, which is told where all are
        for name, table in places.items():
            if name not in tables:
                tables[name] = _copy(table)
                self.named.add(name)
                self._over["places", name] = Origin("file", path)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Lay `BACKUPGW_SECTION__KEY` variables over what is there.

        An empty variable counts as not set, as container files leave them. A value that starts
        with `[` or `{` is read as JSON where it is JSON: lists, and tables such as
        `{"file": "/etc/x"}`.
        """
        for name in sorted(environ):
            parts = name.removeprefix(PREFIX).split(SEPARATOR)
            if not name.startswith(PREFIX) or len(parts) < 2 or not all(parts):
                continue
            if text := environ[name]:
                self._set(
                    [part.lower() for part in parts], value_of(text), Origin("environment", name)
                )

    def add_overrides(self, overrides: Mapping[str, Any]) -> None:
        """Lay flags over what is there: dotted keys or nested mappings; None means not given."""
        for key, value in _leaves(overrides, ()):
            if isinstance(value, Flag):
                if value.value is not None:
                    self._set(list(key), value.value, Origin("flag", value.name))
            elif value is not None:
                self._set(list(key), value, Origin("flag", f"--{key[-1].replace('_', '-')}"))

    def add_beneath(self, key: Sequence[str], value: Any, origin: Origin) -> None:
        """Set a value that no other source says anything of."""
        table = self.values
        for number, part in enumerate(key[:-1], 1):
            if part not in table:
                table[part] = {}
                self._over[tuple(key[:number])] = origin
            table = table[part]
            if not isinstance(table, dict):
                return
        other_way = key[-1] in Secret.KINDS and table and table.keys() <= set(Secret.KINDS)
        if key[-1] not in table and not other_way:
            table[key[-1]] = _copy(value)
            self._over[tuple(key)] = origin

    def origin(self, key: Key) -> Origin:
        """Return where the value at `key`, or the nearest thing around it, was set."""
        lengths = range(len(key), 0, -1)
        for length in lengths:
            # What another source set replaced all that the file had beneath it.
            if (origin := self._over.get(key[:length])) is not None:
                return origin
        for length in lengths:
            if self.file and (line := self.file.line_of(key[:length])):
                return Origin("file", str(self.file.path), line)
        return Origin("file", str(self.file.path)) if self.file else DEFAULT

    def exact(self, key: Key) -> Origin:
        """Like `origin`, but the default for what was set nowhere itself."""
        return self.origin(key) if self._has(key) else DEFAULT

    def _has(self, key: Key) -> bool:
        value: Any = self.values
        for part in key:
            found = isinstance(value, dict) and part in value
            if found or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
                value = value[part]
            else:
                return False
        return True

    def _set(self, parts: list[str], value: Any, origin: Origin) -> None:
        table = self.values
        key: list[str | int] = []
        for part in parts[:-1]:
            name = _existing(table, part)
            key.append(name)
            inner = table.get(name)
            if not isinstance(inner, dict):
                inner = table[name] = {}
                # What was here is replaced, so is what was known of where it came from.
                self._over[tuple(key)] = origin
            table = inner
        name = _existing(table, parts[-1])
        if name in Secret.KINDS and table.keys() <= set(Secret.KINDS):
            table.clear()  # another way to the same secret replaces the first
        table[name] = value
        key.append(name)
        for known in [known for known in self._over if known[: len(key)] == tuple(key)]:
            del self._over[known]
        self._over[tuple(key)] = origin


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return value


def _existing(table: Mapping[str, Any], part: str) -> str:
    """Return the key of `table` that `part` means: a variable's name cannot hold a `-`."""
    if part in table:
        return part
    for name in table:
        if name.lower().replace("-", "_") == part:
            return name
    return part


def value_of(text: str) -> Any:
    """Read a value that is written as text: JSON where it starts so, else the text itself."""
    if text[0] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _leaves(
    values: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        key = (*above, *name.split("."))
        if isinstance(value, Mapping) and not (value and value.keys() <= set(Secret.KINDS)):
            yield from _leaves(value, key)
        else:
            yield key, value
