"""From a URL to a backend, by the entry points that packages register.

A backend belongs to the group `backupgw.backends`: the entry point's name is the URL scheme, its
value a function `from_url(url, *, option=…) -> Backend`. The options are that function's keyword
parameters; the registry refuses others by name. Which of them may also stand in the URL's query is
the backend's to document and to parse.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from importlib import metadata

from .backends.base import Backend
from .backends.errors import BackendDoesNotExist, BackendError, BackendURLInvalid

GROUP = "backupgw.backends"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def open_place(url: str, **options: object) -> Backend:
    """Return the backend for `url`, not yet open.

    Args:
        url: what the place is; the scheme decides which backend understands the rest.
        options: the backend's own, by name.

    Raises:
        BackendURLInvalid: no backend has that scheme, or it does not understand the rest, or has
            no such option.
        BackendDoesNotExist: the library that reaches the place is not installed.
    """
    scheme = _scheme_of(url)
    known = _entry_points()
    if scheme not in known:
        raise BackendURLInvalid(
            f"no backend for {redact_url(url)!r}: {_unknown('scheme', scheme, known)}"
        )
    from_url = _load(known[scheme])
    _check_options(scheme, from_url, options)
    return from_url(url, **options)


def schemes() -> list[str]:
    """Return the URL schemes that are registered, sorted."""
    return sorted(_entry_points())


def redact_url(url: str) -> str:
    """Return `url` without what may be secret: the user information and the query.

    Hides too much rather than too little where a URL can be read in several ways, since secrets
    hold any character.
    """
    match = _SCHEME.match(url)
    if match is None:
        return "***" if "@" in url else re.split(r"[?#]", url, maxsplit=1)[0]
    start = match.end()
    if url.startswith("//", start):
        start += 2
    head, rest = url[:start], url[start:]
    path, query, tail = _cut_query(rest)
    if head.endswith("//") and path.startswith("/"):
        return head + path + ("?***" if query else "")  # no authority: an @ belongs to the path
    if "@" in tail:
        return head + "***"
    if "@" in path:
        path = "***@" + path.rpartition("@")[2]
    return head + path + ("?***" if query else "")


def _cut_query(rest: str) -> tuple[str, str, str]:
    match = re.search(r"[?#]", rest)
    return (rest[: match.start()], match[0], rest[match.end() :]) if match else (rest, "", "")


def _scheme_of(url: str) -> str:
    if not isinstance(url, str):
        raise TypeError(f"a URL must be str, not {type(url).__name__}")
    match = _SCHEME.match(url)
    if match is None:
        hint = f"; did you mean 'file://{url}'?" if url.startswith("/") and "@" not in url else ""
        raise BackendURLInvalid(
            f"{redact_url(url)!r} is not a URL, which starts with one of "
            f"{', '.join(f'{scheme}:' for scheme in schemes())}{hint}"
        )
    return match[1].lower()


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        if entry.name in found and found[entry.name].value != entry.value:
            raise BackendError(
                f"two packages claim the URL scheme {entry.name!r}: "
                f"{found[entry.name].value} and {entry.value}; uninstall one of them"
            )
        found[entry.name] = entry
    return found


def _load(entry: metadata.EntryPoint) -> Callable[..., Backend]:
    try:
        from_url: Callable[..., Backend] = entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if entry.module == missing or entry.module.startswith(f"{missing}."):
            raise BackendDoesNotExist(
                f"{entry.name}: the package that registered it is not whole, {missing} is missing"
            ) from error
        raise BackendDoesNotExist(
            f"{entry.name}: needs {missing}, which is not installed: {_install(entry, missing)}"
        ) from error
    return from_url


def _install(entry: metadata.EntryPoint, missing: str) -> str:
    """Return the command that installs what `entry` needs: its extra, where there is one."""
    if entry.dist is not None:
        extras = entry.dist.metadata.get_all("Provides-Extra") or []
        if entry.name in extras:
            return f"pip install '{entry.dist.name}[{entry.name}]'"
    return f"pip install {missing.partition('.')[0]}"


def _check_options(
    scheme: str, from_url: Callable[..., Backend], options: dict[str, object]
) -> None:
    parameters = list(inspect.signature(from_url).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return  # the backend checks them itself
    known = [parameter.name for parameter in parameters]
    for option in options:
        if option not in known:
            raise BackendURLInvalid(f"{scheme}: {_unknown('option', option, known)}")


def _unknown(what: str, given: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {given!r}{hint} (known: {', '.join(names) or 'none'})"
