"""How the store's commands say what they have to say."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...secrets import redact_url


def size_text(count: float) -> str:
    """Return bytes for people."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} PiB"


def time_text(seconds: float) -> str:
    """Return a moment, "-" where it is not known."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else "-"


def moment(seconds: float) -> str | None:
    """Return a moment for JSON, None where it is not known."""
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None


def cell(value: object) -> str:
    """Return text in one line: a name with a line break would look like another's row."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def error_text(error: BaseException | str) -> str:
    """Return what an error says, in one line and without secrets."""
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    return cell(redact_url(text))


def line(text: str) -> None:
    """Write a line of the answer."""
    print(text)  # noqa: T201


def json_line(record: Mapping[str, Any]) -> None:
    """Write one record of an answer that is streamed: a JSON object in a line."""
    print(json.dumps(record, ensure_ascii=True))  # noqa: T201


def json_document(document: object) -> None:
    """Write an answer as one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=True))  # noqa: T201


def remark(text: str) -> None:
    """Write what is no part of the answer, to standard error."""
    print(f"backupgw: {text}", file=sys.stderr)  # noqa: T201


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Write rows in columns; `right` are the columns whose cells end below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.rjust(widths[column]) if column in right else text.ljust(widths[column])
            for column, text in enumerate(row)
        ]
        line("  ".join(cells).rstrip())
