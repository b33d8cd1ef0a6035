"""Which providers there are: those that packages register, and those that somebody added.

    PROVIDERS["aws_s3"]                        the class; imports its module now
    PROVIDERS["new_provider"] = NewProvider    adds one, as the guide's mapping does
    create("aws_s3", config)                   an object of it

A package registers a provider by an entry point of the group `backupgw.providers`: the name is what
settings and commands call it, the value its class. What cannot be used, because a library or a
program is missing, stays listed, with the reason and what installs it.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from backupgw.kvstore import entry_points
from backupgw.kvstore.backends.errors import BackendDoesNotExist

from .base import BaseProvider
from .place_provider import PlaceProvider

GROUP = "backupgw.providers"


class UnknownProvider(BackendDoesNotExist, KeyError):
    """There is no provider of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Listed:
    """A provider as a list shows it.

    Attributes:
        id: what settings and commands call it.
        title: what people call it.
        kind: its class; None where that cannot be imported.
        problem: why it cannot be used, and what to do; "" where it can.
    """

    id: str
    title: str
    kind: type[BaseProvider] | None
    problem: str = ""


class Registry(MutableMapping[str, type[BaseProvider]]):
    """Providers' classes by name; a class is imported when it is asked for."""

    def __init__(self) -> None:
        self._added: dict[str, type[BaseProvider]] = {}
        self._broken: dict[str, str] = {}

    def __getitem__(self, name: str) -> type[BaseProvider]:
        if name in self._added:
            return self._added[name]
        registered = entry_points.registered(GROUP, "provider")
        if name in self._broken:
            raise BackendDoesNotExist(f"{name}: {self._broken[name]}")
        if name not in registered:
            raise UnknownProvider(entry_points.unknown("provider", name, self))
        kind = entry_points.load(registered[name])
        if not (isinstance(kind, type) and issubclass(kind, BaseProvider)):
            raise BackendDoesNotExist(
                f"{name}: {registered[name].value} is registered as a provider and is no subclass "
                "of BaseProvider"
            )
        return kind

    def __setitem__(self, name: str, kind: type[BaseProvider]) -> None:
        if not issubclass(kind, BaseProvider):
            raise TypeError(f"{name}: {kind!r} is no subclass of BaseProvider")
        self._added[name] = kind

    def add_broken(self, name: str, why: str) -> None:
        """List a provider that cannot be had."""
        if name not in self:
            self._broken[name] = why

    def forget_broken(self) -> None:
        """List no provider any more that cannot be had."""
        self._broken.clear()

    def __delitem__(self, name: str) -> None:
        if name not in self._added:
            raise UnknownProvider(f"no provider {name!r} was added")
        del self._added[name]

    def __iter__(self) -> Iterator[str]:
        yield from sorted(
            {*entry_points.registered(GROUP, "provider"), *self._added, *self._broken}
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return (
            name in self._added
            or name in self._broken
            or name in entry_points.registered(GROUP, "provider")
        )

    def listed(self) -> Iterator[Listed]:
        """Yield every provider, those that cannot be used too."""
        for name in self:
            try:
                kind = self[name]
            except Exception as error:  # noqa: BLE001 - somebody else's module, at its import
                yield Listed(name, name, None, str(error) or type(error).__name__)
                continue
            yield Listed(name, getattr(kind, "title", name), kind, problem_of(kind))


PROVIDERS = Registry()


def problem_of(kind: type[BaseProvider], config: Mapping[str, Any] | None = None) -> str:
    """Return why a provider cannot be used on this machine; "" where it can. Imports nothing.

    Args:
        config: may say where its program is, in a field of that name.
    """
    given = (config or {}).get("program")
    if not issubclass(kind, PlaceProvider):
        return ""
    for library in kind.libraries:
        if not _installed(library):
            return (
                f"needs {library}, which is not installed: "
                f"pip install 'backupgw-kvstore[{kind.extra}]'"
            )
    for program, how in kind.programs.items():
        if shutil.which(str(given or program)) is None:
            return f"needs the program {program}, which is not installed: {how}"
    return ""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def create(name: str, config: Mapping[str, Any]) -> BaseProvider:
    """Return a provider.

    Args:
        name: as in PROVIDERS.

    Raises:
        UnknownProvider: there is none of that name.
        BackendDoesNotExist: a library or program that it needs is not installed.
        ConfigInvalid: a field has no possible value, or is missing.
    """
    kind = PROVIDERS[name]
    if problem := problem_of(kind, config):
        raise BackendDoesNotExist(f"{name}: {problem}")
    return kind(dict(config))
