"""The settings of the HOMESERVER backup system, read to be taken over.

Its file is JSON. The providers are in an object "providers", at the top or in a section; a file may
also be that object itself. What has no place here, or no possible value, is told and left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backupgw.runtime.command import CommandError, UsageError

from .configured import ConfiguredProviders
from .registry import PROVIDERS

Table = Mapping[str, Any]


@dataclass
class Brought:
    """What was taken over of a provider.

    Attributes:
        fields: names of what was taken over.
        notes: what the user should know.
        failed: whether something could not be taken over.
    """

    name: str
    fields: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"name": self.name, "fields": self.fields, "notes": self.notes}


def read(text: str, source: str) -> dict[str, Table]:
    """Return the providers in a file's text, by name.

    Raises:
        CommandError: it is no such file. The message holds nothing of it.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise CommandError(f"{source}: is not JSON{where}") from None
    found = _providers(document, depth=0)
    if not found:
        raise CommandError(
            f'{source}: there are no providers in it; expected an object "providers" with '
            f"{', '.join(PROVIDERS)}"
        )
    return found


def _providers(value: object, *, depth: int) -> dict[str, Table]:
    if not isinstance(value, dict) or depth > 3:
        return {}
    inner = value.get("providers")
    if isinstance(inner, dict) and (found := _tables(inner)):
        return found
    if any(name in PROVIDERS for name in value) and (found := _tables(value)):
        return found
    for each in value.values():
        if found := _providers(each, depth=depth + 1):
            return found
    return {}


def _tables(value: dict[str, Any]) -> dict[str, Table]:
    return {name: each for name, each in value.items() if isinstance(each, dict)}


def bring(
    found: Mapping[str, Table], providers: ConfiguredProviders, *, dry_run: bool
) -> list[Brought]:
    """Take providers over, field by field; return what became of each."""
    results = []
    for name, table in found.items():
        result = Brought(name)
        results.append(result)
        if name not in PROVIDERS:
            result.failed = True
            result.notes.append("there is no provider of that name here")
            continue
        for key, value in _translated(name, table).items():
            if value is None or value == "":
                continue
            try:
                providers.check(name, key, value)
                if not dry_run:
                    providers.set(name, {key: value})
            except UsageError as error:
                result.failed = True
                result.notes.append(str(error))
            else:
                result.fields.append(key)
        if table.get("encryption_enabled"):
            result.notes.append(
                "what the original encrypted (Fernet) is not read by age, which encrypts here"
            )
    return results


def _translated(name: str, table: Table) -> dict[str, Any]:
    """Return the fields as they are called here: user and password are the provider's own."""
    kind = PROVIDERS[name]
    mapping = getattr(kind, "credentials", ("username", "password"))
    known = {each.name for each in kind.all_fields()}
    fields = dict(table)
    for old, new in zip(("username", "password"), mapping, strict=True):
        if old != new and new in known and fields.get(old):
            given = fields.pop(old)
            if not fields.get(new):
                fields[new] = given
    return fields
