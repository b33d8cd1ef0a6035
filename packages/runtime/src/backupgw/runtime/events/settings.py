"""The sections `[events]` and `[[events.hook]]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings_errors import did_you_mean

from .filters import Filter, matching_types
from .records import Severity, known_types

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?\Z")
# RFC 9110, 5.6.2
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_OURS = frozenset({"content-type", "content-length", "transfer-encoding", "host", "connection"})


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


def _pattern(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Patterns = Annotated[
    tuple[Annotated[str, BeforeValidator(_pattern)], ...], BeforeValidator(_one_or_more)
]


class HookSettings(BaseModel):
    """Section `[[events.hook]]`: a command or a URL that is told of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="unique; logs and metrics name the hook by it")
    command: tuple[str, ...] = Field(
        (), description='program and arguments, ["/usr/local/bin/tell", "--mail"]; no shell'
    )
    url: Secret | None = Field(
        None, description="POST the event to this http(s) URL; may be a secret"
    )
    secret: Secret | None = Field(
        None, description="signs webhooks by HMAC-SHA256 (Standard Webhooks)"
    )
    headers: dict[str, Secret] = Field(
        default_factory=dict, description="more headers of a webhook, such as Authorization"
    )
    ca_file: Path | None = Field(
        None, description="certificates to trust instead of the system's, PEM"
    )
    types: Patterns = Field((), description='events, "quota.*" for example; none: all of them')
    severity: Severity = Field(Severity.INFO, description="the least: info, warning or error")
    where: dict[str, Patterns] = Field(
        default_factory=dict, description='patterns by field: { repository = "alice/*" }'
    )
    time_limit: float = Field(15.0, gt=0, le=3600, description="seconds for one attempt")
    keep_for: float = Field(
        86_400.0, gt=0, description="seconds after which an undelivered event is given up"
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.match(name):
            raise ValueError("has lower-case letters, digits, - and _ only; rename it")
        return name

    @field_validator("command")
    @classmethod
    def _check_command(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in part for part in command) or (command and not command[0]):
            raise ValueError("is not a command; write a program and its arguments")
        return command

    @field_validator("url")
    @classmethod
    def _check_literal(cls, url: Secret | None) -> Secret | None:
        if url is not None and url.literal:
            check_url(url.reveal())
        return url

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name in headers:
            if not _HEADER.match(name):
                raise ValueError(f"{name!r} is not the name of a header")
            if name.lower() in _OURS or name.lower().startswith("webhook-"):
                raise ValueError(f"{name} is set by the gateway; remove it")
        return headers

    @field_validator("types")
    @classmethod
    def _check_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        known = known_types()
        for pattern in types:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise ValueError(f"no event is called {pattern!r}; {did_you_mean(pattern, known)}")
        return types

    @model_validator(mode="after")
    def _check_whole(self) -> HookSettings:
        if bool(self.command) == (self.url is not None):
            raise ValueError("needs a command or a url, and not both")
        if self.command and (self.secret or self.headers or self.ca_file):
            raise ValueError(
                "secret, headers and ca_file are for a url; a command has no use for them"
            )
        kinds = matching_types(self.types)
        fields = frozenset[str]().union(*(kind.field_names() for kind in kinds))
        for name in self.where:
            if name not in fields:
                raise ValueError(
                    f"no such event has a field {name!r}; {did_you_mean(name, fields)}"
                )
        return self

    def filter(self) -> Filter:
        """Return what the hook wants to be told."""
        return Filter(self.types, self.severity, self.where)


class EventsSettings(BaseModel):
    """Who is told of what happens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: bool = Field(True, description="log each event")
    gateway: str = Field("", description="this gateway's name in events; default the machine's")
    queue: int = Field(
        10_000, ge=10, le=1_000_000, description="events that may wait; more are dropped, counted"
    )
    journal: Path | None = Field(
        None,
        description="file of what hooks are still to be told, over restarts; default "
        "events.sqlite3 in the state folder",
    )
    pending: int = Field(
        10_000, ge=1, le=1_000_000, description="events kept for a hook; the oldest make room"
    )
    hook: tuple[HookSettings, ...] = Field(
        (), max_length=32, description="commands and webhooks, each an [[events.hook]]"
    )

    @field_validator("hook")
    @classmethod
    def _check_names(cls, hooks: tuple[HookSettings, ...]) -> tuple[HookSettings, ...]:
        names = [hook.name for hook in hooks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two hooks are called {name!r}; rename one")
        return hooks

    @field_validator("hook", mode="before")
    @classmethod
    def _check_list(cls, hooks: Any) -> Any:
        if isinstance(hooks, Mapping):
            raise ValueError(  # noqa: TRY004 - pydantic takes it for a mistake in the file
                "is a list; write [[events.hook]], with two brackets"
            )
        return hooks


def check_url(url: str) -> None:
    """Raises ValueError, which does not repeat it, where `url` is none for a webhook."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(sign <= " " or sign == "\x7f" for sign in url):
        raise ValueError("is not a URL for a webhook; write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError('holds a login; write headers = { Authorization = { file = "…" } }')
