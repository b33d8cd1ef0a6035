"""A retention lock: what is deleted or replaced stays in the place for a set time.

Deleting an item moves it to a name in the kernel's part of the place, and so do a writer or a move
that replace one; `trash_names` says which name, and that it tells all there is to know. No client
can say such a name, so none can empty the trash, read it or make it expire: only `trash_contents`,
the operator's side, does. Where the place moves natively each of these is one step, at which a
crash finds the item at one of the two names. Where it does not, the item is copied and then
removed: after a crash it may be at both, and a write of that very name by another process in
between may be lost with it, unless a quota's ledger keeps the two apart.

Some names bypass the trash, locks above all, which come and go all the time. Nothing can be moved
to such a name from one that is kept: it would be a way around.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar

from ..backends.base import CHUNK, Backend, Capabilities, ItemInfo, Loaded, Writer
from ..backends.errors import (
    BackendError,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
)
from ..names import KernelPath, check_folder, check_path, is_reserved
from . import options
from .base import ReadingThrough, changed
from .trash_clock import TrashClock
from .trash_keeper import Keeper
from .trash_names import MOST_NAME_BYTES, ROOT, How, path_for, read_path
from .trash_writer import TRIES, Paused, TrashWriter, put_back

LOCKS = ("locks/*", "*/locks/*")
"""The names that bypass the trash unless somebody says otherwise: restic's and Borg's locks."""

_WHO: ContextVar[str] = ContextVar("backupgw_trash_who", default="")
_UNDOING: ContextVar[bool] = ContextVar("backupgw_trash_undoing", default=False)
_DAY = 86_400


@contextlib.contextmanager
def on_behalf_of(who: str) -> Iterator[None]:
    """Note `who` with everything that this thread or task deletes or replaces meanwhile."""
    token = _WHO.set(who)
    try:
        yield
    finally:
        _WHO.reset(token)


@contextlib.contextmanager
def undoing() -> Iterator[None]:
    """Note of everything that this thread or task replaces meanwhile that it is undone: replaced by
    what lay in the trash."""
    token = _UNDOING.set(True)
    try:
        yield
    finally:
        _UNDOING.reset(token)


def from_options(
    inner: Backend,
    *,
    keep: object = "30 days",
    bypass: object = LOCKS,
    may_destroy: object = False,
) -> TrashLayer:
    """Make the layer from settings.

    Args:
        keep: for how long, for example "30 days".
        bypass: patterns of names that are not kept; `*` stands for any characters, `/` too.
        may_destroy: whether the place may be destroyed with all that is kept.
    """
    patterns = [bypass] if isinstance(bypass, str) else bypass
    if not isinstance(patterns, list | tuple) or not all(isinstance(p, str) for p in patterns):
        raise options.OptionInvalid("bypass", 'must be a list of patterns, such as ["*/locks/*"]')
    return TrashLayer(
        inner,
        options.duration("keep", keep, least=1),
        bypass=matching(patterns),
        may_destroy=options.flag("may_destroy", may_destroy),
    )


def matching(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate: does a name match one of the patterns?"""
    joined = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    if not joined:
        return lambda _name: False
    match = re.compile(joined).match
    return lambda name: match(name) is not None


_is_lock = matching(LOCKS)


