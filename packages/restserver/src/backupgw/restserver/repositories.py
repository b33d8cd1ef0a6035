"""Repositories at a place: the protocol's verbs as blocking calls on a kernel backend.

An upload and the making of a repository live here; the async edge (`app`) moves the bytes and
chooses the status codes. On disk the layout is that of rest-server and of restic's own
local backend, so either can take over the other's folder.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator

from backupgw.kvstore.backends.base import Backend, ItemInfo, Writer
from backupgw.kvstore.backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
)
from backupgw.kvstore.layers.trash import on_behalf_of
from backupgw.runtime.between_workers import SharedLock

from .paths import TYPES, Kind, Target, is_id

OPERATOR = "(operator)"
"""Who the trash names where the operator's own commands replaced an object."""

log = logging.getLogger(__name__)


def make_repository(backend: Backend, repo: str) -> None:
    """Make the folders of a repository; one that exists is completed."""
    base = f"{repo}/" if repo else ""
    backend.mkdirs(f"{base}{kind}" for kind in TYPES)
    backend.mkdirs(f"{base}data/{first:02x}" for first in range(256))


def list_objects(backend: Backend, target: Target) -> Iterator[ItemInfo]:
    """Yield the objects of one type, in any order; whatever has no valid name is left out.

    Raises:
        ObjectNotFound: by the first `next`: there is no such folder.
    """
    if target.type != "data":
        for item in backend.list(target.name):
            if not item.directory and is_id(item.name):
                yield item
        return
    for folder in backend.list(target.name):
        first_byte = folder.name
        if folder.directory and len(first_byte) == 2:
            try:
                for item in backend.list(f"{target.name}/{first_byte}"):
                    name = item.name
                    if not item.directory and name[:2] == first_byte and is_id(name):
                        yield item
            except ObjectNotFound:
                continue  # removed while we were listing


def delete_object(backend: Backend, name: str, user: str | None, *, sized: bool = False) -> int:
    """Remove an object on behalf of `user`, whom a trash will name.

    Args:
        sized: return its size in bytes, and not just 0; this may cost another round trip.

    Raises:
        ObjectNotFound: there is none.
    """
    who = user or ""
    # Quotes, so that no client is noted as what the operator's commands are noted as.
    with on_behalf_of(f"'{who}'" if who == OPERATOR else who):
        if sized:
            return backend.delete_sized(name)
        backend.delete(name)
        return 0


@functools.cache
def _repairing() -> SharedLock:
    """Held from the look at a damaged object until its cure is stored: of two clients that bring
    one, to whichever worker, the slower must not set aside what the faster was just promised."""
    return SharedLock("rest-repairs")


class Outcome(enum.Enum):
    """How an upload that was answered with success ended."""

    STORED = enum.auto()
    IDENTICAL = enum.auto()
    REPAIRED = enum.auto()


