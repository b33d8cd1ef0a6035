"""The short way of a small new item through the quota: counted as it gets its name.

Its size was announced, and the inner writer stores just that or nothing. So nothing has to be
watched while the body comes, and the writer is the inner one itself.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backends.errors import ObjectExists
from ..backends.gated import GatedWriter
from ..ledger import Amount, Ledger
from .quota_writer import AnyRoom, QuotaWriter, change_of, did_not_end_well


class NewItemGate:
    """Counts new items of the same scopes.

    Args:
        lookup: tells what a name holds now.
        numbered: it tells the file, too (`Item`), of what is written with a gate.
        room: returns the room for a new item of a name and a size, for whatever is not simple.
    """

    __slots__ = ("_ledger", "_lookup", "_numbered", "_place", "_room", "_scopes")

    def __init__(
        self,
        ledger: Ledger,
        place: str,
        scopes: tuple[str, ...],
        *,
        lookup: Callable[[str], Amount],
        numbered: bool,
        room: Callable[[str, int], AnyRoom],
    ) -> None:
        self._ledger = ledger
        self._place = place
        self._scopes = scopes
        self._lookup = lookup
        self._numbered = numbered
        self._room = room

    def commit(self, writer: GatedWriter, size: int) -> None:
        """As `Gate.commit`."""
        ledger, name = self._ledger, writer.known_as
        try:
            file = writer.file_number() if self._numbered else 0
            item = ledger.begin_new(
                self._place,
                name,
                self._scopes,
                size,
                writer.surely_new,
                at_once=writer.looks_at_once,
                file=file,
            )
            if item is None:
                QuotaWriter(writer, self._room(name, size), offset=size).commit()
                return
            try:
                writer.commit()
            except BaseException as error:
                try:
                    change = change_of(item, self._place, name, self._scopes, size)
                    did_not_end_well(ledger, change, error, self._lookup, file)
                finally:
                    ledger.end_new(item, settled=False)
                raise
            ledger.end_new(item, settled=True)
        except ObjectExists:
            writer.gate = self  # it may be called again, once that item was moved out of the way
            raise
        except BaseException:
            writer.abort()
            raise

    def checkpoint(self, writer: GatedWriter, size: int) -> str:
        """As `Gate.checkpoint`."""
        room = self._room(writer.known_as, size)
        return QuotaWriter(writer, room, offset=writer.offset, anew=writer.anew).checkpoint()
