"""The layer `quota` of a place: one limit for all that it holds, whoever stores it.

Services that have limits of their own (by user, by repository) put a `QuotaLayer` with their scopes
in front of the place; this one is what an operator writes into the settings of the place itself.
The accounts are a SQLite ledger in the place's state folder, so all processes and services of this
machine share them; several machines need a ledger that they share.
"""

from __future__ import annotations

import os
from pathlib import PurePath

from ..backends.base import Backend
from ..backends.errors import BackendMustBeOpen, BackendMustNotBeOpen
from ..ledger import Limit, SQLiteLedger
from .options import OptionInvalid, size, text
from .quota import QuotaLayer

SCOPE = "place"


def from_options(
    inner: Backend,
    *,
    limit: object,
    exempt: object = ("locks",),
    ledger: object = None,
    name: str = "place",
    state_folder: str | None = None,
) -> PlaceQuota:
    """`limit`: bytes, or text such as "2 TB"; `exempt`: folders whose items always get through, so
    that a full place can be pruned; `ledger`: a file for the accounts on a local disk, by default
    in the place's state folder."""
    if ledger is None and state_folder is None:
        raise OptionInvalid("ledger", "is missing; write the path of a file on a local disk")
    path = text("ledger", ledger) if ledger is not None else f"{state_folder}/quota.sqlite3"
    if not os.path.isabs(path):
        raise OptionInvalid("ledger", f"{path!r} must be an absolute path")
    folders = [exempt] if isinstance(exempt, str) else exempt
    if not isinstance(folders, list | tuple) or not all(isinstance(each, str) for each in folders):
        raise OptionInvalid("exempt", f'must be names of folders, ["locks"], not {exempt!r}')
    return PlaceQuota(inner, path, size("limit", limit), frozenset(folders), name)


class PlaceQuota(QuotaLayer):
    """A place with one limit. Opens and closes its ledger with itself.

    Args:
        path: of the ledger's file; it and its folder are made when they are missing.
        limit: bytes.
        exempt: names of folders whose items are not counted.
        name: what the ledger calls the place.
    """

    def __init__(
        self, inner: Backend, path: str, limit: int, exempt: frozenset[str], name: str
    ) -> None:
        super().__init__(
            inner,
            SQLiteLedger(path),
            lambda _name: (SCOPE,),
            place=name,
            exempt=lambda item: not exempt.isdisjoint(PurePath(item).parts[:-1]),
            total=SCOPE,
        )
        self._limit = limit
        self._opened = False

    def scopes_of(self, name: str) -> tuple[str, ...]:
        if not self._opened:
            raise BackendMustBeOpen("the place is not open")
        return super().scopes_of(name)

    def open(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen("the place is open")
        self.ledger.open()
        self._opened = True
        try:
            self.ledger.set_limit(SCOPE, Limit(hard_bytes=self._limit))
            super().open()
        except BaseException:
            self._opened = False
            self.ledger.close()
            raise

    def close(self) -> None:
        if not self._opened:
            raise BackendMustBeOpen("the place is not open")
        self._opened = False
        try:
            super().close()
        finally:
            self.ledger.close()

    def destroy(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen("the place is open")
        self.ledger.open()
        try:
            super().destroy()
        finally:
            self.ledger.close()
