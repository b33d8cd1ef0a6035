"""Whether a place is there of which neither an item nor a mark tells.

A bucket stays when it is empty, a folder in it does not: a list of nothing proves that the first is
there, and says nothing of the second. Which of the two a place is, its path alone does not tell:
`alias` puts a path before it, `crypt` and its like stand before another remote, `combine` and
`union` before several. So the remotes behind are looked up where rclone has them from: the URL, the
environment and its settings (https://rclone.org/docs/#precedence).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator

from ..names import joined
from .errors import ObjectNotFound
from .rclone_calls import Calls, Features
from .rclone_remote import behind, cut


def is_there(at: Calls) -> bool:
    """Whether the folder that the calls are for exists, though nothing may be in it.

    Raises:
        BackendError: what the remotes' settings, or they themselves, lead to.
    """
    has = at.features()
    if not has.wraps:
        return _may_be_empty(has, at) and _is_found(at)
    if at.remote.root and _setting(at, "type") == "crypt":  # by which name it lies there is secret
        return _each_may_be_empty(at) and _is_found(at)
    return any(map(is_there, _behind(at)))


def _each_may_be_empty(at: Calls) -> bool:
    """Whether folders as deep as this one stay when they are empty, whatever they are called."""
    has = at.features()
    if not has.wraps:
        return _may_be_empty(has, at)
    found = [_each_may_be_empty(each) for each in _behind(at)]
    return bool(found) and all(found)


def _may_be_empty(has: Features, at: Calls) -> bool:
    depth = len([segment for segment in joined(has.root, at.remote.root).split("/") if segment])
    return has.real_folders or depth <= has.in_buckets


def _is_found(at: Calls) -> bool:
    try:
        at.any_entry("", folders_only=True)
    except ObjectNotFound:
        return False
    return True


def _behind(at: Calls) -> Iterator[Calls]:
    """Yield the folders of other remotes that a folder is, or shows; none where nobody tells."""
    path = at.remote.root
    match _setting(at, "type"):
        case "union":
            others = [_without_access(each) for each in _words(_setting(at, "upstreams"))]
        case "combine":
            named = [each.partition("=") for each in _words(_setting(at, "upstreams"))]
            first, _, path = path.partition("/")
            others = [other for name, _, other in named if name == first]
        case _:
            others = [_setting(at, "remote")]
    for other in filter(None, others):
        yield Calls(at.process, behind(at.remote, other, path))


def _setting(at: Calls, key: str) -> str:
    """Return what a remote is set to, "" where it is not."""
    name, given, _ = cut(at.remote.fs)
    if key in given:
        return given[key]
    if name.startswith(":"):
        if key == "type":
            return name[1:]
        told, kind = {}, name[1:]
    else:
        if own := os.environ.get(f"RCLONE_CONFIG_{name}_{key}".upper()):
            return own
        told = at.ask("config/get", "", {"name": name})
        kind = "" if key == "type" else _setting(at, "type")
    return os.environ.get(f"RCLONE_{kind}_{key}".upper()) or str(told.get(key, ""))


def _words(text: str) -> list[str]:
    """Return the parts of a list with spaces between, as rclone has them."""
    return [word for line in csv.reader([text], delimiter=" ") for word in line if word]


def _without_access(upstream: str) -> str:
    """Return one of union's remotes without what it may be used for."""
    for access in (":ro", ":nc", ":writeback"):
        upstream = upstream.removesuffix(access)
    return upstream
