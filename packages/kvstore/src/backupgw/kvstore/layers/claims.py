"""Names claimed in a ledger while they change, at places that cannot refuse a second creator.

Where a place has no conditional create (Google Drive, B2, Drime, most remotes of rclone), a writer
looks for an older item and then creates its own, and two that look at the same moment both go on:
one name, two objects. Here whoever commits, deletes or renames claims the names first, so that
among all who share the ledger the changes of a name come one after the other, and what each of
them sees when it looks is true. Reading waits for nobody, and neither does the body of an upload:
the name is claimed when all of it has come.

Services that know folders by ids take folders twice as well (`entry_folders`): whoever misses one
there claims the folder in which it is to be made, looks again and makes it.

- A second writer of a name waits for the first, then finds its item. If the first takes longer than
  `patience`, the second fails with a retryable error, and nothing was changed.
- A gateway that dies in the middle leaves its claim to the next one, as soon as the ledger knows
  (at once on one machine, after its lease in a database). What it had sent may still be on its way
  then: the next one waits `settling` seconds before it looks.
- A ledger that cannot be reached refuses changes with a retryable error; reading goes on.

It lies directly around the backend, within all layers that have a place in a stack, and is put
there by whoever knows the ledger. Where the place turns out to create names once by itself, it
steps aside. The ledger is opened with the first change, so that reading needs none.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from urllib.parse import quote, unquote

from ..backends.base import Backend, Capabilities, Loaded, Quota, Writer
from ..backends.entry_place import EntryPlace
from ..backends.errors import BackendError, BackendMustBeOpen
from ..ledger import LedgerError, NameBusy
from ..ledger.claiming import NameLedger
from ..names import check_path, is_reserved
from .base import ReadingThrough, changed
from .wrapped import WrappedWriter

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a writer waits for another one of its name."""

_CLAIMED = "claimed:"
"""How the tokens of checkpoints begin that say to which name they belong."""


