"""From a URL to a place, by the entry points that packages register.

A backend belongs to the group `backupgw.backends`: the entry point's name is the URL scheme, its
value a function `from_url(url, *, option=…) -> Backend`. The options are that function's keyword
parameters; the registry refuses others by name, and what is no text for those annotated `str` or
`str | None`. Which of them may also stand in the URL's query is the backend's to document and to
parse. Layers around it belong to a group of their own: see `layers.stack`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from . import entry_points
from .backends.base import Backend
from .backends.errors import BackendURLInvalid
from .layers.stack import LayerSpec, stacked

GROUP = "backupgw.backends"

_PARAMETERS = re.compile(r"\A(:?[^,:]*),(?:[^:\"']|\"[^\"]*\"|'[^']*')*:")
"""Those of an rclone remote, which may be secret."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def open_place(
    url: str,
    *,
    layers: Sequence[LayerSpec] = (),
    context: Mapping[str, object] | None = None,
    around: Callable[[Backend], Backend] | None = None,
    **options: object,
) -> Backend:
    """Return the place at `url`, not yet open: its backend with the layers around it.

    Args:
        url: what the place is; the scheme decides which backend understands the rest.
        layers: outermost first, each a name or a mapping with the name under "layer" and the
            layer's options: `["readonly", {"layer": "retry", "attempts": 5}]`.
        context: what layers are given that have such a parameter and were not told otherwise
            (`layers.stack.stacked`).
        around: puts around the backend what belongs within all layers, such as claims of names
            (`layers.claims`); it returns the backend itself where that needs nothing.
        options: the backend's own, by name.

    Raises:
        BackendURLInvalid: no backend has that scheme, or it does not understand the rest, or has
            no such option.
        BackendDoesNotExist: the library that reaches the place is not installed.
        LayerInvalid: the layers cannot be.
    """
    scheme = _scheme_of(url)
    known = entry_points.registered(GROUP, "URL scheme")
    if scheme not in known:
        raise BackendURLInvalid(
            f"no backend for {redact_url(url)!r}: {entry_points.unknown('scheme', scheme, known)}"
        )
    from_url = entry_points.load(known[scheme])
    taken = entry_points.options_of(from_url)
    for option in options:
        if taken is not None and option not in taken:  # where it is None, the backend checks them
            message = entry_points.unknown("option", option, taken)
            raise BackendURLInvalid(f"{scheme}: {message}")
    for option in entry_points.text_options(from_url) & options.keys():
        if not isinstance(options[option], str | None):
            # Not shown: it may be a secret.
            raise BackendURLInvalid(f"{scheme}: {option}: must be text; write it in quotes")
    backend: Backend = from_url(url, **options)
    if around is not None:
        backend = around(backend)
    return stacked(backend, layers, context=context, open_place=open_place)


def schemes() -> list[str]:
    """Return the URL schemes that are registered, sorted."""
    return sorted(entry_points.registered(GROUP, "URL scheme"))


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
    if match[1].lower() == "rclone":
        rest = _PARAMETERS.sub(r"\1,***:", rest)
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
