"""Where something is, as people write it: a place and a path in it.

    main                    the place main of the settings
    main:alice/data         alice/data in it
    file:///srv/b           the place at a URL
    file:///srv/b::alice    alice in it

A URL ends at its first `::` that is not within the brackets of an IPv6 address, so a `::` of the
URL itself is written %3A%3A. `NAME:…` is a place of the settings wherever there is one of that name
and a path could follow: no path starts with `/` or holds `//`, so whatever does is a URL.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote, urlsplit

from ...command import CommandError, UsageError
from ...secrets import redact_url

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend

    from ...settings import Settings

_NAME = re.compile(r"([a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)(?::(.*))?\Z", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_END = re.compile(r"\[[0-9A-Fa-f:.]+\]|(::)")


@dataclass(frozen=True)
class Location:
    """A place and a path in it.

    Attributes:
        name: of the place in the settings, "" where it is given by its URL.
        url: "" where it is given by its name. May hold secrets: it is never shown.
        path: the item or folder, "" for the whole place.
        folder: written with a `/` at its end, so it names a folder.
    """

    name: str
    url: str
    path: str
    folder: bool = False

    @property
    def place(self) -> str:
        """The place as it may be shown."""
        return self.name or redact_url(self.url)

    def at(self, path: str) -> str:
        """Return how to write another path of the place, without secrets."""
        return f"{self.place}{':' if self.name else '::'}{path}" if path else self.place

    def __str__(self) -> str:
        return self.at(self.path)


def parse(text: str, names: Collection[str]) -> Location:
    """Understand what somebody wrote.

    Args:
        names: the places of the settings.

    Raises:
        UsageError: it is nothing that there could be.
    """
    from backupgw.kvstore.names import InvalidName

    match = _NAME.match(text)
    if match and match[1] in names:
        rest = match[2] or ""
        # Where no path can follow, it is a URL whose scheme has the name of a place.
        with contextlib.suppress(InvalidName):
            return Location(match[1], "", *_path(rest))
        if not _SCHEME.match(text) or match[1] not in _schemes():
            raise UsageError(f"{text!r}: {_why_not(rest)}")
    if not _SCHEME.match(text):
        raise UsageError(_no_place(text, names))
    url, path = _split(text)
    if url.partition(":")[0].lower() not in _schemes():
        raise UsageError(_no_place(redact_url(text), names))
    try:
        return Location("", url, *_path(path))
    except InvalidName as error:
        raise UsageError(f"the path after :: {error}") from error


def _split(text: str) -> tuple[str, str]:
    for match in _END.finditer(text):
        if match[1]:
            return text[: match.start()], text[match.end() :]
    return text, ""


def _path(text: str) -> tuple[str, bool]:
    from backupgw.kvstore.names import check_folder

    path = text.removesuffix("/") if text != "/" else text
    return check_folder(path), text.endswith("/")


def _why_not(path: str) -> str:
    from backupgw.kvstore.names import InvalidName

    try:
        _path(path)
    except InvalidName as error:
        return f"the path after the place {error}"
    raise AssertionError("only asked about a path that cannot be")


def _schemes() -> list[str]:
    from backupgw.kvstore.registry import schemes

    return schemes()


def _no_place(text: str, names: Collection[str]) -> str:
    if text.startswith(("/", ".", "~")):
        path = quote(str(Path(text).expanduser().absolute()))
        return f"{text!r} is no place; a folder of this machine is written file://{path}"
    word = text.partition(":")[0]
    close = difflib.get_close_matches(word, [*names, *_schemes()], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return (
        f"{text!r} is no place{hint} (places of the settings: {', '.join(sorted(names)) or 'none'}"
        f"; URLs begin with {', '.join(f'{scheme}:' for scheme in _schemes())})"
    )


class Places:
    """The places that a command works on, each opened once and closed at its end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open: dict[tuple[str, str], Backend] = {}

    def locate(self, text: str) -> Location:
        """Understand what somebody wrote; warn of a password in it. Raises UsageError."""
        location = parse(text, self.settings.places)
        if location.url and redact_url(location.url) != location.url:
            print(  # noqa: T201
                "backupgw: warning: the URL holds a secret, which other users of this machine can "
                "see; better a place of the settings with an option for it",
                file=sys.stderr,
            )
        return location

    def make(self, location: Location) -> Backend:
        """Return the place, not yet open.

        Raises:
            UsageError: its URL is none.
            BackendError, CommandError: what it needs is missing.
        """
        if location.name:
            return self.settings.open_place(location.name)
        from backupgw.kvstore.backends.errors import BackendURLInvalid
        from backupgw.kvstore.registry import open_place

        try:
            return open_place(location.url)
        except BackendURLInvalid as error:
            raise UsageError(f"{location.place}: {error}") from error

    def open(self, location: Location, *, create: bool = False, offer: bool = False) -> Backend:
        """Return the place, open.

        Args:
            create: make it where it does not exist.
            offer: say that --create would.

        Raises:
            CommandError: it does not exist.
            BackendError: it cannot be opened.
        """
        from backupgw.kvstore.backends.errors import BackendDoesNotExist

        key = (location.name, location.url)
        if key not in self._open:
            place = self.make(location)
            try:
                place.open()
            except BackendDoesNotExist as error:
                if not create:
                    in_the_way = isinstance(error.__cause__, NotADirectoryError)
                    advice = "; --create makes it" if offer and not in_the_way else ""
                    text = str(error) or "does not exist"
                    raise CommandError(f"{location.place}: {text}{advice}") from error
                place.create()
                place.open()
            self._open[key] = place
        return self._open[key]

    def local_folder(self, location: Location) -> str | None:
        """Return the folder of this machine that a location is in the end, where it is one."""
        url, folders = location.url, [location.path]
        if location.name:
            place = self.settings.places[location.name]
            url = place.url
            for layer in place.layers:
                if layer.layer == "prefix":
                    folders.insert(0, str(layer.options.get("folder", "")))
        parts = urlsplit(url)
        if parts.scheme.lower() != "file":
            return None
        root = Path(unquote(parts.path))
        return str(root.joinpath(*folders).resolve())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            for place in self._open.values():
                stack.callback(place.close)
