"""The providers of this installation: which are enabled, how they are configured, by what they log
in.

Two files beside the settings file, each readable by its owner only and changed whole or not at all:

    providers.toml                the configuration, without secrets
        [aws_s3]
        enabled = true
        container = "my-backups"

        [offsite]                 a second provider of a kind
        type = "aws_s3"

    provider-credentials.toml     secrets, under each provider's `credentials_key`
        [aws_s3]
        access_key = "AKIA…"
        secret_key = { file = "/etc/backupgw/s3.secret" }

A secret is written as it is, or as where it is to be had: `{ file = … }`, `{ env = … }`,
`{ command = [ … ] }`. Every provider that is installed is there, disabled until somebody enables
it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backupgw.kvstore import entry_points
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.runtime.command import CommandError, UsageError
from backupgw.runtime.named_places import PLACE_NAME, NamedPlaces, path_of
from backupgw.runtime.secrets import Secret, names_secret
from backupgw.runtime.settings_file import candidates

from .base import BaseProvider
from .fields import Field
from .own_providers import FOLDER, load_folder
from .place_provider import PlaceProvider
from .registry import PROVIDERS, create

CONFIGURATION = "providers.toml"
CREDENTIALS = "provider-credentials.toml"
_WRITTEN_BY = "Written by `backupgw provider`."

Table = dict[str, Any]


@dataclass(frozen=True)
class Configured:
    """A provider of this installation.

    Attributes:
        name: what commands call it.
        kind: which of PROVIDERS it is.
        enabled: whether it is used.
        config: its fields, without secrets.
        credentials_key: under which name its secrets are kept.
        present: whether somebody has configured it at all.
    """

    name: str
    kind: str
    enabled: bool
    config: Mapping[str, Any]
    credentials_key: str
    present: bool


class ConfiguredProviders:
    """The two files.

    Args:
        folder: where they lie.
        elsewhere: folders where others may lie, of another settings file.
    """

    def __init__(self, folder: Path, elsewhere: Sequence[Path] = ()) -> None:
        self._elsewhere = elsewhere
        self._configuration = NamedPlaces(folder / CONFIGURATION, _WRITTEN_BY)
        self._credentials = NamedPlaces(folder / CREDENTIALS, _WRITTEN_BY)

    @classmethod
    def beside(
        cls, config: Path | None, environ: Mapping[str, str] | None = None
    ) -> ConfiguredProviders:
        """Return those beside the settings file, those that somebody wrote for it among them.

        Args:
            config: the settings file that was named, None where it is searched.
            environ: default `os.environ`.
        """
        environ = os.environ if environ is None else environ
        folder = path_of(config, environ).parent
        load_folder(folder / FOLDER)
        others = [Path(os.path.abspath(path)).parent for path in candidates(environ)]
        return cls(folder, [other for other in others if other != folder])

    @property
    def path(self) -> Path:
        """The file of the configuration."""
        return self._configuration.path

    # -- looking

    def all(self) -> Iterator[Configured]:
        """Yield every provider, sorted by name. Raises CommandError."""
        tables = self._configuration.read()
        for name in sorted({*PROVIDERS, *tables}):
            yield _configured(name, tables.get(name))

    def get(self, name: str) -> Configured:
        """Return a provider.

        Raises:
            UsageError: there is none of that name.
            CommandError: the file cannot be read.
        """
        tables = self._configuration.read()
        if name not in tables and name not in PROVIDERS:
            raise UsageError(entry_points.unknown("provider", name, {*PROVIDERS, *tables}))
        return _configured(name, tables.get(name))

    def enabled(self) -> list[Configured]:
        """Return the providers that are enabled, sorted by name."""
        return [each for each in self.all() if each.enabled]

    def nobody(self) -> str:
        """Return what to say where no provider is enabled, and one is needed."""
        for folder in self._elsewhere:
            if (folder / CONFIGURATION).is_file():
                return (
                    f"no provider is enabled in {self.path}. {folder / CONFIGURATION} has some, "
                    f"which belong to the settings there: move it here with {CREDENTIALS}, or "
                    f"name those settings by --config {folder / 'backupgw.toml'}"
                )
        return (
            "no provider is enabled; `backupgw provider list` shows which there are, "
            "`backupgw provider enable NAME` enables one"
        )

    def secrets_of(self, name: str) -> dict[str, Secret]:
        """Return a provider's credentials by field, none of them revealed."""
        configured = self.get(name)
        table = self._credentials.read().get(configured.credentials_key, {})
        found = {}
        for field, value in table.items():
            try:
                found[field] = Secret.parse(value)
            except ValueError as error:
                raise CommandError(
                    f"{self._credentials.path}: [{configured.credentials_key}] {field} {error}"
                ) from None
        return found

    def make(self, name: str) -> BaseProvider:
        """Return a provider, its secrets revealed to it.

        Raises:
            UsageError: there is none of that name.
            SecretError: one of its secrets cannot be had.
            BackendError: it cannot be used, or a field is wrong; ConfigInvalid names the field.
        """
        configured = self.get(name)
        secrets = {field: secret.reveal() for field, secret in self.secrets_of(name).items()}
        return create(configured.kind, {**configured.config, **secrets})

    # -- changing

    def add(self, name: str, kind: str) -> None:
        """Give a second provider of a kind a name of its own.

        Raises:
            UsageError: the name cannot be, or stands for another kind.
        """
        if kind not in PROVIDERS:
            raise UsageError(entry_points.unknown("provider", kind, PROVIDERS))
        if not PLACE_NAME.match(name):
            raise UsageError(f"{name!r}: a provider's name has lower-case letters, digits, - and _")
        if name in PROVIDERS and name != kind:
            raise UsageError(f"{name} is a provider of its own kind; choose another name")
        with self._configuration.changing() as tables:
            there = tables.setdefault(name, {})
            if _kind_of(name, there) != kind and there:
                raise UsageError(f"{name} is of the kind {_kind_of(name, there)} already")
            if name != kind:
                there["type"] = kind

    def set(self, name: str, values: Mapping[str, object | None]) -> None:
        """Set fields; None takes one back to its default. Secrets go to the file of credentials.

        Raises:
            UsageError: no such provider or field, or the field cannot have this value.
        """
        configured = self.get(name)
        fields = self.fields_of(configured)
        config: dict[str, object] = {}
        secrets: dict[str, object] = {}
        for key, value in values.items():
            field = _field(configured, fields, key)
            if value is not None and not _is_reference(value):
                try:
                    field.read(field.name, value)
                except OptionInvalid as error:
                    raise UsageError(f"{field.name}: {error.message}") from None
            (secrets if field.secret else config)[field.name] = value
        if secrets:
            self._change(self._credentials, configured.credentials_key, secrets)
        if config or not configured.present:
            self._change(self._configuration, name, config)

    def _change(self, file: NamedPlaces, section: str, values: Mapping[str, object | None]) -> None:
        with file.changing() as tables:
            table = tables.setdefault(section, {})
            for key, value in values.items():
                if value is None:
                    table.pop(key, None)
                else:
                    table[key] = value

    def check(self, name: str, key: str, value: object) -> None:
        """See that a field may have a value. Raises UsageError."""
        configured = self.get(name)
        field = _field(configured, self.fields_of(configured), key)
        try:
            field.read(field.name, value)
        except OptionInvalid as error:
            raise UsageError(f"{field.name}: {error.message}") from None

    def is_secret(self, name: str, key: str) -> bool:
        """Whether a field holds a secret. Raises UsageError where there is no such field."""
        configured = self.get(name)
        return _field(configured, self.fields_of(configured), key).secret

    def field_name(self, name: str, key: str) -> str:
        """Return what a field is called here. Raises UsageError where there is none."""
        configured = self.get(name)
        return _field(configured, self.fields_of(configured), key).name

    def credential_fields(self, name: str) -> tuple[str, str]:
        """Return the fields that a user's name and a password stand for."""
        kind = PROVIDERS[self.get(name).kind]
        return getattr(kind, "credentials", ("username", "password"))

    def set_credentials(self, name: str, username: str, password: object) -> list[str]:
        """Keep a user's name and password as the fields that the provider has for them.

        Args:
            password: or a table that says where it is to be had.

        Returns:
            The names of the fields.
        """
        configured = self.get(name)
        mapping = self.credential_fields(name)
        fields = self.fields_of(configured)
        values: dict[str, object] = {}
        for field, value in zip(mapping, (username, password), strict=True):
            if value:
                _field(configured, fields, field)
                values[field] = value
        self._change(self._credentials, configured.credentials_key, values)
        return list(values)

    def remove_credentials(self, name: str) -> bool:
        """Forget a provider's credentials; return whether there were any."""
        key = self.get(name).credentials_key
        with self._credentials.changing() as tables:
            return tables.pop(key, None) is not None

    def remove(self, name: str) -> None:
        """Forget a provider's configuration; its credentials stay. What it keeps, it keeps."""
        with self._configuration.changing() as tables:
            tables.pop(name, None)

    def fields_of(self, configured: Configured) -> tuple[Field, ...]:
        """Return the fields that a provider has. Raises BackendError when it cannot be imported."""
        return PROVIDERS[configured.kind].all_fields()


def _configured(name: str, table: Mapping[str, Any] | None) -> Configured:
    given = dict(table or {})
    kind = _kind_of(name, given)
    given.pop("type", None)
    return Configured(
        name=name,
        kind=kind,
        enabled=given.pop("enabled", False) is True,
        config=given,
        credentials_key=str(given.get("credentials_key") or name),
        present=table is not None,
    )


def _kind_of(name: str, table: Mapping[str, Any]) -> str:
    return str(table.get("type") or name)


def _field(configured: Configured, fields: tuple[Field, ...], key: str) -> Field:
    for field in fields:
        if key == field.name or key in field.also:
            return field
    if not issubclass(PROVIDERS[configured.kind], PlaceProvider):
        # Somebody else's provider reads what it likes, and need not say so.
        return Field(key, lambda _, value: value, "", secret=names_secret(key))
    names = [field.name for field in fields]
    raise UsageError(f"{configured.name}: {entry_points.unknown('field', key, names)}")


def _is_reference(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in Secret.KINDS
