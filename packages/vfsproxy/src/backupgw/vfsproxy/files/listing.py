"""Listing a folder, or all that is below one, in pages that cost what they hold.

Entries come in the order in which the volume tells them, which is not that of names: sorting a
million would cost a second and a hundred megabytes before the first is shown. A cursor names the
last entry of its page. The listing itself stays open for a while, so that the next page goes on at
once; where it is closed by then, or open on another gateway, the folder is listed again up to that
entry. What is there all the while is told once and only once, what comes or goes meanwhile may be
told or not, as everywhere.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound
from backupgw.kvstore.walking import walk

from .refusals import FileRefusal

LARGEST_PAGE = 10_000
"""Entries; about two megabytes of JSON."""
MOST_OPEN = 64
"""Listings that stay open between two pages, each a folder of the volume for each level."""
KEPT_OPEN = 60.0
"""Seconds that one waits for its next page."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder.

    Attributes:
        path: below the folder that is listed.
        info: what the volume says of it.
    """

    path: str
    info: ItemInfo


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, and by which cursor there are more; None after the last."""

    entries: list[Entry]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is listed: which folder's which path."""

    key: str
    path: str
    recursive: bool


@dataclass(slots=True)
class _Open:
    """A listing between two pages."""

    asked: _Asked
    last: str
    entries: Iterator[Entry]
    until: float


def entries(place: Backend, path: str, *, recursive: bool) -> Iterator[Entry]:
    """Yield what is in a folder, folders before what is in them.

    Args:
        path: "" is the root.

    Raises:
        ObjectNotFound: there is no such folder; with the first `next`.
    """
    if not recursive:
        for info in place.list(path):
            yield Entry(info.name, info)
        return
    cut = len(path) + 1 if path else 0
    for found in walk(place, path):
        if not found.left:
            yield Entry(found.path[cut:], found.info)


class Listings:
    """Pages of listings. Safe to use from any thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def page(
        self,
        place: Backend,
        key: str,
        path: str,
        *,
        recursive: bool,
        size: int,
        cursor: str | None = None,
    ) -> Page:
        """Return the first page of a listing, or the one after a cursor.

        Args:
            key: tells the folder from any other, whoever looks at it.
            path: which folder in it, checked; "" is the root.
            size: entries at most.

        Raises:
            FileRefusal: 400, the cursor is not of this listing; 404, there is no such folder;
                410, the entry that the cursor names is gone: the listing has to be begun anew.
            BackendError: the volume failed.
        """
        asked = _Asked(key, path, recursive)
        size = max(1, min(size, LARGEST_PAGE))
        try:
            found = self._continued(place, asked, cursor)
            page = list(itertools.islice(found, size))
        except ObjectNotFound as error:
            raise FileRefusal(
                404, "file-not-found", f"there is no folder {path!r}" if path else "it is gone"
            ) from error
        if len(page) < size:
            return Page(page, None)
        last = page[-1].path
        name = secrets.token_hex(8)
        self._put(name, _Open(asked, last, found, time.monotonic() + KEPT_OPEN))
        return Page(page, _written(name, asked, last))

    def _continued(self, place: Backend, asked: _Asked, cursor: str | None) -> Iterator[Entry]:
        if cursor is None:
            return entries(place, asked.path, recursive=asked.recursive)
        name, last = _read(cursor, asked)
        with self._lock:
            held = self._open.pop(name, None)
        if held is not None and (held.asked, held.last) == (asked, last):
            return held.entries
        again = entries(place, asked.path, recursive=asked.recursive)
        if any(entry.path == last for entry in again):
            return again
        raise FileRefusal(
            410, "cursor-gone", "the entry where this page began is gone; list from the beginning"
        )

    def _put(self, name: str, listing: _Open) -> None:
        now = time.monotonic()
        old: list[_Open] = []
        with self._lock:
            self._open[name] = listing
            while self._open:
                first = next(iter(self._open.values()))
                if len(self._open) <= MOST_OPEN and first.until > now:
                    break
                old.append(self._open.popitem(last=False)[1])
        for each in old:
            _close(each)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            old = list(self._open.values())
            self._open.clear()
        for each in old:
            _close(each)


def _close(listing: _Open) -> None:
    close = getattr(listing.entries, "close", None)
    if close is not None:
        close()


def _written(name: str, asked: _Asked, last: str) -> str:
    told = json.dumps([name, asked.path, asked.recursive, last], separators=(",", ":"))
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def _read(cursor: str, asked: _Asked) -> tuple[str, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        match json.loads(base64.b64decode(padded.encode(), altchars=b"-_", validate=True)):
            case [str(name), str(path), bool(recursive), str(last)] if (path, recursive) == (
                asked.path,
                asked.recursive,
            ):
                return name, last
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise FileRefusal(400, "invalid-cursor", "the cursor is not one of this listing")
