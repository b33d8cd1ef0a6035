"""URLs and options of places in Backblaze B2, by its own protocol.

backblaze:bucket/path                 the key beside it, as options
backblaze:key_id:key@bucket/path
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import read_schedule
from ..names import InvalidName, check_folder
from .api_calls import hook
from .b2_session import TIMEOUT, Bucket
from .b2_target import LEAST_PART, MOST_PART
from .errors import BackendURLInvalid
from .part_transfers import MEMORY, THREADS

if TYPE_CHECKING:
    from .b2 import B2

REALM = "production"
"""Backblaze's own service."""

_WRITTEN = "a B2 URL is backblaze:bucket/path, or backblaze:key_id:key@bucket/path"
_URL = re.compile(
    r"backblaze:(?://)?(?:(?P<id>[^:@/]+):(?P<key>[^@]*)@)?(?P<bucket>[A-Za-z0-9-]{6,63})"
    r"(?:/(?P<path>.*))?\Z",
    re.DOTALL | re.IGNORECASE,
)


def from_url(
    url: str,
    *,
    key_id: str | None = None,
    application_key: str | None = None,
    realm: str = REALM,
    delete: str = "remove",
    versions: str = "newest",
    part_size: object = LEAST_PART,
    threads: object = THREADS,
    memory: object = MEMORY,
    timeout: object = TIMEOUT,
    attempts: object = 5,
    deadline: object = "2 min",
    first_pause: object = "100 ms",
    on_call: object = None,
) -> B2:
    """Make the backend of `backblaze:[key_id:key@]bucket/path`.

    Args:
        key_id, application_key: where the URL has none.
        realm: the URL of another service that speaks B2's protocol.
        delete: "remove" for good, or "hide", for a lifecycle rule to remove.
        versions: "newest" removes older ones when an item is replaced, "all" keeps them.
        part_size: bytes of the parts of large values, 5,000,000 at least.
        threads: parts that are sent at a time.
        memory: bytes of parts that are held; each write may hold one beyond it.
        timeout: seconds without a byte after which a request failed.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        on_call: is told of each request (`api_calls`).

    Raises:
        BackendURLInvalid: the URL is none, or an option cannot be.
    """
    found = _URL.match(url)
    if found is None:
        raise BackendURLInvalid(_WRITTEN)
    if found["id"] is not None:
        key_id, application_key = unquote(found["id"]), unquote(found["key"])
    if not key_id or not application_key:
        raise BackendURLInvalid(
            "a B2 place needs key_id and application_key, of an application key made on "
            "Backblaze's page Application Keys"
        )
    root = "/".join(part for part in (found["path"] or "").split("/") if part)
    try:
        check_folder(root)
    except InvalidName as error:
        raise BackendURLInvalid(f"the path in the bucket: {error}") from error
    if delete not in ("remove", "hide"):
        raise BackendURLInvalid(f"delete is 'remove' or 'hide', not {delete!r}")
    if versions not in ("newest", "all"):
        raise BackendURLInvalid(f"versions is 'newest' or 'all', not {versions!r}")
    try:
        part = options.size("part_size", part_size)
        if not LEAST_PART <= part <= MOST_PART:
            raise OptionInvalid(
                "part_size", f"is from {LEAST_PART} to {MOST_PART} bytes, not {part}"
            )
        at_once = options.count("threads", threads, least=1)
        held = options.size("memory", memory)
        schedule = read_schedule(attempts, deadline, first_pause)
        patience = options.duration("timeout", timeout, least=1)
        told = hook(on_call)
        if realm != REALM:
            realm = options.server("realm", realm)
    except OptionInvalid as error:
        raise BackendURLInvalid(f"backblaze: {error}") from error
    # Late: the backend has this function for its entry point.
    from .b2 import B2

    bucket = Bucket(
        found["bucket"], root, key_id, application_key, realm, timeout=patience, on_call=told
    )
    return B2(
        bucket, hide=delete == "hide", keep_versions=versions == "all",
        part_size=part, threads=at_once, memory=held, schedule=schedule,
    )  # fmt: skip
