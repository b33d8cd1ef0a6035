"""The Wings file, /etc/pelican/config.yml or /etc/pterodactyl/config.yml: what of it concerns us.

Only keys that are read here are looked at; what else is in the file is Wings' own. A mistake names
the file, its line and the key. Values are read as they are written, so that a token of digits
stays what it is. WINGS_TOKEN_ID and WINGS_TOKEN win over the file, and tokens may be written as
`${VARIABLE}` or `file:///path`, as with Wings (its config.Expand).
"""

from __future__ import annotations

import enum
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings_errors import Issue, Key, Origin, SettingsError, dotted, explain
from backupgw.runtime.small_file import read_small_file

PATHS = ("/etc/pelican/config.yml", "/etc/pterodactyl/config.yml")
"""Where Wings looks, Pelican's first."""
MAX_BYTES = 1 << 20
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TOKENS = (("token_id", "WINGS_TOKEN_ID"), ("token", "WINGS_TOKEN"))


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _table(cls, value: object) -> object:
        return {} if value is None else value


class Compression(enum.StrEnum):
    """How hard archives are compressed: `system.backups.compression_level`."""

    NONE = "none"
    BEST_SPEED = "best_speed"
    BEST_COMPRESSION = "best_compression"


class ResticBlock(_Block):
    """`system.backups.restic`: the repository of the restic adapter."""

    enabled: bool = False
    repository: str = ""
    password: Annotated[Secret, BeforeValidator(_secret)] = Secret("")
    aws_access_key_id: str = ""
    aws_secret_access_key: Annotated[Secret, BeforeValidator(_secret)] = Secret("")
    aws_region: str = ""
    binary_path: str = "restic"
    cache_dir: str = "/var/cache/pelican/restic"


class BackupsBlock(_Block):
    """`system.backups`. `write_limit`: MiB a second, 0 for none."""

    write_limit: int = Field(default=0, ge=0)
    compression_level: Compression = Compression.BEST_SPEED
    restic: ResticBlock = ResticBlock()


class UserBlock(_Block):
    """`system.user`: who the servers' files belong to."""

    uid: int = Field(default=0, ge=0, le=0xFFFFFFFE)
    gid: int = Field(default=0, ge=0, le=0xFFFFFFFE)


class SystemBlock(_Block):
    """`system`."""

    root_directory: str = "/var/lib/pelican"
    data: str = "/var/lib/pelican/volumes"
    backup_directory: str = "/var/lib/pelican/backups"
    username: str = "pelican"
    user: UserBlock = UserBlock()
    backups: BackupsBlock = BackupsBlock()

    @field_validator("root_directory", "data", "backup_directory")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f"must be an absolute path, not {value!r}")
        return value


class SslBlock(_Block):
    """`api.ssl`."""

    enabled: bool = False
    cert: str = ""
    key: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not (self.cert and self.key):
            raise ValueError("is enabled and lacks cert or key; name both files")
        return self


class ApiBlock(_Block):
    """`api`: where Wings is reached."""

    host: str = "0.0.0.0"  # noqa: S104 - Wings' default
    port: int = Field(default=8080, ge=1, le=65535)
    ssl: SslBlock = SslBlock()


class RemoteQueryBlock(_Block):
    """`remote_query`: how the Panel is asked. `timeout`: seconds."""

    timeout: int = Field(default=30, ge=1)
    custom_headers: dict[str, str] = {}


class WingsFile(_Block):
    """What of the Wings file concerns us.

    Attributes:
        path: of the file.
        remote: address of the Panel, without a slash at its end.
        token_id, token: what the Panel and the node know each other by.
    """

    path: str
    debug: bool = False
    uuid: str = Field(min_length=1)
    token_id: str = Field(min_length=1)
    token: Annotated[Secret, BeforeValidator(_secret)]
    remote: str
    api: ApiBlock = ApiBlock()
    system: SystemBlock = SystemBlock()
    remote_query: RemoteQueryBlock = RemoteQueryBlock()
    allowed_origins: tuple[str, ...] = ()

    @field_validator("remote")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = None
        if not usable or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(
                f"must be the Panel's address, such as https://panel.example.com, not {value!r}"
            )
        return value.rstrip("/")

    @field_validator("token")
    @classmethod
    def _some(cls, value: Secret) -> Secret:
        if not value.reveal():
            raise ValueError("is empty; the Panel shows it in the node's configuration")
        return value

    @property
    def data(self) -> str:
        """The folder of the servers' folders, links resolved: snapshots have this path."""
        return os.path.realpath(self.system.data)

    def owner(self) -> tuple[int, int]:
        """Return the user and group that servers' files belong to.

        Raises:
            SettingsError: neither `system.user` nor `system.username` names one of this machine.
        """
        user = self.system.user
        if user.uid or user.gid:
            return user.uid, user.gid
        try:
            found = pwd.getpwnam(self.system.username)
        except KeyError:
            message = (
                f"no user of this machine is called {self.system.username!r}; "
                "make one, or set system.user.uid and system.user.gid (0 is as good as unset)"
            )
            raise SettingsError(
                Issue(Origin("file", self.path), "system.username", message)
            ) from None
        return found.pw_uid, found.pw_gid


