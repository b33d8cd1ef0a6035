"""What a package registers to be served by `backupgw serve`, and how it is found.

A service is an entry point of the group `backupgw.services` whose value is a `Service`. Importing
it brings the service's settings model along, so this happens late: `backupgw --help` never does.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from .command import CommandError
from .registered import load

if TYPE_CHECKING:
    from pydantic import BaseModel

GROUP = "backupgw.services"


@dataclass(frozen=True)
class Service:
    """One protocol in front of the places.

    Attributes:
        name: the section of the settings file that is its own, such as "rest".
        settings: the model of that section, a subclass of `runtime.http.options.HttpOptions`. A
            field named `place` holds the name of a place; loading the settings checks that it
            exists. `backupgw doctor` looks at fields named `htpasswd_file`, `tls_cert` and
            `tls_key`.
        app: "module:function"; imported in each worker and called with the loaded `Settings`, it
            returns an ASGI application.
        prepare: "module:function"; called once with the loaded `Settings` before anything listens.
            What it returns is printed for the person at the terminal; it raises `SettingsError` to
            refuse to start.
        options: "module:function"; called with the loaded `Settings`, it returns the section with
            what depends on more than the section filled in. Default: the section as it is.
        enabled: whether `backupgw serve` starts it when its section says nothing of `enabled`.
        modules: what the application imports late: where there are several workers, their
            supervisor imports it once for all of them. Nothing of it may start a thread or open
            a connection when it is imported.
        check: "module:function"; called once with the loaded `Settings`, before the gateway's state
            is opened and the first service is prepared; raises `SettingsError` or `SecretError`,
            and changes nothing.
    """

    name: str
    settings: type[BaseModel]
    app: str
    prepare: str | None = None
    options: str | None = None
    enabled: bool = True
    modules: tuple[str, ...] = ()
    check: str | None = None


@functools.cache
def installed_services() -> dict[str, Service]:
    """Return the services of all installed packages by name.

    Raises:
        CommandError: a registered service cannot be imported.
    """
    found: dict[str, Service] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        service = load(entry, "service", Service)
        found[service.name] = service
    return found


def import_function(target: str) -> Any:
    """Return what "module:function" names.

    Raises:
        CommandError: there is no such module or no such function in it.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CommandError(f"cannot import {target}: {error}") from error
