"""How the trash writes down what it keeps: everything is in the name, so no index can drift.

    .backupgw-trash/BUCKET/FOLDERS OF THE ITEM/LAST~WHEN~HOW,ID~WHO      or
    .backupgw-trash/BUCKET/FOLDERS OF THE ITEM/LAST/~WHEN~HOW,ID~WHO     for long last segments

BUCKET is the moment, UTC, from which everything in it has expired: expiry takes whole buckets and
looks at no other. Below it lies the tree that the items came from, so a folder of the trash is
about as large as the folder that was emptied, and what was deleted from one folder is found
without looking at the rest. WHEN is in microseconds since the epoch, HOW is `d` for deleted, `r`
for replaced and `u` for replaced by what was restored, ID is random, WHO is percent-encoded and may
be empty. The bytes are the item's own, untouched: without this program an operator moves a file
back by hand.
"""

from __future__ import annotations

import re
import secrets
import time
from calendar import timegm
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote

from ..names import KERNEL_MARGIN, MAX_PATH_BYTES, RESERVED_PREFIX, KernelPath

ROOT = KernelPath(f"{RESERVED_PREFIX}-trash")

MOST_NAME_BYTES = MAX_PATH_BYTES + KERNEL_MARGIN - 120
"""Bytes of the longest name that can be kept: what is added to it is at most 120 bytes long."""

_MOST_WHO = 48
_MOST_LAST = 140
"""Bytes of a last segment with what is added. Far below 255: a layer beneath that encrypts names
makes them longer."""

_BUCKET = "%Y%m%dT%H%M%SZ"
_ADDED = re.compile(r"~(\d{1,16})~([dru])([0-9a-f]{16})~([^~/]*)\Z")


class How(StrEnum):
    """By what an item came into the trash."""

    DELETED = "d"
    REPLACED = "r"
    UNDONE = "u"
    """Replaced by what was brought back from the trash."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the trash's own name says about an item in it.

    Attributes:
        name: the item's name before.
        when: seconds since the epoch, when it was deleted or replaced.
        until: seconds since the epoch, from when on expiry may remove it.
        who: as the caller told, "" where nobody did; cut after 48 bytes.
    """

    path: KernelPath
    name: str
    when: float
    until: float
    how: How
    who: str


def path_for(name: str, *, when: float, until: float, how: How, who: str) -> KernelPath:
    """Return a fresh path at which an item is kept.

    Args:
        until: rounded up to a second.
    """
    added = f"~{int(when * 1e6)}~{how}{secrets.token_hex(8)}~{_quoted(who)}"
    last = name.rpartition("/")[2]
    long = len(last.encode()) + len(added) > _MOST_LAST
    return KernelPath(f"{ROOT}/{bucket_name(until)}/{name}{'/' if long else ''}{added}")


def read_path(path: str) -> Kept | None:
    """Return what a path in the trash says; None where it is none of `path_for`'s."""
    root, _, rest = path.partition("/")
    bucket, _, rest = rest.partition("/")
    until = bucket_until(bucket)
    match = _ADDED.search(rest)
    if root != ROOT or until is None or match is None:
        return None
    name = rest[: match.start()].removesuffix("/")
    when, how, _, who = match.groups()
    if not name:
        return None
    return Kept(KernelPath(path), name, int(when) / 1e6, until, How(how), unquote(who))


def bucket_name(until: float) -> str:
    return time.strftime(_BUCKET, time.gmtime(-(-until // 1)))


def bucket_until(bucket: str) -> float | None:
    """Return the moment from which a bucket has expired, None if it is no bucket."""
    try:
        return float(timegm(time.strptime(bucket, _BUCKET)))
    except ValueError:
        return None


def _quoted(who: str) -> str:
    """Return `who` for a segment: at most _MOST_WHO bytes, no `/` and no `~`."""
    quoted = ""
    for character in who.encode("utf-8", "replace").decode():
        more = quote(character, safe="@+-_.").replace("~", "%7E")
        if len(quoted) + len(more) > _MOST_WHO:
            break
        quoted += more
    return quoted
