"""The section `[backup]`: what is backed up, where to, and what is kept.

[backup]
to = ["local", "aws_s3"]

[backup.sets.home]
paths = ["/home", "/etc"]
exclude = ["*.tmp", "/home/*/.cache"]
keep = { daily = 7, weekly = 4, monthly = 12 }
ping = { file = "/etc/backupgw/home.ping" }
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from backupgw.kvstore.layers.encrypt_keys import read_key
from backupgw.runtime.events.settings import check_url
from backupgw.runtime.secrets import Secret

from .patterns import BadPattern, Patterns
from .retention import ALL, Keep
from .tree import Selection

NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?\Z")
"""What sets may be called: a word of commands, a segment of paths, a part of units' names."""


def _count(value: object) -> object:
    return ALL if value in ("all", "unlimited") else value


Count = Annotated[
    int,
    BeforeValidator(_count),
    Field(ge=ALL),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": ALL}, {"enum": ["all", "unlimited"]}]}
    ),
]


class KeepSettings(BaseModel):
    """What `backup prune` keeps: so many of the last ones, and one for each of so many hours, …

    Attributes:
        last: how many of the last ones; "all" for every one.
        hourly: one for each of the last so many hours that have any.
        daily: the same for days.
        weekly: the same for weeks.
        monthly: the same for months.
        yearly: the same for years.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    last: Count = 0
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    monthly: Count = 0
    yearly: Count = 0

    @model_validator(mode="after")
    def _keeps_something(self) -> KeepSettings:
        if not self.keep():
            raise ValueError("would keep no backup at all; set daily = 7, for example")
        return self

    def keep(self) -> Keep:
        """Return it as a policy."""
        return Keep(**self.model_dump())


Command = tuple[str, ...]


class SetSettings(BaseModel):
    """Section `[backup.sets.NAME]`: files that are backed up together.

    Attributes:
        paths: files and folders, absolute.
        exclude: patterns of what is left out, as restic has them: "*.tmp", "/home/*/.cache".
        exclude_if_present: names of files; the content of a folder that has one is left out.
        exclude_caches: leave out the content of folders that say they are caches (CACHEDIR.TAG).
        one_file_system: do not go into other file systems.
        to: providers, by name; default those of [backup], else all that are enabled.
        format: "restic", deduplicated and encrypted, each time only what is new; or "archive", one
            tar.zst a time.
        compression: "auto", "off" or "max".
        encrypt: whether archives are sealed by age; restic's always are.
        keep: what `backup prune` keeps; default that of [backup].
        ping: URL told of start, success (as it is) and failure (/start and /fail behind it), as
            healthchecks.io has it; a secret.
        before: a command that runs first; if it fails nothing is backed up.
        after: a command that runs when all of it is done.
        failed: a command that runs when some or all of it is not.
        hook_time_limit: seconds that one of these may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = ()
    exclude_if_present: tuple[str, ...] = ()
    exclude_caches: bool = True
    one_file_system: bool = False
    to: tuple[str, ...] = ()
    format: Literal["restic", "archive"] = "restic"
    compression: Literal["auto", "off", "max"] = "auto"
    encrypt: bool = True
    keep: KeepSettings | None = None
    ping: Secret | None = None
    before: Command = ()
    after: Command = ()
    failed: Command = ()
    hook_time_limit: float = Field(default=3600.0, gt=0)

    @field_validator("paths")
    @classmethod
    def _absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
                raise ValueError(f"{path!r} is no absolute path without '..'")
        return paths

    @field_validator("exclude")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        try:
            Patterns(patterns)
        except BadPattern as error:
            raise ValueError(str(error)) from None
        return patterns

    @field_validator("exclude_if_present")
    @classmethod
    def _file_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name or "/" in name or ":" in name:
                raise ValueError(f"{name!r} is no name of a file")
        return names

    @field_validator("ping")
    @classmethod
    def _url(cls, ping: Secret | None) -> Secret | None:
        if ping is not None and ping.literal:
            check_url(ping.reveal())
        return ping

    def selection(self) -> Selection:
        """Return what is backed up."""
        return Selection(
            self.paths,
            self.exclude,
            self.exclude_if_present,
            self.exclude_caches,
            self.one_file_system,
        )


class BackupSettings(BaseModel):
    """What is backed up, to which providers, and what is kept of it.

    Attributes:
        to: providers, by name; default all that are enabled.
        host: under which name this machine's backups are kept; default the machine's.
        keep: what `backup prune` keeps.
        restic: the program, by name or path.
        password: of the restic repositories; default one that is made and kept in the state folder.
        key: an age key (AGE-SECRET-KEY-1…) that archives are sealed for; default likewise.
        parallel: providers that are written to at the same time, at most.
        metrics_file: written after each run, for node_exporter's textfile collector.
        sets: what is backed up together, each a [backup.sets.NAME].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: tuple[str, ...] = ()
    host: str | None = None
    keep: KeepSettings | None = None
    restic: str = "restic"
    password: Secret | None = None
    key: Secret | None = None
    parallel: int = Field(default=3, ge=1, le=32)
    metrics_file: Path | None = None
    sets: dict[str, SetSettings] = Field(default_factory=dict)

    @field_validator("sets")
    @classmethod
    def _names(cls, sets: dict[str, SetSettings]) -> dict[str, SetSettings]:
        for name in sets:
            if not NAME.match(name):
                raise ValueError(f"{name!r} has other than lower-case letters, digits, - and _")
        return sets

    @field_validator("host")
    @classmethod
    def _host(cls, host: str | None) -> str | None:
        if host is not None and not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})", host):
            raise ValueError("is not a machine's name: letters, digits, dots, - and _")
        return host

    @field_validator("key")
    @classmethod
    def _key(cls, key: Secret | None) -> Secret | None:
        if key is not None and key.literal:
            read_key(key.reveal())
        return key
