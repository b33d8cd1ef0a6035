"""The format of `backupgw state export`: lines of JSON between a header and a checksum.

    {"backupgw_state": 1, "schema": 3, "program": "0.1.0", "made": "2026-11-20T14:00:00Z"}
    {"table": "tokens", "row": {"id": "…", "digest": {"base64": "…"}, …}}
    {"end": true, "rows": 1, "sha256": "…"}

`backupgw_state` is the version of the format, `schema` that of the tables. The checksum is of all
bytes before the last line. Times are seconds since 1970.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..command import CommandError

FORMAT = 1
LONGEST_LINE = 64 << 20
"""Bytes; the longest that we write is a job with its arguments, some MB."""


class StateFileError(CommandError):
    """The file is not an export, not a whole one, or too new; the message says where and why."""


@dataclass(frozen=True)
class Header:
    """The first line.

    Attributes:
        schema: version of the tables.
        program: version of the backupgw that wrote it.
        made: when, as ISO 8601.
    """

    schema: int
    program: str
    made: str


@dataclass(frozen=True)
class Record:
    """A row, and the line it stands in."""

    line: int
    table: str
    row: Mapping[str, Any]


class StateWriter:
    """Writes an export to an open file. Raises OSError."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.rows = 0
        self._write(
            {
                "backupgw_state": FORMAT,
                "schema": header.schema,
                "program": header.program,
                "made": header.made,
            }
        )

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        """Write a row; bytes become base64."""
        self._write({"table": table, "row": {name: _out(value) for name, value in row.items()}})
        self.rows += 1

    def finish(self) -> None:
        """Write the last line."""
        self._write({"end": True, "rows": self.rows, "sha256": self._digest.hexdigest()})

    def _write(self, document: Mapping[str, Any]) -> None:
        line = json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)


class StateReader:
    """Reads an export, line by line; `header` is known from the start.

    Raises:
        StateFileError: it is not an export, or of a newer format.
        OSError: it cannot be read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._line = 0
        self._digest = hashlib.sha256()
        self.header = self._read_header()

    def mistake(self, message: str, line: int | None = None) -> StateFileError:
        """Return the error for a line, the last one that was read by default."""
        return StateFileError(f"{self._name}:{line or self._line}: {message}")

    def records(self) -> Iterator[Record]:
        """Yield every row; ends only after a checksum that is right.

        Raises:
            StateFileError: the file is damaged or cut off. What was read until then is not to be
                trusted.
        """
        rows = 0
        while True:
            before = self._digest.hexdigest()
            document = self._next()
            if "end" in document:
                if document.get("sha256") != before or document.get("rows") != rows:
                    raise self.mistake("the checksum is wrong; the file was changed or damaged")
                if self._file.read(1):
                    raise self.mistake("something follows the last line of the export")
                return
            table, row = document.get("table"), document.get("row")
            if not isinstance(table, str) or not isinstance(row, dict):
                raise self.mistake("is no row of an export; the file was changed or damaged")
            rows += 1
            yield Record(
                self._line, table, {name: self._in(name, value) for name, value in row.items()}
            )

    def _read_header(self) -> Header:
        try:
            document = self._next()
            version = document["backupgw_state"]
            header = Header(int(document["schema"]), str(document["program"]), document["made"])
        except (StateFileError, KeyError, TypeError, ValueError):
            raise self.mistake("is not an export of backupgw's state") from None
        if version != FORMAT:
            raise self.mistake(
                f"has format {version!r}, this backupgw knows {FORMAT}; import it with backupgw "
                f"{header.program} or newer"
            )
        return header

    def _next(self) -> dict[str, Any]:
        line = self._file.readline(LONGEST_LINE)
        self._line += 1
        if not line:
            raise self.mistake("the file ends before its checksum: it was cut off")
        if not line.endswith(b"\n"):
            raise self.mistake("the line is cut off, or longer than any of ours")
        self._digest.update(line)
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            raise self.mistake("is not JSON; the file was changed or damaged") from None
        if not isinstance(document, dict):
            raise self.mistake("is no row of an export; the file was changed or damaged")
        return document

    def _in(self, name: str, value: object) -> object:
        if not isinstance(value, dict):
            return value
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise self.mistake(f"{name} is not base64") from None


def _out(value: object) -> object:
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    return value
