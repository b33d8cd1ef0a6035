"""The section `[etcd]`: settings that several gateways have in common, beneath their own files.

The key `/backupgw/vfs/users/bytes` is `bytes` in `[vfs.users]`. A value is text as in the
environment: what starts with `[` or `{` is JSON. Whatever a gateway's file, environment or flags
say counts before it. Read when a gateway starts; one that cannot read it does not start, since
limits may stand there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .secrets import Secret
from .settings_errors import Issue, Origin, SettingsError, did_you_mean
from .settings_sources import Sources, value_of

if TYPE_CHECKING:
    from .etcd import Etcd

MOST = 2000
"""Keys that are taken for settings; more are somebody else's."""


class EtcdSettings(BaseModel):
    """An etcd where gateways have settings in common.

    Attributes:
        urls: of its members, such as "http://127.0.0.1:2379"; none: there is no etcd.
        prefix: what settings' keys there begin with.
        sections: those that are taken from there; a key of another is a mistake.
        user: where its authentication is switched on.
        password: that user's.
        ca: file of the certificates that may have signed the members' own; default the system's.
        cert: certificate that is shown to them, with `key`.
        key: the certificate's key.
        timeout: seconds that each member may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: list[str] = Field(default=[])
    prefix: str = Field("/backupgw/", pattern=r"^/.*[^/]/$|^/$", max_length=512)
    sections: list[str] = Field(default=["vfs", "vfs_manager", "places"])
    user: str | None = None
    password: Secret | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout: float = Field(5.0, gt=0, le=60)

    @field_validator("urls", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _urls(cls, urls: list[str]) -> list[str]:
        for url in urls:
            try:
                parts = urlsplit(url)
                good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
                plain = parts.path in ("", "/") and not (parts.query or parts.fragment)
            except ValueError:
                good = plain = False
            if "@" in url:
                raise ValueError("has a user or a password in it; use user and password")
            if not (good and plain):
                raise ValueError(f'{url!r} is no member; write "http://HOST:2379"')
        return urls

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("has one of cert and key; it needs both or neither")
        if self.password is not None and self.user is None:
            raise ValueError("has a password without a user")
        return self

    def open(self) -> Etcd:
        """Return what reads it."""
        from .etcd import Etcd  # late, with what it needs of the network

        return Etcd(
            self.urls,
            user=self.user,
            password=self.password,
            authority=self.ca,
            certificate=self.cert,
            key=self.key,
            timeout=self.timeout,
        )

    def key_of(self, *path: str) -> str:
        """Return under which key a setting stands there."""
        return self.prefix + "/".join(path)


def add_etcd(sources: Sources) -> None:
    """Lay what an etcd says beneath the other sources, where these name one.

    Raises:
        SettingsError: it cannot be read, or holds something that is no setting.
    """
    from .etcd import EtcdError

    try:
        settings = EtcdSettings.model_validate(sources.values.get("etcd", {}))
    except ValidationError:
        return  # told with all other mistakes
    if not settings.urls:
        return
    try:
        found = settings.open().below(settings.prefix)
    except EtcdError as error:
        message = (
            f"the settings in etcd cannot be read ({error}); start it, correct the address, or "
            "remove [etcd]"
        )
        raise SettingsError(Issue(sources.origin(("etcd", "urls")), "etcd.urls", message)) from None
    if len(found) > MOST:
        message = f"{len(found)} keys begin with it, and at most {MOST} can be settings"
        raise SettingsError(Issue(sources.origin(("etcd", "prefix")), "etcd.prefix", message))
    issues = _add(sources, settings, found)
    if issues:
        raise SettingsError(*issues)


def _add(sources: Sources, settings: EtcdSettings, found: Mapping[str, str]) -> list[Issue]:
    issues: list[Issue] = []
    values: dict[tuple[str, ...], str] = {}
    for name in sorted(found):
        path = tuple(name.removeprefix(settings.prefix).split("/"))
        text = found[name]
        if not text:
            continue  # as with variables: an empty one is not set

        def wrong(message: str, name: str = name) -> None:
            issues.append(Issue(_origin(name), "", message))

        above = next((path[:n] for n in range(1, len(path)) if path[:n] in values), None)
        if len(path) < 2 or not all(path):
            wrong(f"is no setting's key; write {settings.prefix}SECTION/KEY")
        elif path[0] not in settings.sections:
            advice = did_you_mean(path[0], settings.sections)
            wrong(f"[{path[0]}] is not taken from etcd; {advice}, or add it to etcd.sections")
        elif above is not None:
            wrong(f"{'/'.join(above)} has a value, so nothing can lie below it; remove one of them")
        elif _runs_a_command(path, value := value_of(text)):
            wrong("a command is not taken from etcd; a secret can be in a file or a variable")
        else:
            values[path] = text
            for below, leaf in _leaves(path, value):
                sources.add_beneath(below, leaf, _origin(name))
    return issues


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what is no table, with the way to it; a secret's table counts as one value."""
    if isinstance(value, Mapping) and value and not value.keys() <= set(Secret.KINDS):
        for name, item in value.items():
            yield from _leaves((*path, name), item)
    else:
        yield path, value


def _origin(name: str) -> Origin:
    return Origin("etcd", f"etcd key {name}")


def _runs_a_command(path: tuple[str, ...], value: Any) -> bool:
    """Whether a value names a program that would be run, anywhere in it."""
    if path[-1:] == ("command",):
        return True
    if isinstance(value, Mapping):
        return any(_runs_a_command((str(key),), item) for key, item in value.items())
    if isinstance(value, list):
        return any(_runs_a_command((), item) for item in value)
    return False
