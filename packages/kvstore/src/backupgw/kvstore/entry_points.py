"""What installed packages register with the kernel: finding it, importing it, checking options.

A package registers backends (group `backupgw.backends`) and layers (group `backupgw.layers`) by
entry points; nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, cast

from .backends.errors import BackendDoesNotExist, BackendError


def registered(group: str, what: str) -> dict[str, metadata.EntryPoint]:
    """Return the entry points of a group by name.

    Args:
        what: what the group's names are, for messages: "URL scheme".

    Raises:
        BackendError: two packages claim one name.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for entry in installed(group):
        if entry.name in found and found[entry.name].value != entry.value:
            raise BackendError(
                f"two packages claim the {what} {entry.name!r}: "
                f"{found[entry.name].value} and {entry.value}; uninstall one of them"
            )
        found[entry.name] = entry
    return found


def installed(group: str) -> Iterable[metadata.EntryPoint]:
    """Return the entry points of a group, looked for once until a package comes or goes."""
    return _installed(_state_of_path()).select(group=group)


def _state_of_path() -> tuple[tuple[str, int], ...]:
    """Return where packages lie, and when the last one came or went there."""
    found = []
    for folder in sys.path:
        try:
            found.append((folder, os.stat(folder or ".").st_mtime_ns))
        except OSError:
            continue
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _installed(state: tuple[tuple[str, int], ...]) -> metadata.EntryPoints:
    """Return the entry points of all packages; to find them means to read a file of each."""
    del state
    # Python 3.11 calls its type otherwise; `select`, which is asked for, is the same.
    return cast("metadata.EntryPoints", metadata.entry_points())


def load(entry: metadata.EntryPoint) -> Callable[..., Any]:
    """Import what an entry point names.

    Raises:
        BackendDoesNotExist: a library that it needs is not installed; the message says how to.
    """
    try:
        function: Callable[..., Any] = entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if entry.module == missing or entry.module.startswith(f"{missing}."):
            raise BackendDoesNotExist(
                f"{entry.name}: the package that registered it is not whole, {missing} is missing"
            ) from error
        raise BackendDoesNotExist(
            f"{entry.name}: needs {missing}, which is not installed: {_install(entry, missing)}"
        ) from error
    return function


def _install(entry: metadata.EntryPoint, missing: str) -> str:
    """Return the command that installs what `entry` needs: the extra that has it, where there is
    one; of several that of its own name."""
    library = missing.partition(".")[0]
    if entry.dist is not None:
        extras = entry.dist.metadata.get_all("Provides-Extra") or []
        having = {
            match[1]
            for requirement in entry.dist.requires or []
            if re.match(rf"{re.escape(library)}\b", requirement, re.IGNORECASE)
            and (match := re.search(r"extra *== *['\"]([^'\"]+)", requirement))
        }
        chosen = entry.name if entry.name in extras else None
        if having and chosen not in having:
            chosen = min(having)
        if chosen is not None:
            return f"pip install '{entry.dist.name}[{chosen}]'"
    return f"pip install {library}"


def options_of(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of all parameters but the first, None where it takes any name."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def text_options(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters that are annotated as text, or as text or None."""
    return {
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.annotation in (str, "str", str | None, "str | None")
    }


def required_options(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters after the first that have no default."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return that `given` is no known name, with the near one and all that there are."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {given!r}{hint} (known: {', '.join(names) or 'none'})"
