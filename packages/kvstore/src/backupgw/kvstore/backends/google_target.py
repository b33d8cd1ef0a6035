"""An upload in order to Google's services, and how another process carries it on.

A session's address is a secret, so it is not in checkpoints: it is kept in the place, beside what
else they need.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Sequence

from ..names import RESERVED_PREFIX
from .errors import ObjectNotFound
from .google_uploads import UploadSession
from .part_checkpoints import Checkpoint
from .part_transfers import ResumableTarget, SentPart
from .plan import Plan

PIECES = f"{RESERVED_PREFIX}-pieces"
"""Folder of the place for what checkpoints need."""


class SessionTarget(ResumableTarget):
    """What targets share whose parts go through a session.

    Args:
        plan: what `open_writer` was told.
        part_size: in bytes, a multiple of 256 KiB.
        checkpoint: that is carried on.
    """

    parallel = 1  # a session takes bytes in order

    def __init__(self, plan: Plan, part_size: int, checkpoint: Checkpoint | None) -> None:
        self._plan = plan
        self._part_size = part_size
        """The same for those who carry on, whatever they were told: parts are multiples."""
        self._checkpoint = checkpoint
        self._mark = secrets.token_hex(16)
        """Tells this upload from all others."""
        self._session: UploadSession | None = None
        self._lasts = checkpoint is not None
        """Whether others can find the upload."""

    @abstractmethod
    def _put_aside(self, name: str, data: bytes | bytearray) -> None:
        """Store in PIECES."""

    @abstractmethod
    def _from_aside(self, name: str) -> bytes:
        """Load from PIECES. Raises ObjectNotFound."""

    @abstractmethod
    def _drop_aside(self, name: str) -> None:
        """Delete in PIECES what may be gone."""

    @abstractmethod
    def _carried_on(self, url: str) -> UploadSession:
        """Return a session that was begun."""

    def part_size(self, number: int) -> int:  # noqa: ARG002 - all are alike
        return self._part_size

    def make_findable(self, state: str) -> None:  # noqa: ARG002 - all is known
        if not self._lasts:
            self._put_aside(self._address, self._require_session().url.encode())
            self._lasts = True

    @property
    def _address(self) -> str:
        """The name of what others find the upload by."""
        return f"{self._mark}-upload"

    def _forget(self) -> None:
        if self._lasts:
            self._drop_aside(self._address)

    def keep(self, data: bytes | bytearray) -> str:
        reference = secrets.token_hex(16)
        self._put_aside(reference, data)
        return reference

    def kept(self, reference: str) -> bytes:
        return self._from_aside(_checked(reference))

    def drop(self, reference: str) -> None:
        self._drop_aside(_checked(reference))

    def sent(self, state: str) -> Sequence[SentPart]:  # noqa: ARG002 - the checkpoint has it
        assert self._checkpoint is not None
        done, received = self._require_session().ask()
        if done is not None:
            raise ObjectNotFound(f"{self._plan.name}: the upload has ended")
        parts, end = [], 0
        for part in self._checkpoint.parts:
            end += part.size
            if end <= received:
                parts.append(part)
        return parts

    def _require_session(self) -> UploadSession:
        """Return the session; that of a checkpoint is looked up. Raises ObjectNotFound."""
        if self._session is None:
            if self._checkpoint is None:
                raise ObjectNotFound(self._plan.name)
            self._session = self._carried_on(self._from_aside(self._address).decode())
        return self._session


def _checked(reference: str) -> str:
    bytes.fromhex(reference)  # a ValueError for what `keep` never returned
    return reference