class Upload:
    """One object on its way in; the calls come one after the other, on any thread.

    What is stored is looked at first only where that costs little and the body is large: an object
    that exists is not written again. Its content is hashed and compared with the body, so a client
    whose reply was lost succeeds when it repeats itself (rest-server's issue 196). If what is
    stored is damaged, the body replaces it, and the damaged object is set aside.

    Args:
        size: length of the body in bytes, where the client said it.
        verify: whether the body must hash to the object's name. The config has no hash.
    """

    def __init__(self, backend: Backend, target: Target, size: int | None, *, verify: bool) -> None:
        self._backend = backend
        self._name = target.name
        self._size = size
        self._id = target.id if target.kind is Kind.OBJECT else None
        self._verify = verify and self._id is not None
        self._writer: Writer | None = None
        self._compare = hashlib.sha256()
        self._comparing = False
        self._begun = False
        self._is_there = False
        self.received = 0
        self.damaged = False
        """What was stored under the name had another hash."""

    def write(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Take a piece of the body. Raises what `finish` raises."""
        if not self._begun:
            self._begin()
        for chunk in chunks:
            self.received += len(chunk)
            if self._writer is not None:
                self._writer.write(chunk)
            elif self._comparing:
                self._compare.update(chunk)

    def finish(self, chunks: Iterable[bytes | memoryview]) -> Outcome:
        """Take the last piece; return once the object is durable.

        Raises:
            ObjectExists: another content is stored under that name; it was left alone.
            ContentMismatch: the body is not what its name or its length says; nothing was stored.
            BackendError: the place failed; nothing was stored.
        """
        if not self._begun and (self._verify or self._id is None):
            chunks = list(chunks)
            outcome = self._store_at_once(chunks)
            if outcome is not None:
                return outcome
            self.received = 0
        self.write(chunks)
        if self._size is not None and self.received != self._size:
            raise ContentMismatch(f"{self.received} of {self._size} bytes came")
        if self._writer is None:
            if self._compare.hexdigest() != self._id:
                raise ObjectExists("an object of that name exists, and this is not its content")
            return self._promise_stored()
        return self._commit(self._writer)

    def _store_at_once(self, chunks: Iterable[bytes | memoryview]) -> Outcome | None:
        """Write without looking first whether the object exists: what is small and there already is
        written in vain, which is cheaper than a look for all that is not.

        Returns:
            None where it was refused, perhaps for no other reason than that it is there.
        """
        try:
            self._writer = self._open_writer()
            for chunk in chunks:
                self.received += len(chunk)
                self._writer.write(chunk)
            return self._commit(self._writer)
        except (ContentMismatch, PermissionDenied, QuotaExceeded):
            if not self._backend.info(self._name).exists:
                raise
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        self._is_there = True
        return None

    def _commit(self, writer: Writer) -> Outcome:
        try:
            writer.commit()
        except ObjectExists as error:
            if error.mended:
                self.damaged = True
                writer.abort()
                return Outcome.REPAIRED
            return self._already_there(writer)
        return Outcome.STORED

    def abort(self) -> None:
        """Forget the upload. Idempotent, and a no-op after a successful `finish`."""
        if self._writer is not None:
            self._writer.abort()

    def _begin(self) -> None:
        self._begun = True
        # A place without an atomic create looks by itself when the writer commits, and there each
        # look is a request.
        able = self._backend.capabilities
        looks = self._is_there or (able.atomic_create and not able.claimed)
        if looks and self._backend.info(self._name).exists:
            if self._id is None:
                raise ObjectExists("the repository has a config already")
            if self._stored_is_sound():
                self._comparing = True
                return
        self._writer = self._open_writer()

    def _open_writer(self) -> Writer:
        return self._backend.open_writer(
            self._name,
            size=self._size,
            if_absent=True,
            expected_hash=self._id if self._verify else None,
        )

    def _stored_is_sound(self) -> bool | None:
        """Whether what is stored hashes to its name; None where nothing is."""
        try:
            return self._backend.hash(self._name) == self._id
        except ObjectNotFound:
            return None

    def _already_there(self, writer: Writer) -> Outcome:
        """The body is whole, but its name is taken: by a twin of this upload, or by damage."""
        if self._id is None:
            raise ObjectExists("the repository has a config already")
        if not self._stored_is_sound():
            with _repairing().held():
                sound = self._stored_is_sound()
                if sound is None:
                    return self._commit_again(writer, Outcome.STORED)
                if not sound:
                    return self._repair(writer)
        writer.abort()
        return self._promise_stored()

    def _repair(self, writer: Writer) -> Outcome:
        self.damaged = True
        if not self._verify:
            # Nobody has hashed this body: it must not push anything aside.
            raise ObjectExists("an object of that name exists, and it does not hash to its name")
        try:
            kept = self._backend.quarantine(self._name)
            log.error("%s was damaged: set aside as %s, replaced by a new upload", self._name, kept)
        except ObjectNotFound:
            log.info("%s was removed while it was being uploaded again", self._name)
        return self._commit_again(writer, Outcome.REPAIRED)

    def _commit_again(self, writer: Writer, outcome: Outcome) -> Outcome:
        """What had the name is out of the way."""
        try:
            writer.commit()
        except ObjectExists as error:
            sound = self._stored_is_sound()
            if sound is None:
                raise self._removed() from error
            if not sound:
                raise
            writer.abort()
            return self._promise_stored()
        return outcome

    def _promise_stored(self) -> Outcome:
        """The client may forget the object, so another's upload must be as durable as our own."""
        try:
            self._backend.sync(self._name)
        except ObjectNotFound as error:
            raise self._removed() from error
        return Outcome.IDENTICAL

    def _removed(self) -> BackendError:
        return BackendError(
            f"{self._name} was removed while it was being uploaded again", retryable=True
        )
