"""A folder of a Drime workspace as a place: `drime:`, on pydrime.

    drime:backups/restic                 in the personal workspace
    drime://1593/backups/restic          in workspace 1593

Drime keeps no promise about names: of several writers each may make an entry of one name. The one
with the lowest id counts, for everybody (`drime_items`). So create-if-absent is as good as what
follows from that, and the capabilities say that it is not atomic.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import cast

from ..layers import options
from ..layers.retry_schedule import Schedule, read_schedule
from ..names import KernelPath, check_path
from . import drime_urls
from .api_calls import OnCall, hook
from .base import Capabilities, Quota, Reader, Writer
from .body_reader import open_steadily
from .drime_calls import Calls
from .drime_entry import Entry
from .drime_folders import Folders, root_of
from .drime_items import STAGING, Items
from .drime_listing import all_entries
from .drime_reader import Opener
from .drime_writer import PART, DrimeTarget
from .entry_place import EntryPlace
from .errors import (
    BackendAlreadyExists,
    BackendURLInvalid,
    ObjectNotFound,
    UnsupportedOperation,
)
from .part_transfers import MEMORY, THREADS, PartPool
from .part_writer import PartWriter
from .plan import Plan

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

SCHEDULE = Schedule(attempts=8, deadline=180.0, first=0.2, longest=20.0)
"""How a request is repeated. Drime's limit is one for a minute, so it may ask for a minute."""

_QUARANTINE = f"{STAGING.partition('-')[0]}-quarantine"


def from_url(
    url: str,
    *,
    api_key: str | None = None,
    api_url: str | None = None,
    workspace_id: int | str | None = None,
    trash: bool = False,
    timeout: object = TIMEOUT,
    part_size: object = PART,
    threads: object = THREADS,
    attempts: object = SCHEDULE.attempts,
    deadline: object = SCHEDULE.deadline,
    first_pause: object = SCHEDULE.first,
    on_call: object = None,
) -> Drime:
    """Make the backend of `drime:FOLDER/…` or `drime://WORKSPACE/FOLDER/…`.

    Args:
        api_key: the account's; else the variable DRIME_API_KEY.
        api_url: base of the API; else DRIME_API_URL, else Drime's own.
        workspace_id: where the URL names none; else DRIME_WORKSPACE_ID, else 0, the personal one.
        trash: what is deleted or replaced goes to Drime's trash, and counts there until that is
            emptied; else it is gone at once.
        timeout: seconds without a byte after which a connection counts as broken.
        part_size: bytes of a part of a large item, 5 MiB at least.
        threads: parts that are sent at a time.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        on_call: is told of each request (`api_calls`).

    Raises:
        BackendURLInvalid: the URL or an option is wrong, or there is no key.
    """
    where = drime_urls.location(url)
    key = api_key or os.environ.get("DRIME_API_KEY", "")
    if not key.strip():
        raise BackendURLInvalid(
            'drime: needs an API key: api_key = { file = "…" } in the place\'s settings, or the '
            "variable DRIME_API_KEY"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BackendURLInvalid("drime: the API key holds what no key has; it was pasted wrong")
    asked = where.workspace
    if asked is None:
        asked = _number(workspace_id if workspace_id is not None else _variable(), "workspace_id")
    elif workspace_id is not None and _number(workspace_id, "workspace_id") != asked:
        raise BackendURLInvalid(
            f"drime: the URL says workspace {asked}, the option workspace_id {workspace_id}"
        )
    try:
        schedule = read_schedule(attempts, deadline, first_pause, SCHEDULE.longest)
        part = options.size("part_size", part_size, least=PART)
        at_once = options.count("threads", threads, least=1)
        patience = options.duration("timeout", timeout, least=1)
        base = api_url or os.environ.get("DRIME_API_URL") or None
        if base is not None:
            base = options.server("api_url" if api_url else "DRIME_API_URL", base)
        told = hook(on_call)
    except options.OptionInvalid as error:
        raise BackendURLInvalid(f"drime: {error}") from error
    return Drime(
        key,
        where.path,
        asked,
        api_url=base,
        trash=_switch(trash),
        timeout=patience,
        part_size=part,
        threads=at_once,
        schedule=schedule,
        on_call=told,
    )


def _variable() -> str:
    return os.environ.get("DRIME_WORKSPACE_ID") or "0"


def _number(value: int | str, what: str) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()):
        raise BackendURLInvalid(f"drime: {what} is the number of a workspace, not {text!r}")
    return int(text)


def _switch(value: bool | str) -> bool:
    if isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise BackendURLInvalid(f"drime: trash is true or false, not {value!r}")
        return value.lower() == "true"
    return value