class ClaimsLayer(ReadingThrough):
    """A place whose names are claimed while they change.

    Args:
        inner: the backend itself.
        ledger: makes the ledger; opened with the first change and closed with the place.
        place: what the ledger calls the place: the same for all who write there.
        settling: seconds in which what a dead process had sent arrives, counted from when the
            ledger knows that it is dead.
        patience: seconds that a change waits for another one of its name at most.
    """

    def __init__(
        self,
        inner: Backend,
        ledger: Callable[[], NameLedger],
        place: str,
        *,
        settling: float = 0.0,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(inner)
        self._make_ledger = ledger
        self._place = place
        self._settling = settling
        self._patience = patience
        self._opening = threading.Lock()
        self._ledger: NameLedger | None = None
        self._closed = threading.Event()
        self._closed.set()
        self._tidying: threading.Thread | None = None

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        """The inner backend's; names are created once."""
        inner = self.inner.capabilities
        return inner if inner.atomic_create else changed(inner, atomic_create=True, claimed=True)

    # -- the place itself

    def open(self) -> None:
        self.inner.open()
        self._closed.clear()
        if isinstance(self.inner, EntryPlace):
            self.inner.claim_folders(self._claiming_folder)

    def close(self) -> None:
        self._closed.set()
        try:
            self.inner.close()
        finally:
            with self._opening:
                ledger, self._ledger = self._ledger, None
                tidying, self._tidying = self._tidying, None
            if tidying is not None:
                tidying.join()
            if ledger is not None:
                ledger.close()

    def _opened(self) -> NameLedger:
        with self._opening:
            if self._closed.is_set():
                raise BackendMustBeOpen(f"{self.inner!r} is not open")
            if self._ledger is None:
                ledger = self._make_ledger()
                ledger.open()
                self._ledger = ledger
                self._forget_what_was_left(ledger)
            return self._ledger

    def _forget_what_was_left(self, ledger: NameLedger) -> None:
        """Let what died before now be forgotten, once whatever it had sent has arrived: most of its
        names will never be claimed again."""
        try:
            left = ledger.left_open(self._place)
        except LedgerError as error:
            logger.warning("what dead processes left: %s", error)
            return
        if left:
            self._tidying = threading.Thread(
                target=self._tidy, args=(ledger, left), name="claims-tidying", daemon=True
            )
            self._tidying.start()

    def _tidy(self, ledger: NameLedger, left: Sequence[tuple[int, str]]) -> None:
        if self._closed.wait(self._settling):
            return
        try:
            ledger.forget_left(self._place, left)
        except LedgerError as error:
            logger.warning("what dead processes left: %s", error)

    # -- claims

    def claiming(self, *names: str) -> AbstractContextManager[None]:
        """Be the only one who changes these names; those of the kernel's own are nobody else's.

        Raises:
            NameBusy: somebody is at it for longer than one waits; nothing was changed.
            LedgerError: the ledger cannot be had; likewise.
        """
        mine = [name for name in map(check_path, names) if not is_reserved(name)]
        if not mine or self.inner.capabilities.atomic_create:
            return contextlib.nullcontext()
        return self._claiming(mine)

    def _claiming_folder(self, parent: str) -> AbstractContextManager[None]:
        """Be the only one who makes folders in one; no item's name ends as what is claimed does."""
        if parent and is_reserved(parent):
            return contextlib.nullcontext()
        return self._claiming([f"{parent}/"])

    @contextlib.contextmanager
    def _claiming(self, names: Sequence[str]) -> Iterator[None]:
        with contextlib.ExitStack() as claimed:
            try:
                died = claimed.enter_context(
                    self._opened().claiming(self._place, names, patience=self._patience)
                )
            except NameBusy as error:
                raise NameBusy(
                    f"{names[0]}: another write or removal of it is under way for more than "
                    f"{self._patience:g} s; try again",
                    retryable=True,
                ) from error
            if died and self._closed.wait(self._settling):
                raise BackendError(f"{names[0]}: the place was closed", retryable=True)
            yield

    # -- changes

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        return self._around(writer, name)

    def _around(self, writer: Writer, name: str) -> Writer:
        if self.inner.capabilities.atomic_create:
            return writer
        return ClaimingWriter(writer, name, self.claiming)

    def store_nowait(
        self,
        name: str,
        value: bytes,
        *,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> bool:
        if not self.inner.capabilities.atomic_create:
            return False
        return self.inner.store_nowait(
            name, value, if_absent=if_absent, expected_hash=expected_hash
        )

    def resume_writer(self, token: str) -> Writer:
        name, inner = _read(token)
        writer = self.inner.resume_writer(inner)
        return writer if name is None else self._around(writer, name)

    def abort_writer(self, token: str) -> None:
        self.inner.abort_writer(_read(token)[1])

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        with self.claiming(name):
            self.inner.store(name, value)

    def delete(self, name: str) -> None:
        with self.claiming(name):
            self.inner.delete(name)

    def delete_sized(self, name: str) -> int:
        with self.claiming(name):
            return self.inner.delete_sized(name)

    def quarantine(self, name: str) -> str:
        with self.claiming(name):
            return self.inner.quarantine(name)

    def move(self, name: str, new_name: str) -> None:
        with self.claiming(name, new_name):
            self.inner.move(name, new_name)

    def move_if_absent(self, name: str, new_name: str) -> None:
        with self.claiming(name, new_name):
            self.inner.move_if_absent(name, new_name)

    def copy(self, name: str, new_name: str) -> None:
        with self.claiming(new_name):
            self.inner.copy(name, new_name)

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        with self.claiming(target):
            self.inner.defrag(sources, target)

    # -- what changes no name

    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        return self.inner.list_sizes(name)

    def load(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        return self.inner.load(name, offset=offset, size=size)

    def load_nowait(self, name: str, *, offset: int = 0, size: int | None = None) -> Loaded | None:
        return self.inner.load_nowait(name, offset=offset, size=size)

    def surely_missing(self, name: str) -> bool:
        return self.inner.surely_missing(name)

    def file_number(self, name: str) -> int:
        return self.inner.file_number(name)

    def quota(self) -> Quota:
        return self.inner.quota()


class ClaimingWriter(WrappedWriter):
    """Claims the name for as long as the place is told to make the value visible."""

    def __init__(
        self, writer: Writer, name: str, claiming: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        super().__init__(writer)
        self._name = name
        self._claiming = claiming

    def commit(self) -> None:
        with self._claiming(self._name):
            self._writer.commit()

    def commit_over(self, kept: str) -> None:
        with self._claiming(self._name):
            self._writer.commit_over(kept)

    def checkpoint(self) -> str:
        return _told(self._name, self._writer.checkpoint())

    def mark(self) -> str:
        return _told(self._name, self._writer.mark())

    def leave(self) -> None:
        self._writer.leave()


def _told(name: str, token: str) -> str:
    return f"{_CLAIMED}{quote(name)}\n{token}"


def _read(token: str) -> tuple[str | None, str]:
    """Return the name that a token belongs to, None for one of the place alone, and that one."""
    name, separator, inner = token.partition("\n")
    if not separator or not name.startswith(_CLAIMED):
        return None, token
    return unquote(name.removeprefix(_CLAIMED)), inner
