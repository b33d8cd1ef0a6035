"""What borgstore's requests say: names, ranges, sources. Nothing here waits."""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

from backupgw.kvstore.names import InvalidName, check_folder, check_path

_RANGE = re.compile(rb"bytes=(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))\Z")

Part = tuple[str, int, int]
"""(name, offset, size) in bytes."""


class BadRequest(ValueError):
    """A request that says nothing sensible; the text says why."""


class Span(NamedTuple):
    """Part of an item: offset of its first byte, negative from the end, and how many, None: all."""

    offset: int
    size: int | None


def name_of(raw_path: bytes) -> str:
    """Return the item or folder that a path names, "" for the root.

    Raises:
        BadRequest: it is no name.
    """
    try:
        return check_folder(unquote_to_bytes(raw_path).decode().strip("/"))
    except UnicodeDecodeError as error:
        raise BadRequest("the path is not UTF-8") from error
    except InvalidName as error:
        raise BadRequest(str(error)) from error


def query_of(query_string: bytes) -> dict[str, str]:
    """Return the first value of each parameter."""
    if not query_string:
        return {}
    query = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    return {key: values[0] for key, values in query.items()}


def named(query: dict[str, str], key: str) -> str:
    """Return the name in a parameter. Raises BadRequest."""
    try:
        return check_path(query.get(key, ""))
    except InvalidName as error:
        raise BadRequest(f"{key}: {error}") from error


def span_of(header: bytes | None) -> Span | None:
    """Return the part of an item that a Range header asks for, None for the whole.

    borgstore's client asks for no bytes by a last byte before the first. What is no range of
    bytes is ignored (RFC 9110, 14.2).
    """
    match = _RANGE.match(header) if header is not None else None
    if match is None:
        return None
    first, last, tail = match.groups()
    if tail is not None:
        return Span(-int(tail), None) if int(tail) else Span(0, 0)
    if last is None:
        return Span(int(first), None)
    return Span(int(first), max(int(last) - int(first) + 1, 0))


def sources_of(body: bytes) -> list[Part]:
    """Return the sources of gather and defrag; those of no bytes are left out.

    Raises:
        BadRequest: the body is no JSON list of [name, offset, size].
    """
    try:
        sources = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the sources are no JSON") from error
    if not isinstance(sources, list):
        raise BadRequest("the sources are no list")
    return [part for part in map(_source, sources) if part[2]]


def _source(source: object) -> Part:
    match source:
        case [str(name), int(offset), int(size)] if (
            not isinstance(offset, bool) and not isinstance(size, bool) and size >= 0
        ):
            try:
                return check_path(name), offset, size
            except InvalidName as error:
                raise BadRequest(str(error)) from error
    raise BadRequest("a source is [name, offset, size >= 0]")
