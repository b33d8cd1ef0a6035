"""A folder that, like many services, cannot refuse to replace: who must not replace looks first."""

from __future__ import annotations

import dataclasses
import time

from backupgw.kvstore.backends.base import Backend, Capabilities, Writer
from backupgw.kvstore.backends.errors import ObjectExists
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.claims import ClaimsLayer
from backupgw.kvstore.layers.wrapped import WrappedWriter
from backupgw.kvstore.ledger import SQLiteLedger


class LookingDisk(PosixFS):
    """See the module.

    Args:
        round_trip: seconds between the look and what comes of it.
    """

    def __init__(self, path: str, round_trip: float = 0.0) -> None:
        super().__init__(path, durability="fast")
        self.round_trip = round_trip

    def _capabilities(self) -> Capabilities:
        return dataclasses.replace(
            super()._capabilities(), atomic_create=False, resumable_write=False, copy=False
        )

    copy = Backend.copy

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        inner = super().open_writer(name, size=size, expected_hash=expected_hash)
        return _Looking(self, inner, name, if_absent=if_absent)


class _Looking(WrappedWriter):
    def __init__(self, place: LookingDisk, inner: Writer, name: str, *, if_absent: bool) -> None:
        super().__init__(inner)
        self._place, self._name, self._if_absent = place, name, if_absent

    def commit(self) -> None:
        if self._if_absent and self._place.info(self._name).exists:
            raise ObjectExists(self._name)
        time.sleep(self._place.round_trip)
        super().commit()


def claimed(folder: str, round_trip: float = 0.0) -> Backend:
    """Return such a place, in a folder, whose names are claimed."""
    return ClaimsLayer(
        LookingDisk(f"{folder}/store", round_trip),
        lambda: SQLiteLedger(f"{folder}/names.sqlite3"),
        "tried",
    )
