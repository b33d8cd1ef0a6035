"""One file verified: read, hashed, compared with its name; set aside where it is damaged."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.layers.throttle_rate import Pace
from backupgw.kvstore.names import KernelPath

from .paths import object_name
from .verify_findings import Finding, Problem
from .verify_walk import Candidate, Standing

log = logging.getLogger(__name__)

_EMPTY = hashlib.sha256().hexdigest()
_PIECE = 1 << 20


class Stopped(Exception):
    """Somebody asked the verification to stop."""


@dataclass(frozen=True)
class Verifier:
    """Looks at one file at a time, on any number of threads.

    Attributes:
        place: open, as the server has it.
        source: where files are read: the place without its cache, whose copies prove nothing.
        pace: how fast they may be read, by all threads together; None: as fast as can be.
        stop: set by who wants it to end.
        asked: asked before each piece, too: whether it is to end.
    """

    place: Backend
    source: Backend
    pace: Pace | None
    stop: threading.Event
    asked: Callable[[], bool] = lambda: False

    @property
    def stopping(self) -> bool:
        """Whether it is to end."""
        return self.stop.is_set() or self.asked()

    def verify(self, candidate: Candidate) -> Finding | None:
        """Return what is wrong with a file, None where nothing is, or where it is gone.

        Raises:
            Stopped: it was asked to stop.
        """
        try:
            if candidate.standing is Standing.FOREIGN:
                return _finding(candidate, Problem.FOREIGN, "is none of restic's files")
            return self._verify(candidate)
        except ObjectNotFound:
            return None  # a client removed it
        except BackendError as error:
            return _finding(candidate, Problem.UNREADABLE, f"cannot be read: {error}")

    def _verify(self, candidate: Candidate) -> Finding | None:
        name, wanted = candidate.position.path, candidate.position.name
        misplaced = candidate.standing is Standing.MISPLACED
        found, reason = self._hash(name)
        if found == wanted:
            if misplaced:
                return _finding(candidate, Problem.MISPLACED, self._misplaced(candidate), found)
            return None
        # A second look: memory and the way to the place can fail as well as what is stored.
        again, _ = self._hash(name)
        if again != found:
            return _finding(candidate, Problem.UNREADABLE, "gives other bytes at each reading")
        if misplaced:
            what = f"lies where clients do not look, and {reason}"
            return _finding(candidate, Problem.MISPLACED, what, found)
        what = reason if found is None else self._describe(candidate, found)
        return _finding(candidate, Problem.DAMAGED, what, found)

    def _hash(self, name: str) -> tuple[str | None, str]:
        """Return the hash of a file; without one, and why, where its encryption tells of damage.

        Raises:
            BackendError: it cannot be read.
        """
        digest = hashlib.sha256()
        try:
            with self.source.open_reader(name) as reader:
                span = reader.file_span()
                if span is not None:
                    # What the kernel still holds of it in memory says nothing about the disk.
                    with contextlib.suppress(OSError):
                        os.posix_fadvise(span.fd, 0, 0, os.POSIX_FADV_DONTNEED)
                while True:
                    if self.stopping:
                        raise Stopped
                    piece = reader.read(_PIECE if self.pace is None else self.pace.piece)
                    if not piece:
                        break
                    digest.update(piece)
                    if self.pace is not None:
                        self.pace.take(len(piece))
        except _undecryptable() as error:
            return None, f"cannot be decrypted: {error}"
        return digest.hexdigest(), "does not hold what its name says"

    def _misplaced(self, candidate: Candidate) -> str:
        right = _right_place(candidate, candidate.position.name)
        if right is None or not self.place.info(right).exists:
            return f"lies where clients do not look; it belongs at {right or 'its repository'}"
        return f"lies where clients do not look; there is one at {right}, too"

    def _describe(self, candidate: Candidate, found: str) -> str:
        """Say what a file holds instead of what its name says."""
        if found == _EMPTY:
            return "is empty"
        right = _right_place(candidate, found)
        if right is not None and self.place.info(right).exists:
            return f"holds what {right} holds, too"
        return f"does not hold what its name says, but {found}"

    def set_aside(self, finding: Finding) -> Finding:
        """Take a damaged object out of every client's reach; return what is to be told of it."""
        name = finding.name
        try:
            kept = self.place.quarantine(name)
        except ObjectNotFound:
            return replace(finding, what=f"{finding.what}; a client has removed it meanwhile")
        except BackendError as error:
            return replace(finding, what=f"{finding.what}; it could not be set aside: {error}")
        # A client may have stored it anew after it was read: then that was set aside.
        with contextlib.suppress(BackendError, ValueError):
            if self.place.hash(KernelPath(kept)) == name.rpartition("/")[2]:
                self.place.move_if_absent(KernelPath(kept), name)
                return replace(finding, what=f"{finding.what}; a client has replaced it meanwhile")
        log.error("%s is damaged: set aside as %s", name, kept)
        return replace(finding, kept=kept)


def _right_place(candidate: Candidate, object_id: str) -> str | None:
    """Return where an object of that name would lie; None where its type cannot be told."""
    kind = candidate.position.part.partition("/")[0]
    if not kind:
        return None
    base = "/".join((*candidate.position.repository, kind))
    return object_name(base, kind, object_id)


def _finding(
    candidate: Candidate,
    problem: Problem,
    what: str,
    found: str | None = None,
) -> Finding:
    name = candidate.position.path
    return Finding(name, candidate.repository, problem, what, candidate.size, found)


def _undecryptable() -> tuple[type[BackendError], ...]:
    try:
        from backupgw.kvstore.layers.encrypt_age import Undecryptable
    except ImportError:
        return ()  # nothing is encrypted where the library for it is missing
    return (Undecryptable,)
