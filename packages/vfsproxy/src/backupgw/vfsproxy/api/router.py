"""From a request's path to an operation, and its parameters out of path and query.

A path is decoded once, here: `%2F` in the rest of a path is a slash, and what names a file is
checked afterwards by the kernel's rules, so no spelling of `..` is left to be understood later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl, unquote_to_bytes

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..problems import Problem
from .models import SWITCHED
from .operation import Operation

_PLACEHOLDER = re.compile(r"\{([a-z_]+)(\*?)\}")
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
LONGEST_QUERY = 64 << 10
MOST_FIELDS = 1000


class Router:
    """The operations of one API."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = list(operations)
        self._routes: list[tuple[re.Pattern[bytes], dict[str, Operation]]] = []
        known: dict[str, dict[str, Operation]] = {}
        for operation in self.operations:
            methods = known.setdefault(operation.path, {})
            if operation.method in methods:
                raise ValueError(f"{operation.method} {operation.path} is there twice")
            methods[operation.method] = operation
        for path in sorted(known, key=_precedence):
            self._routes.append((_pattern(path), known[path]))

    def find(self, method: str, raw_path: bytes) -> tuple[Operation, dict[str, str]]:
        """Return the operation of a request, and the path's parameters, decoded.

        Args:
            raw_path: as it came, without the query.

        Raises:
            Problem: there is none (404, or 405 with the methods that there are).
        """
        found = self._match(raw_path)
        if found is None:
            raise Problem(404, "no-such-route", "the API has no such path")
        methods, match = found
        operation = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if operation is None:
            allow = ", ".join(allowed(methods))
            raise Problem(
                405,
                "method",
                f"{method} is not possible here; {allow} are",
                headers=[(b"allow", allow.encode())],
            )
        return operation, {name: _text(value) for name, value in match.groupdict().items()}

    def has(self, method: str, raw_path: bytes) -> bool:
        """Whether an operation answers this method of this path."""
        found = self._match(raw_path)
        return found is not None and method in found[0]

    def methods(self, raw_path: bytes) -> list[str]:
        """Return the methods that a path has. Raises Problem 404 where there is no such path."""
        found = self._match(raw_path)
        if found is None:
            raise Problem(404, "no-such-route", "the API has no such path")
        return allowed(found[0])

    def _match(self, raw_path: bytes) -> tuple[Mapping[str, Operation], re.Match[bytes]] | None:
        for pattern, methods in self._routes:
            if match := pattern.fullmatch(raw_path):
                return methods, match
        return None


def allowed(methods: Mapping[str, Operation]) -> list[str]:
    """Return the methods of a path, with those that come by themselves."""
    names = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return sorted(names)


def parameters_of(model: type[BaseModel], path: Mapping[str, str], query: bytes) -> BaseModel:
    """Return the parameters of a request, checked.

    A number is what JSON writes so (RFC 8259, 6). What else `int` takes for one, with blanks, a
    plus, underscores or the digits of other scripts, is none. A boolean is `true` or `false`;
    a `Switch` has more spellings.

    Raises:
        Problem: 400, with every mistake.
    """
    values: dict[str, Any] = {}
    if len(query) > LONGEST_QUERY:
        raise Problem(400, "malformed", "the query is too long")
    if _ESCAPE.search(query):
        raise Problem(400, "malformed", "the query has a % that is no escape")
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError:
        raise Problem(400, "malformed", "the query is not percent-encoded UTF-8") from None
    names = {(field.alias or name): field for name, field in model.model_fields.items()}
    for name, value in pairs:
        if name in path:
            raise Problem(400, "invalid", f"{name} belongs to the path, not the query")
        field = names.get(name)
        if field is not None and (
            (_may_be(int, field) and not _NUMBER.fullmatch(value))
            or (_may_be(bool, field) and value not in ("true", "false", *_switched(field)))
        ):
            value = ""  # which is told as what is neither
        if field is not None and get_origin(field.annotation) is list:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Problem(400, "invalid", f"{name} is there twice")
        else:
            values[name] = value
    with refusing("parameters"):
        return model.model_validate(values | dict(path))


def _switched(field: FieldInfo) -> tuple[str, ...]:
    """Return what a `Switch` may say besides true and false."""
    return SWITCHED if SWITCHED in field.metadata else ()


def _may_be(kind: type, field: FieldInfo) -> bool:
    return kind in (field.annotation, *get_args(field.annotation))


def body_of(model: type[BaseModel], given: Any) -> BaseModel:
    """Return the body of a request, checked: no value is taken for one of another JSON type.

    Args:
        given: what the JSON came to.

    Raises:
        Problem: 400, with every mistake.
    """
    text = json.dumps(given)
    with refusing("body"):
        return model.model_validate_json(text, strict=True)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Have what a model says of values told to the client.

    Raises:
        Problem: 400, with every mistake.
    """
    try:
        yield
    except ValidationError as error:
        mistakes = [
            {
                "at": ".".join(str(part) for part in mistake["loc"]),
                "message": mistake["msg"].removeprefix("Value error, "),
            }
            for mistake in error.errors(include_input=False, include_url=False)
        ]
        first = mistakes[0]
        where = f"{first['at']}: " if first["at"] else ""
        raise Problem(
            400, "invalid", f"{what}: {where}{first['message']}", data={"mistakes": mistakes}
        ) from None


def _text(value: bytes) -> str:
    if _ESCAPE.search(value):
        raise Problem(400, "malformed", "the path has a % that is no escape")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise Problem(400, "invalid-name", "the path is not percent-encoded UTF-8") from None


def _pattern(path: str) -> re.Pattern[bytes]:
    parts = []
    position = 0
    for match in _PLACEHOLDER.finditer(path):
        parts.append(re.escape(path[position : match.start()]))
        parts.append(f"(?P<{match[1]}>{'.*' if match[2] else '[^/]+'})")
        position = match.end()
    parts.append(re.escape(path[position:]))
    return re.compile("".join(parts).encode(), re.DOTALL)


def _precedence(path: str) -> tuple[bool, int, str]:
    """Literal paths before those with placeholders, these before those with a rest."""
    return ("*}" in path, path.count("{"), path)
