"""Places that `backupgw config add` has written: a file of their own beside the settings file.

    [mydrime]
    url = "drime:"
    api_key = "…"

Each section is a place, as `[places.mydrime]` in the settings file would be, which wins where both
have one of a name. Only its owner can read the file. It is changed one at a time, whole or not at
all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import settings_file
from .command import CommandError
from .small_file import read_small_file

NAME = "backends.toml"
MAX_BYTES = 1 << 20

PLACE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\Z")
"""What places may be called."""

Table = dict[str, Any]


def path_of(config: Path | None, environ: Mapping[str, str]) -> Path:
    """Return where the file is, or will be: beside the settings file, else in the user's folder.

    Args:
        config: the settings file that was named, None where it is searched.
    """
    found = settings_file.find(config, environ)
    if found is None:
        # The one after ./backupgw.toml: a folder that is everybody's is no place for keys.
        found = settings_file.candidates(environ)[1]
    return Path(os.path.abspath(found)).with_name(NAME)


def local(path: str) -> Table:
    """Return a folder of this machine as a place."""
    return {"url": f"file://{quote(os.path.abspath(os.path.expanduser(path)))}"}


def drime_place(key: Any, *, path: str, workspace: int, forever: bool) -> Table:
    """Return a folder of a Drime workspace as a place.

    Args:
        key: the API key as a secret is written in settings.
    """
    folder = quote(path.strip("/"))
    table: Table = {"url": f"drime://{workspace}/{folder}" if workspace else f"drime:{folder}"}
    return table | {"api_key": key} | ({} if forever else {"trash": True})


_WRITTEN_BY = "Written by `backupgw config add` and `backupgw config remove`."


class NamedPlaces:
    """The file; other commands keep files of named sections with it, too.

    Args:
        path: as `path_of` returns it.
        written_by: what the file says of itself, in one line.
    """

    def __init__(self, path: Path, written_by: str = _WRITTEN_BY) -> None:
        self.path = path
        self._written_by = written_by

    def read(self) -> dict[str, Table]:
        """Return the places by name; none where there is no file.

        Raises:
            CommandError: it cannot be read, or understood.
        """
        try:
            content = read_small_file(self.path, MAX_BYTES).content
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise CommandError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            found = tomllib.loads(content.decode("utf-8-sig"))
        except ValueError as error:
            # Not chained: the message may repeat a line, and that may be a key.
            position = re.search(r"at line \d+", str(error))
            where = f" {position[0]}" if position else ""
            raise CommandError(f"{self.path}: is not valid TOML{where}") from None
        for name, table in found.items():
            if not isinstance(table, dict):
                raise CommandError(f"{self.path}: {name} is no section; write [{name}]")
        return found

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, Table]]:
        """Yield the places to be changed; they are written at the end, unless it raises.

        Raises:
            CommandError: the file cannot be read or written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(f"{self.path.parent}: {error.strerror}") from error
        try:
            # On the folder: a lock on the file itself would be on the one that is replaced.
            fcntl.flock(folder, fcntl.LOCK_EX)
            places = self.read()
            before = repr(places)
            yield places
            if repr(places) != before:
                self._write(f"# {self._written_by}\n{_text(places)}")
                os.fsync(folder)
        except OSError as error:
            raise CommandError(
                f"{self.path}: cannot be written: {error.strerror}; it is as it was"
            ) from error
        finally:
            os.close(folder)

    def _write(self, text: str) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:  # mkstemp made it for its owner alone
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


def _text(places: Mapping[str, Table]) -> str:
    """Return the file's text: what is kept is text, numbers, switches and one level of tables."""
    parts = []
    for name, table in places.items():
        parts.append(f"\n[{_key(name)}]\n")
        parts += [f"{_key(key)} = {_value(value)}\n" for key, value in table.items()]
    return "".join(parts)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    raise CommandError(f"a value of kind {type(value).__name__} cannot be kept here")