class TrashLayer(ReadingThrough, Keeper):
    """A backend that keeps what is deleted or replaced.

    Args:
        inner: where the items lie, and what is kept.
        keep: seconds; expiry may take up to a day longer.
        bypass: names that are not kept.
        may_destroy: whether `destroy` is let through.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        inner: Backend,
        keep: float,
        *,
        bypass: Callable[[str], bool] = _is_lock,
        may_destroy: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(inner)
        if not (math.isfinite(keep) and keep > 0):
            raise ValueError(f"a trash keeps things for more than {keep} seconds")
        self.keep = keep
        self.clock = TrashClock(inner, keep, clock)
        self._bypass = bypass
        self._may_destroy = may_destroy
        self._width = min(_DAY, max(1, int(keep // 16)))
        self._copying = [threading.Lock() for _ in range(64)]

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        inner = self.inner.capabilities
        return changed(super().capabilities, resumable_write=inner.resumable_write, hash=inner.hash)

    def destroy(self) -> None:
        if not self._may_destroy:
            raise PermissionDenied(
                "the place has a trash, which destroying it would empty; allow it in the "
                "settings of the trash (may_destroy)"
            )
        self.inner.destroy()

    # -- what the layers outside are told

    def keep_at(self, name: str, *, replaced: bool = False) -> KernelPath | None:
        if self._is_free(name):
            return None
        how = How.REPLACED if replaced else How.DELETED
        return self._place_for(name, how)

    def kept_name(self, path: str) -> str | None:
        kept = read_path(path)
        return None if kept is None else kept.name

    def list_all(self, folder: str) -> Iterator[ItemInfo]:
        if is_reserved(folder):
            yield from self.inner.list(KernelPath(folder))
            return
        yield from self.inner.list(folder)
        if folder == "" and self.inner.info(ROOT).directory:
            yield ItemInfo(ROOT, exists=True, size=0, directory=True)

    # -- ways out

    def delete(self, name: str) -> None:
        kept = self.keep_at(name)
        if kept is None:
            self.inner.delete(name)
        else:
            self.delete_to(name, kept)

    def delete_sized(self, name: str) -> int:
        kept = self.keep_at(name)
        if kept is None:
            return self.inner.delete_sized(name)
        if self.inner.capabilities.move:
            return super().delete_sized(name)  # to move it tells no size
        return self._take_surely(name, kept) or 0

    def delete_to(self, name: str, kept: KernelPath) -> None:
        self._take_surely(name, kept)

    def _take_surely(self, name: str, kept: KernelPath) -> int | None:
        check_path(name)
        for _ in range(TRIES):
            try:
                return self._take(name, kept)
            except ObjectNotFound:
                # Expiry may have removed an empty folder of the trash just then.
                info = self.inner.info(name)
                if not info.exists or info.directory:
                    raise
        raise BackendError(f"{name}: could not be moved to the trash", retryable=True)

    def quarantine(self, name: str) -> str:
        return self.inner.quarantine(check_path(name))

    def _take(self, name: str, kept: KernelPath) -> int | None:
        """Move an item to its name in the trash; return its size in bytes where that is learned on
        the way. Raises ObjectNotFound."""
        if self.inner.capabilities.move:
            try:
                self.inner.move(name, kept)
                return None
            except BackendError as error:
                if not _is_elsewhere(error):
                    raise
        with self._copying[hash(name) % len(self._copying)]:
            self.inner.copy(name, kept)
            return self.inner.delete_sized(name)

    # -- ways in, and about

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        free = self._is_free(name)
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent or not free, expected_hash=expected_hash
        )
        return self._writer(writer, name, if_absent=if_absent)

    def resume_writer(self, token: str) -> Writer:
        paused = Paused.from_token(token)
        writer = self.inner.resume_writer(paused.token)
        return self._writer(writer, paused.name, if_absent=paused.if_absent)

    def abort_writer(self, token: str) -> None:
        self.inner.abort_writer(Paused.from_token(token).token)

    def _writer(self, writer: Writer, name: str, *, if_absent: bool) -> Writer:
        return TrashWriter(
            writer,
            self.inner,
            name,
            if_absent=if_absent or self._is_free(name),
            keep_at=lambda: self._place_for(name, How.REPLACED),
            take=self._take,
        )

    def move(self, name: str, new_name: str) -> None:
        self._check_way(name, new_name)
        kept = None if name == new_name else self.keep_at(new_name, replaced=True)
        if kept is None:
            self.inner.move(name, new_name)
        else:
            self.move_keeping(name, new_name, kept)

    def move_keeping(self, name: str, new_name: str, kept: KernelPath) -> None:
        self._check_way(name, new_name)
        for _ in range(TRIES):
            try:
                self._bring(name, new_name)
                return
            except ObjectExists:
                if self.inner.info(new_name).directory:
                    raise BackendError(f"{new_name} is a folder") from None
            if self._move_over(name, new_name, kept):
                return
            kept = self._place_for(new_name, How.REPLACED)
        raise BackendError(f"{new_name}: others replace it all the time", retryable=True)

    def _move_over(self, name: str, new_name: str, kept: KernelPath) -> bool:
        """Replace the item that is there; False where somebody was faster."""
        try:
            self._take(new_name, kept)
        except ObjectNotFound:
            return False
        try:
            self._bring(name, new_name)
        except ObjectExists:
            return False
        except BaseException:
            put_back(self.inner, kept, new_name)
            raise
        return True

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._check_way(name, new_name)
        self._bring(name, new_name)

    def _bring(self, name: str, new_name: str) -> None:
        """Move an item to a free name; copy what comes back to another file system."""
        try:
            self.inner.move_if_absent(name, new_name)
            return
        except BackendError as error:
            if not (isinstance(name, KernelPath) and _is_elsewhere(error)):
                raise
        with (
            self.inner.open_reader(name) as reader,
            self.inner.open_writer(new_name, size=reader.item_size, if_absent=True) as writer,
        ):
            while chunk := reader.read(CHUNK):
                writer.write(chunk)
        self.inner.delete(name)

    # -- reading

    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        return self.inner.list_sizes(name)

    def load_nowait(self, name: str, *, offset: int = 0, size: int | None = None) -> Loaded | None:
        return self.inner.load_nowait(name, offset=offset, size=size)

    def surely_missing(self, name: str) -> bool:
        return self.inner.surely_missing(name)

    def file_number(self, name: str) -> int:
        return self.inner.file_number(name)

    # -- names

    def _is_free(self, name: str) -> bool:
        """Whether `name` is the kernel's own or bypasses the trash.

        Raises:
            NameTooLong: no name in the trash would be long enough for it.
        """
        check_folder(name)
        if isinstance(name, KernelPath) or self._bypass(name):
            return True
        if len(name) > MOST_NAME_BYTES // 4 and len(name.encode()) > MOST_NAME_BYTES:
            raise NameTooLong(
                f"{name[:60]}…: with a trash a name has at most {MOST_NAME_BYTES} bytes"
            )
        return False

    def _check_way(self, name: str, new_name: str) -> None:
        kernel = isinstance(new_name, KernelPath)  # which no client can say
        if self._is_free(new_name) and not (kernel or self._is_free(name)):
            raise PermissionDenied(
                f"{name} cannot be moved to {new_name}, where the trash would not keep it"
            )

    def _place_for(self, name: str, how: How) -> KernelPath:
        if how is How.REPLACED and _UNDOING.get():
            how = How.UNDONE
        until = math.ceil((self.clock.latest() + self.keep) / self._width) * self._width
        return path_for(name, when=self.clock.now(), until=until, how=how, who=_WHO.get())


def _is_elsewhere(error: BackendError) -> bool:
    """Whether a rename failed because the item lies on another file system (a followed link)."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EXDEV
