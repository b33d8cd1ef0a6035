"""The URLs of places in Drime."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from ..names import InvalidName, check_folder
from .errors import BackendURLInvalid

WRITTEN = "drime:FOLDER/… in the personal workspace, or drime://WORKSPACE/FOLDER/…"

_WORKSPACE = re.compile(r"\d{1,18}\Z", re.ASCII)


class Location(NamedTuple):
    """A folder of a workspace; workspace None where the URL names none."""

    workspace: int | None
    path: str


def location(url: str) -> Location:
    """Understand a URL.

    Raises:
        BackendURLInvalid: it is none of Drime's.
    """
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "drime":
        raise BackendURLInvalid(f"a place in Drime is written {WRITTEN}")
    if re.search(r"[?#]", rest):
        raise BackendURLInvalid("a drime URL has no query; write ? as %3F and # as %23 in a folder")
    workspace: int | None = None
    if rest.startswith("//"):
        where, _, rest = rest[2:].partition("/")
        if "@" in where:
            raise BackendURLInvalid(
                "a drime URL holds no API key; give it as the option api_key, or in DRIME_API_KEY"
            )
        if where:
            if not _WORKSPACE.match(where):
                raise BackendURLInvalid(
                    f"a drime URL is {WRITTEN}, with the number of a workspace, not {where!r}"
                )
            workspace = int(where)
    path = unquote(rest, errors="surrogateescape").strip("/")
    try:
        return Location(workspace, check_folder(path))
    except InvalidName as error:
        raise BackendURLInvalid(f"a drime URL's folder {error}") from error
