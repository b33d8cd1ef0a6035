"""The fields of a provider's configuration: what they mean, which values they may have.

Every provider has the fields of STANDARD, whose names, defaults and ranges are those of the
HOMESERVER backup system's guide; beside them it has fields of its own. A value is checked once,
where a provider is made, and a mistake names the field and says what to write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.entry_points import unknown
from backupgw.kvstore.layers import options
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.layers.throttle_rate import timetable

MIB = 1 << 20
GIB = 1 << 30
LEAST_BANDWIDTH = 1024


class ConfigInvalid(BackendError, ValueError):
    """A field of a provider's configuration cannot have this value, or is missing.

    Attributes:
        field: its name.
        message: what is wrong and what to write; never the value of a secret.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: as in the configuration.
        read: returns the value that is used, from what somebody wrote; raises OptionInvalid.
        help: what it is for, with the unit.
        default: where nothing is given.
        takes: which values there are, for people.
        secret: its value is shown nowhere, and kept apart from the configuration.
        required: there must be one; the provider's own decision.
        also: other names for the same, as other programs' files have them.
    """

    name: str
    read: Callable[[str, object], Any]
    help: str
    default: Any = None
    takes: str = "text"
    secret: bool = False
    required: bool = False
    also: tuple[str, ...] = ()


def text(name: str, help: str, default: str | None = None, **more: Any) -> Field:  # noqa: A002
    """Return a field that holds text; empty text is none."""
    return Field(name, options.text, help, default, **more)


def secret(name: str, help: str, **more: Any) -> Field:  # noqa: A002
    """Return a field that holds a secret."""
    return Field(name, _secret, help, None, "a secret", secret=True, **more)


def switch(name: str, help: str, *, default: bool, **more: Any) -> Field:  # noqa: A002
    """Return a field that is true or false."""
    return Field(name, options.flag, help, default, "true or false", **more)


def whole(name: str, help: str, default: int | None, least: int, most: int, **more: Any) -> Field:  # noqa: A002
    """Return a field that holds a whole number."""
    read = partial(_whole, least, most)
    return Field(name, read, help, default, f"{least} to {most}", **more)


def seconds(name: str, help: str, default: float, least: float, most: float) -> Field:  # noqa: A002
    """Return a field that holds a time."""
    read = partial(_seconds, least, most)
    return Field(name, read, help, default, f"{least:g} to {most:g} s")


def size(name: str, help: str, default: int, least: int, most: int) -> Field:  # noqa: A002
    """Return a field that holds a number of bytes."""
    read = partial(_size, least, most)
    return Field(name, read, help, default, f"{_mib(least)} to {_mib(most)}")


def one_of(name: str, help: str, known: Iterable[str], default: str | None, **more: Any) -> Field:  # noqa: A002
    """Return a field that holds one of a few words."""
    words = tuple(known)
    read = partial(_one_of, words)
    return Field(name, read, help, default, " | ".join(words), **more)


def path(name: str, help: str, **more: Any) -> Field:  # noqa: A002
    """Return a field that holds the absolute path of a file or folder; `~` is the user's home."""
    return Field(name, _path, help, None, "an absolute path", **more)


def url(name: str, help: str, **more: Any) -> Field:  # noqa: A002
    """Return a field that holds the URL of a service."""
    return Field(name, _url, help, None, "http(s)://HOST[:PORT]", **more)


def rate(name: str, help: str) -> Field:  # noqa: A002
    """Return a field that holds a bandwidth or a timetable of bandwidths."""
    return Field(name, _rate, help, None, f"{LEAST_BANDWIDTH} B/s or more, or a timetable")


