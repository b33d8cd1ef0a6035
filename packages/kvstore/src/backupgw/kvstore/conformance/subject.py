"""What the suite runs on: a place, opened, with a folder in it that is the suite's own."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Self

from ..backends.base import Backend
from ..backends.errors import BackendDoesNotExist, ObjectNotFound
from .threads import run_together

Factory = Callable[[], Backend]

Fill = Callable[[str, Sequence[str]], AbstractContextManager[object]]
"""Puts empty items of these names into a folder (its full name) of the place, until it is left."""

ALLOWED = 12 << 20
"""Bytes of Python memory that moving one value may take: a few buffers and parts."""

LARGE = 64 << 20
LEAST_LARGE = 2 * ALLOWED

_SOAK_PATIENCE = 10
_FILLERS = 8


class Subject:
    """A place under test, open while its `with` block runs.

    Where the place does not exist yet, it is created and destroyed again (`owned`), and every
    check can run. In one that exists, the suite keeps to a fresh folder of its own, and the checks
    that need the place for themselves are left out.

    Args:
        factory: returns a new backend of the place each time, not yet open. Where the backend's
            capabilities say `shared` it goes to other processes, so it must be picklable:
            `functools.partial(open_place, url)` and functions of modules are.
        soak: run with the full counts instead of the short ones.
        scale: share of the short counts that is enough where each operation is a request to a
            service: 0.2 for a fifth. A soak has the full counts all the same.
        patience: seconds after which something that should not have to wait counts as stuck; ten
            times that in a soak.
        large: bytes of the values that nobody may hold in memory: at least `LEAST_LARGE`.
        fill: fills a folder with many items past the backend, where storing them one by one would
            take longer than all else: on the server's disk, or in the memory of a double. They must
            look as if the backend had stored them. None to store them.
        listed: entries at most of the folder whose list is not to be held in memory, where each
            takes long to store and there is no `fill`: a few pages of a listing tell as well.
        remembers: of how many items the backend keeps in memory what a list tells of them, so that
            it need not ask again; it may have them in mind beyond what a list takes.

    Raises:
        ValueError: `large` is too little to be missed in memory; or (on entering) the factory
            cannot be pickled, but the place is `shared`.
    """

    def __init__(
        self,
        factory: Factory,
        *,
        soak: bool = False,
        scale: float = 1.0,
        patience: float = 60,
        large: int = LARGE,
        fill: Fill | None = None,
        listed: int | None = None,
        remembers: int = 0,
    ) -> None:
        if large < LEAST_LARGE:
            raise ValueError(f"large values have {LEAST_LARGE} bytes at least, not {large}")
        self.factory = factory
        self.large = large
        self.soak = soak
        self.scale = scale
        self.fill = fill
        self.listed = listed
        self.remembers = remembers
        self.patience = patience * (_SOAK_PATIENCE if soak else 1)
        self.owned = False
        self.root = f"conformance-{secrets.token_hex(6)}"
        self.backend = factory()
        self._undo: list[Callable[[], None]] = []
        self._folders = 0

    def __enter__(self) -> Self:
        if self.backend.capabilities.shared:
            try:
                pickle.dumps(self.factory)
            except Exception as error:  # pickle raises nearly anything
                raise ValueError(
                    f"the factory must be picklable to reach other processes: {error}"
                ) from error
        try:
            try:
                self.backend.open()
            except BackendDoesNotExist:
                self.backend.create()
                self.owned = True
                self._undo.append(self.backend.destroy)
                self.backend.open()
            self._undo.append(self.backend.close)
            if not self.owned:
                # Noted first: Ctrl-C may come as soon as the folder is there.
                self._undo.append(partial(remove_tree_if_there, self.backend, self.root))
            self.backend.mkdir(self.root)
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Remove what the suite made and close the place; nothing where that is done already.

        Ctrl-C may interrupt it anywhere; called again it goes on.
        """
        failures: list[Exception] = []
        while self._undo:
            try:
                self._undo[-1]()
            except Exception as error:  # noqa: BLE001 - raised below, when the rest is done
                failures.append(error)
            self._undo.pop()
        if failures:
            raise failures[0]

    def count(self, *, short: int, soak: int) -> int:
        """Return how often something is to be done: of these numbers the one for this run."""
        return soak if self.soak else max(1, round(short * self.scale))

    def ground(self) -> Ground:
        """Return a fresh, empty folder for one check."""
        self._folders += 1
        folder = f"{self.root}/{self._folders:03}"
        self.backend.mkdir(folder)
        return Ground(self, folder)


