"""What a request says, read as Wings reads it, and refused where it is nothing of the kind.

The body is JSON whatever its Content-Type, keys may be written in any case, unknown ones do not
matter, and `null` is an empty object. UUIDs have their canonical form: a comma in one would be two
tags to restic, a slash another folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
LARGEST_BODY = 1 << 20
_MOST_PATHS = 1000
_LONGEST_PATH = 4096


class Refusal(Exception):
    """An answer that is no success: a status and one line for a person."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


def canonical(text: str) -> bool:
    """Whether a text is a UUID as the Panel writes it."""
    return UUID.match(text) is not None


class Fields:
    """The fields of a body.

    Args:
        body: the bytes.
        optional: whether it may be empty.

    Raises:
        Refusal: 400.
    """

    def __init__(self, body: bytes, *, optional: bool = False) -> None:
        self._values: dict[str, Any] = {}
        if not body.strip() and optional:
            return
        try:
            found = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError):
            raise Refusal(400, "the body of the request is not valid JSON") from None
        if found is None:
            return
        if not isinstance(found, dict):
            raise Refusal(400, "the body of the request is not a JSON object")
        self._values = {name.lower(): value for name, value in found.items()}

    def text(self, name: str, *, longest: int = 64 << 10) -> str:
        """Return a text; "" where there is none."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or "\0" in value or len(value) > longest:
            raise Refusal(400, f"{name} is not a text as it should be")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refusal(400, f"{name} is not valid Unicode") from None
        return value

    def switch(self, name: str) -> bool:
        """Return true or false; false where there is nothing."""
        value = self._values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise Refusal(400, f"{name} is neither true nor false")
        return value

    def uuid(self, name: str) -> str:
        """Return a UUID."""
        value = self.text(name)
        if not canonical(value):
            raise Refusal(400, f"{name} is not a UUID")
        return value

    def paths(self, name: str) -> tuple[str, ...]:
        """Return paths below a server's folder, without a slash at either end."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > _MOST_PATHS:
            raise Refusal(400, f"{name} is not a list of at most {_MOST_PATHS} paths")
        return tuple(dict.fromkeys(_path(name, each) for each in value))


def _path(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > _LONGEST_PATH:
        raise Refusal(400, f"{name} has an entry that is not a path")
    parts = [part for part in value.split("/") if part not in ("", ".")]
    unusable = any(sign < " " for sign in value) or ".." in parts or not parts
    try:
        value.encode()
    except UnicodeEncodeError:
        unusable = True
    if unusable:
        raise Refusal(400, f"{name} has an entry that is not a path below the server's folder")
    return "/".join(parts)
