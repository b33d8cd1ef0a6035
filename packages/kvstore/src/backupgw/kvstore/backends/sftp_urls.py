"""The URLs of places on SFTP servers, and the options beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from .errors import BackendURLInvalid

_URL = re.compile(
    r"sftp://(?:(?P<user>[^@:/]+)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:/@\[\]?#]+)(?::(?P<port>\d{1,5}))?/(?P<path>[^?#]+)\Z",
    re.IGNORECASE | re.DOTALL,
)

FORM = "sftp://[user@]host[:port]/folder, relative to the login's, or …//absolute/folder"


@dataclass(frozen=True)
class Target:
    """What a URL names.

    Attributes:
        host: as written: a name, an address, or a host of ssh's settings.
        path: of the folder; relative to the login's unless it starts with `/`.
        password: one that stood in the URL; in no message.
    """

    host: str
    user: str | None
    port: int | None
    path: str
    password: str | None = field(default=None, repr=False)

    @property
    def server(self) -> str:
        """What messages call the server."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sftp://{user}{host}{f':{self.port}' if self.port else ''}"


def target_of(url: str) -> Target:
    """Understand a URL. Raises BackendURLInvalid; the message does not repeat it."""
    match = _URL.match(url)
    if match is None:
        raise BackendURLInvalid(f"an SFTP URL is {FORM}; other signs are percent-encoded")
    user, host, path = match["user"], match["host"].strip("[]"), unquote(match["path"])
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise BackendURLInvalid(f"there is no port {port}")
    if host.startswith("-") or "\0" in path:
        raise BackendURLInvalid("an SFTP URL's host starts with no '-', its path holds no NUL")
    password = match["password"]
    return Target(
        host,
        unquote(user) if user else None,
        port,
        path.rstrip("/") or "/",
        unquote(password) if password else None,
    )


def some_seconds(option: str, value: object) -> float:
    """Return a time in seconds. Raises BackendURLInvalid for none and for less than nothing."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e7:
        return float(value)
    raise BackendURLInvalid(f"{option} is a number of seconds above 0")


def a_count(option: str, value: object, most: int) -> int:
    """Return a number of things. Raises BackendURLInvalid for none and for too many."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if type(value) is int and 1 <= value <= most:
        return value
    raise BackendURLInvalid(f"{option} is a number from 1 to {most}")


def a_switch(option: str, value: object) -> bool:
    """Return a yes or no. Raises BackendURLInvalid for anything else."""
    known = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    if isinstance(value, bool):
        return value
    raise BackendURLInvalid(f"{option} is true or false")


def files(option: str, value: object) -> tuple[str, ...]:
    """Return paths of files, of which one alone need not be in a list. Raises BackendURLInvalid."""
    paths: Sequence[object] = (
        [] if value is None else [value] if not isinstance(value, list | tuple) else value
    )
    for path in paths:
        if not isinstance(path, str) or not path:
            raise BackendURLInvalid(f"{option}: {path!r} is no path of a file")
    return tuple(os.path.expanduser(str(path)) for path in paths)


def a_secret(option: str, value: object) -> str | None:
    """Return a secret. Raises BackendURLInvalid for what is no text; the message is without it."""
    if value is None or isinstance(value, str):
        return value or None
    raise BackendURLInvalid(f"{option} is text")
