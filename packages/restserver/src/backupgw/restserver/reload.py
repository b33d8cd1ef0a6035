"""SIGHUP: the settings are read again, and what can change while it runs is changed.

Rules, keys of signed tokens, hooks and limits can; places, addresses and the like need a restart.
So do the first limits, of all or of users: every worker has to account for what it writes before
one of them may count what is there, and they read the settings each in its own time. While the
settings have a mistake everything stays as it was and the log says why: a typing error must neither
open everything up nor shut all clients out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.authorisation import Authoriser
from backupgw.runtime.authorisation.rules import rules_of
from backupgw.runtime.command import CommandError
from backupgw.runtime.events import Events, renew_hooks
from backupgw.runtime.settings import Flag, Settings, load

_log = logging.getLogger(__name__)

Change = Callable[[Settings], None]
"""Takes what it needs of new settings; on a thread. CommandError and BackendError mean that
nothing was changed."""


class Reloader:
    """Reads the settings again, as they were read at the start.

    Args:
        settings: those of the start.
        changes: what is done with new ones; one that fails keeps no other from being done.
    """

    def __init__(self, settings: Settings, changes: Mapping[str, Change]) -> None:
        self._config = settings.config
        self._flags = flags_of(settings)
        self._changes = changes
        self._turn = threading.Lock()

    def trigger(self) -> None:
        """Begin, on a thread of its own: reading files and secrets may take a while."""
        threading.Thread(target=self.reload, name="reload", daemon=True).start()

    def reload(self) -> bool:
        """Read and change; return whether all of it worked. One at a time, the last one wins."""
        with self._turn:
            try:
                settings = load(self._config, self._flags)
            except CommandError as error:
                _log.error("everything stays as it was; the settings have mistakes: %s", error)
                return False
            good = True
            for name, change in self._changes.items():
                try:
                    change(settings)
                except (CommandError, BackendError) as error:
                    _log.error("%s stay as they were: %s", name, error)
                    good = False
            return good


def flags_of(settings: Settings) -> dict[str, Any]:
    """Return what flags said, as overrides for `load`: they go on to win over the file."""
    flags = {}
    for key, origin in settings.origins.items():
        if origin.kind == "flag" and all(isinstance(part, str) for part in key):
            value = _value(settings, key)
            if not isinstance(value, Mapping | BaseModel):
                flags[".".join(map(str, key))] = Flag(origin.where, value)
    return flags


def _value(settings: Settings, key: tuple[str | int, ...]) -> Any:
    if len(key) == 2 and key[1] == "enabled":
        return key[0] in settings.enabled  # of every service, and in none's own model
    value: Any = {
        "places": settings.places,
        "log": settings.log,
        **settings.gateway,
        **settings.sections,
    }
    for part in key:
        value = value[part] if isinstance(value, Mapping) else getattr(value, str(part))
    return value


def take_rules(rules: Authoriser) -> Change:
    """Return what gives an authoriser the rules of new settings."""

    def change(settings: Settings) -> None:
        found, groups = rules_of(settings)
        rules.replace(found, groups)
        _log.info("%d rules in effect", len(found))

    return change


def take_hooks(events: Events) -> Change:
    """Return what lets the hooks of new settings be told of events."""

    def change(settings: Settings) -> None:
        count = renew_hooks(events, settings)
        _log.info("%d hooks in effect", count)

    return change
