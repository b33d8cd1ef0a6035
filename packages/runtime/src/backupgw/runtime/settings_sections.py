"""The sections of the settings file that belong to no service, by name.

`[log]` and `[places.NAME]` are not among them: everything needs these, so `Settings` has them as
attributes. What is here is found by `settings.section(NAME, MODEL)`, as a service's section is.

A package whose commands have settings registers its section by an entry point of the group
`backupgw.settings`: the name is the section's, the value its model.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from importlib.metadata import entry_points

from pydantic import BaseModel

from .events.settings import EventsSettings
from .registered import load
from .settings_auth import AuthSettings
from .settings_etcd import EtcdSettings
from .settings_jobs import JobsSettings
from .settings_state import StateSettings
from .settings_tokens import TokenSettings

GROUP = "backupgw.settings"


def sections(only: Collection[str] | None = None) -> Mapping[str, type[BaseModel]]:
    """Return the model of each section, in the order of the sample file.

    Args:
        only: names of those that are wanted; default all.

    Raises:
        CommandError: a registered one cannot be imported.
    """
    return _sections(None if only is None else frozenset(only))


@functools.cache
def _sections(only: frozenset[str] | None) -> Mapping[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {
        "state": StateSettings,
        "etcd": EtcdSettings,
        "auth": AuthSettings,
        "tokens": TokenSettings,
        "events": EventsSettings,
        "jobs": JobsSettings,
    }
    found = {name: model for name, model in found.items() if only is None or name in only}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if only is not None and entry.name not in only:
            continue
        found[entry.name] = load(entry, "section", type(BaseModel))
    return found