def _secret(name: str, value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise OptionInvalid(name, f"must be text, not a {type(value).__name__}")


def _whole(least: int, most: int, name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # JSON of other programs has 3.0
        value = int(value)
    try:
        number = options.count(name, value, least=least)
    except OptionInvalid:
        number = most + 1
    if number > most:
        raise OptionInvalid(name, f"must be a whole number from {least} to {most}, not {value!r}")
    return number


def _seconds(least: float, most: float, name: str, value: object) -> float:
    number = options.duration(name, value)
    if not least <= number <= most:
        raise OptionInvalid(name, f"must be from {least:g} to {most:g} seconds, not {value!r}")
    return number


def _size(least: int, most: int, name: str, value: object) -> int:
    number = options.size(name, value)
    if not least <= number <= most:
        raise OptionInvalid(
            name, f"must be from {least} ({_mib(least)}) to {most} ({_mib(most)}), not {value!r}"
        )
    return number


def _one_of(words: tuple[str, ...], name: str, value: object) -> str:
    for word in words:
        if isinstance(value, str) and value.lower() == word.lower():
            return word
    raise OptionInvalid(name, f"must be one of {', '.join(words)}, not {value!r}")


def _path(name: str, value: object) -> str:
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    text = os.path.expanduser(options.text(name, given))
    if not os.path.isabs(text) or "\0" in text:
        raise OptionInvalid(name, f"must be an absolute path such as /srv/backups, not {text!r}")
    return text


def _url(name: str, value: object) -> str:
    text = options.text(name, value)
    if not re.match(r"https?://[^/@?#\s]+(?:/[^?#\s]*)?\Z", text, re.IGNORECASE):
        raise OptionInvalid(
            name, f"must begin with https:// (or http://), as https://s3.example.org, not {text!r}"
        )
    return text


def _rate(name: str, value: object) -> object:
    """Return a rate as the throttle layer takes it. No rate may be less than LEAST_BANDWIDTH."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    for _, limit in timetable(name, value).entries:
        if limit is not None and limit < LEAST_BANDWIDTH:
            raise OptionInvalid(
                name,
                f"must be at least {LEAST_BANDWIDTH} bytes per second, not {limit:g}; "
                "write null for no limit",
            )
    return value


def _mib(count: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count:,} bytes"


STANDARD = (
    switch("enabled", "whether it is used", default=False),
    text("credentials_key", "under which name its credentials are kept; default its own name"),
    text("container", "the bucket or folder that holds the backups", "homeserver-backups"),
    one_of("container_type", "what the container is", ("bucket", "folder"), None),
    text("username", "of the account; each provider's page says what it stands for"),
    secret("password", "of the account"),
    secret("api_key", "instead of a user's name and password"),
    secret("secret_key", "beside an API key that needs one"),
    text("region", "where the container lies"),
    whole("max_retries", "how often something is tried, the first time included", 3, 1, 10),
    seconds("retry_delay", "seconds until the second attempt; doubled each time", 1.0, 0.1, 60.0),
    seconds("timeout", "seconds without an answer after which an attempt failed", 300.0, 30, 3600),
    rate("max_bandwidth", 'bytes per second each way, or "08:00,512k 19:00,10M 23:00,off"'),
    size("upload_chunk_size", "bytes of a part of a large file", 100 * MIB, MIB, GIB),
    switch("encryption_enabled", "encrypt before anything leaves this machine", default=False),
    secret("encryption_key", "a passphrase, or a key that age-keygen made"),
    text("encryption_salt", "of the original's encrypted files; ours have a salt in each file"),
    whole("connection_pool_size", "connections, and files at a time", 5, 1, 20),
    switch(
        "create_container", "make the container where there is none, the first time", default=True
    ),
)
"""The fields that every provider has."""


def checked(fields: Iterable[Field], config: Mapping[str, object]) -> dict[str, Any]:
    """Return the value of each field.

    None and empty text are no value: the original's files have both where nothing is set.

    Raises:
        ConfigInvalid: the first field that has no possible value, or is missing.
    """
    values: dict[str, Any] = {}
    for field in fields:
        value = _given(field, config)
        if value is None:
            if field.required:
                raise ConfigInvalid(field.name, f"is missing: {field.help}")
            values[field.name] = field.default
            continue
        try:
            values[field.name] = field.read(field.name, value)
        except OptionInvalid as error:
            raise ConfigInvalid(field.name, error.message) from None  # a value may be secret
    return values


def _given(field: Field, config: Mapping[str, object]) -> object:
    for name in (field.name, *field.also):
        value = config.get(name)
        if value is not None and value != "":
            return value
    return None


def unknown_fields(fields: Iterable[Field], config: Mapping[str, object]) -> dict[str, str]:
    """Return what to say about each key of `config` that is no field, by key."""
    known = [name for field in fields for name in (field.name, *field.also)]
    return {name: unknown("field", name, known) for name in config if name not in known}