class Ground:
    """A folder for one check, with the few operations that most checks need."""

    def __init__(self, subject: Subject, folder: str) -> None:
        self.subject = subject
        self.folder = folder

    @property
    def backend(self) -> Backend:
        return self.subject.backend

    def name(self, name: str) -> str:
        """Return the full name of something in this folder."""
        return f"{self.folder}/{name}"

    def put(self, name: str, value: bytes) -> str:
        """Store a value by a writer; return its full name."""
        full = self.name(name)
        with self.backend.open_writer(full, size=len(value)) as writer:
            writer.write(value)
        return full

    def get(self, name: str) -> bytes | None:
        """Return a value read by a reader, None if there is no such item."""
        try:
            with self.backend.open_reader(self.name(name)) as reader:
                return b"".join(iter(lambda: reader.read(1 << 16), b""))
        except ObjectNotFound:
            return None

    def filled(self, names: Sequence[str]) -> AbstractContextManager[object]:
        """Put many empty items into this folder."""
        if self.subject.fill is not None:
            return self.subject.fill(self.folder, names)
        run_together(
            [partial(self._put_empty, names[start::_FILLERS]) for start in range(_FILLERS)],
            self.subject.patience * 10,
            hurried=False,
        )
        return nullcontext()

    def _put_empty(self, names: Sequence[str]) -> None:
        for name in names:
            self.backend.store(self.name(name), b"")

    def names(self, folder: str = "") -> list[str]:
        """Return the names that are listed in this folder or one in it, sorted."""
        full = self.name(folder) if folder else self.folder
        return sorted(info.name for info in self.backend.list(full))

    def tree(self) -> dict[str, bytes | None]:
        """Return everything below this folder: values by name, None for folders."""
        found: dict[str, bytes | None] = {}
        for name, directory in walk(self.backend, self.folder):
            relative = name.removeprefix(self.folder + "/")
            found[relative] = None if directory else self.get(relative)
        return found

    @contextmanager
    def second(self) -> Iterator[Backend]:
        """Open the place a second time, as another gateway would.

        Where the place is not `shared` it is the same backend object again.
        """
        if not self.backend.capabilities.shared:
            yield self.backend
            return
        with self.subject.factory() as other:
            yield other


def walk(backend: Backend, folder: str) -> Iterator[tuple[str, bool]]:
    """Yield (full name, is it a folder) of everything below, folders after their content."""
    for info in [*backend.list(folder)]:
        name = f"{folder}/{info.name}"
        if info.directory:
            yield from walk(backend, name)
        yield name, info.directory


def remove_tree(backend: Backend, folder: str) -> None:
    """Remove a folder with all that is in it."""
    for name, directory in walk(backend, folder):
        if directory:
            _remove_folder(backend, name)
        else:
            backend.delete(name)
    _remove_folder(backend, folder)


def remove_tree_if_there(backend: Backend, folder: str) -> None:
    """Remove a folder with all that is in it, if there is one."""
    if backend.info(folder).exists:
        remove_tree(backend, folder)


def _remove_folder(backend: Backend, folder: str) -> None:
    try:
        backend.rmdir(folder)
    except ObjectNotFound:
        return  # places without real folders lose them with their last item