def read_wings_file(
    path: str | None = None, *, environment: Mapping[str, str] | None = None
) -> WingsFile:
    """Read a Wings file.

    Args:
        path: of the file; by default the first of PATHS that exists.
        environment: where variables are looked up, by default the process's own.

    Raises:
        SettingsError: there is no such file, it cannot be read, or something in it is wrong.
    """
    if path is None:
        path = next((each for each in PATHS if os.path.exists(each)), None)
        if path is None:
            raise SettingsError(
                f"no Wings file: neither {' nor '.join(PATHS)} exists; "
                "set wings_file in [wings] to its path"
            )
    whole = Origin("file", path)
    try:
        content = read_small_file(path, MAX_BYTES).content
    except OSError as error:
        raise SettingsError(Issue(whole, "", f"cannot be read: {error.strerror}")) from error
    document = _document(content, path)
    for place, value in _defaults(path):
        document.setdefault(place, value)
    _take_tokens(document, os.environ if environment is None else environment)
    try:
        return WingsFile.model_validate({**document.values, "path": path})
    except ValidationError as error:
        issues = []
        for each in error.errors():
            key: Key = each["loc"]
            origin = Origin("file", path, document.line(key))
            issues.append(
                Issue(origin, dotted(key), explain(each, WingsFile, key).replace(" = …", ": …"))
            )
        raise SettingsError(*issues) from None


def _defaults(path: str) -> Iterator[tuple[Key, object]]:
    """What is not written means another folder with Pterodactyl's Wings."""
    if "pterodactyl" in path.split("/"):
        yield ("system", "root_directory"), "/var/lib/pterodactyl"
        yield ("system", "data"), "/var/lib/pterodactyl/volumes"
        yield ("system", "backup_directory"), "/var/lib/pterodactyl/backups"
        yield ("system", "username"), "pterodactyl"


def _take_tokens(document: _Document, environment: Mapping[str, str]) -> None:
    for key, variable in _TOKENS:
        given = environment.get(variable)
        if given:
            document.put(key, given, Origin("environment", variable))
        value = document.values.get(key)
        if isinstance(value, str):
            document.values[key] = _expanded(value, environment, document.origin((key,)), key)


def _expanded(value: str, environment: Mapping[str, str], origin: Origin, key: str) -> str:
    """Put in variables, then the content of a file, in this order: `file://${DIR}/token`."""
    value = re.sub(
        r"\$\{(\w+)\}|\$(\w+)",
        lambda found: environment.get(found.group(1) or found.group(2), ""),
        value,
    )
    if not value.startswith("file://"):
        return value
    named = value.removeprefix("file://")
    try:
        return read_small_file(named, MAX_BYTES).content.decode().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(
            Issue(origin, key, f"{named} cannot be read: {error.strerror}")
        ) from error
    except UnicodeDecodeError:
        raise SettingsError(Issue(origin, key, f"{named} is not text")) from None


class _Document:
    """The file's values, text but for tables and lists, and the lines that they stand in."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.lines: dict[Key, int] = {}
        self._other: dict[Key, Origin] = {}

    def line(self, key: Key) -> int:
        """Return the line of a value, or of the table that lacks it; 0 where nothing is known."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 0)

    def origin(self, key: Key) -> Origin:
        return self._other.get(key) or Origin("file", self.path, self.line(key))

    def put(self, key: str, value: str, origin: Origin) -> None:
        self.values[key] = value
        self._other[key,] = origin

    def setdefault(self, key: Key, value: object) -> None:
        table: Any = self.values
        for part in key[:-1]:
            if table.get(part) is None:
                table[part] = {}
            table = table[part]
            if not isinstance(table, dict):
                return  # a mistake of its own, told later
        table.setdefault(key[-1], value)


def _document(content: bytes, path: str) -> _Document:
    document = _Document(path)
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        if node is None:
            raise SettingsError(Issue(Origin("file", path), "", "is empty"))
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError(Issue(Origin("file", path, 1), "", "is not a table of keys"))
        document.values = _Reading(document).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = Origin("file", path, mark.line + 1 if mark else 0)
        # The library quotes the line in str(error), and it may hold a token.
        raise SettingsError(Issue(origin, "", f"is not YAML: {error.problem}")) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = getattr(error, "reason", "it is nested too deeply")
        raise SettingsError(Issue(Origin("file", path), "", f"is not YAML: {reason}")) from None
    return document


class _Reading:
    def __init__(self, document: _Document) -> None:
        self._document = document
        self._above: list[yaml.Node] = []
        self._count = 0

    def value(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        self._count += 1
        if any(node is above for above in self._above) or self._count > MAX_BYTES:
            raise self._mistake(line, key, "refers to itself")
        self._document.lines.setdefault(key, line)
        self._above.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._table(node, key)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(each, (*key, n)) for n, each in enumerate(node.value)]
            if isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS:
                return None
            return node.value
        finally:
            self._above.pop()

    def _table(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                raise self._mistake(line, key, "has a key that is not a word")
            name = name_node.value
            if name == "<<" and name_node.style is None:
                inherited = self.value(value_node, key)
                for each in inherited if isinstance(inherited, list) else [inherited]:
                    if not isinstance(each, dict):
                        raise self._mistake(line, key, "merges what is not a table")
                    merged = {**each, **merged}
                continue
            if name in found:
                raise self._mistake(line, (*key, name), "is there twice; remove one")
            value = self.value(value_node, (*key, name))
            self._document.lines[(*key, name)] = line
            found[name] = value
        # As with Wings, a key without a value is a key that is not there.
        return {name: each for name, each in {**merged, **found}.items() if each is not None}

    def _mistake(self, line: int, key: Key, message: str) -> SettingsError:
        return SettingsError(Issue(Origin("file", self._document.path, line), dotted(key), message))