class Drime(EntryPlace[int, Entry]):
    """A folder of a workspace.

    Args:
        api_key: the account's.
        path: of the folder, "" for the workspace's root.
        workspace: its number.
        api_url: base of the API, None for Drime's own.
        trash: deleted items go to Drime's trash.
        timeout: seconds without a byte after which a connection counts as broken.
        schedule: how requests are repeated.
        part_size, threads: see `from_url`.
        on_call: is told of each request.
    """

    def __init__(
        self,
        api_key: str,
        path: str,
        workspace: int = 0,
        *,
        api_url: str | None = None,
        trash: bool = False,
        timeout: float = TIMEOUT,
        schedule: Schedule = SCHEDULE,
        part_size: int = PART,
        threads: int = THREADS,
        on_call: OnCall | None = None,
    ) -> None:
        self._connect = partial(
            Calls, api_key, api_url, workspace, timeout=timeout, schedule=schedule, on_call=on_call
        )
        self._part_size = part_size
        self._threads = threads
        self._path = path
        super().__init__(f"drime://{workspace}/{path}")
        self._trash = trash
        self._pool: PartPool | None = None
        self._ranges: bool | None = None
        """Whether the storage honours ranges; None where that is not known yet."""

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # learned on the way
        """`ranges` is True once the storage has answered a request for a part with no more."""
        return Capabilities(ranges=self._ranges is True, copy=True, mtime=True, quota=True)

    # -- the place itself

    def create(self) -> None:
        self._must_be_closed()
        calls = self._connect()
        try:
            workspace = Folders(calls, [0])
            ids = workspace.find(self._path)
            if ids is None:
                workspace.make(self._path)
            elif next(all_entries(calls, self._label, ids), None) is not None:
                raise BackendAlreadyExists(f"{self._label}: there is something in it already")
        finally:
            calls.close()

    def destroy(self) -> None:
        """Remove the folder with all it holds, to Drime's trash if the place has that.

        Raises:
            UnsupportedOperation: it is a whole workspace, with what others keep in it.
        """
        self._must_be_closed()
        if not self._path:
            raise UnsupportedOperation(
                f"{self._label} is a whole workspace; only a folder of one can be destroyed"
            )
        calls = self._connect()
        try:
            ids = root_of(calls, self._path)
            items = Items(calls, Folders(calls, [0]), forever=not self._trash)
            items.remove(self._label, ids, forever=not self._trash)
        finally:
            calls.close()

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: there is no such folder.
            PermissionDenied: the key is not accepted, or the workspace is somebody else's.
            BackendConnectionError: Drime cannot be reached.
        """
        self._must_be_closed()
        calls = self._connect()
        try:
            if self._path:
                ids = root_of(calls, self._path)
            else:
                ids = (0,)
                calls.repeated(lambda: calls.page(self._label, ids, 1, 1))
        except BaseException:
            calls.close()
            raise
        self._pool = PartPool(
            threads=self._threads,
            memory=max(MEMORY, (self._threads + 1) * self._part_size),
            schedule=calls.schedule,
        )
        self._items = Items(calls, Folders(calls, ids), forever=not self._trash)

    def close(self) -> None:
        items, self._items = self._open, None
        pool, self._pool = self._pool, None
        items.calls.close()
        if pool is not None:
            pool.close()
        items.close()

    @property
    def _open(self) -> Items:
        return cast(Items, self._opened)

    def quota(self) -> Quota:
        """The account's, with whatever else it holds."""
        calls = self._open.calls
        return Quota(*calls.repeated(calls.space))

    # -- folders

    def rmdir(self, name: str) -> None:
        """Remove an empty folder.

        It goes to Drime's trash whatever the place does with items: an item that somebody puts
        into it at that moment can be brought back from there.
        """
        check_path(name)
        items, ids = self._open, self._empty_folder(name)
        if not items.remove(name, ids, forever=False):
            raise ObjectNotFound(name)

    # -- items

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        items = self._open
        opener = Opener(items, name, self._note_ranges)
        if size is not None and self._ranges is not False:
            kept = opener.from_blocks(offset, size)
            if kept is not None:
                return kept
        return open_steadily(
            name, opener.open, offset=offset, size=size, schedule=items.calls.schedule
        )

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        check_path(name)
        if size is None:
            return None
        return Opener(self._open, name, self._note_ranges).kept(offset, size)

    def _note_ranges(self, honoured: bool) -> None:
        self._ranges = honoured

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        items, pool = self._open, self._pool
        assert pool is not None
        plan = Plan(name, size, if_absent, expected_hash)
        return PartWriter(pool, DrimeTarget(items, plan, self._part_size), plan)

    def delete(self, name: str) -> None:
        self.delete_sized(name)

    def delete_sized(self, name: str) -> int:
        check_path(name)
        return self._open.delete(name)

    def _move_entries(
        self, name: str, found: Sequence[Entry], new_name: str, *, if_absent: bool
    ) -> None:
        items = self._open
        copy = items.copy(found[0], new_name, if_absent=if_absent)
        items.take_away(name, found, copy, new_name)

    def reap(self, older_than: float) -> int:
        """Delete what dead writers have set aside. Parts of uploads that nobody finished cannot be
        listed; Drime's storage has to clear them away itself."""
        items = self._open
        ids = items.folders.find(STAGING, seen_after=time.monotonic())
        if ids is None:
            return 0
        latest = time.time() - older_than
        old = [e.id for e in all_entries(items.calls, STAGING, ids) if e.changed <= latest]
        return sum(items.remove(STAGING, [entry]) for entry in old)

    def quarantine(self, name: str) -> str:
        check_path(name)
        items = self._open
        damaged = items.find(name)
        kept = KernelPath(f"{_QUARANTINE}/{damaged.id}/{name.rpartition('/')[2]}")
        copy = items.copy(damaged, kept, if_absent=False)
        items.take_away(name, [damaged], copy, kept)
        return str(kept)
