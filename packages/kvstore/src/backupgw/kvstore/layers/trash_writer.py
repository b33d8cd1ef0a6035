"""A writer whose commit keeps what it replaces."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..backends.base import Backend, Writer
from ..backends.errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from ..names import KernelPath, check_path
from .trash_keeper import KeepingWriter

logger = logging.getLogger(__name__)

TRIES = 8
"""How often somebody else may be faster before a change gives up."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A checkpointed write: the inner backend's token, and what the caller asked for."""

    token: str
    name: str
    if_absent: bool

    def to_token(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_token(cls, token: str) -> Paused:
        """Raises ValueError unless `to_token` made it."""
        try:
            paused = cls(**json.loads(token))
            check_path(paused.name)
            if not isinstance(paused.token, str):
                raise TypeError(paused.token)
        except (ValueError, TypeError) as error:
            raise ValueError("not a token of a checkpoint") from error
        return paused


class TrashWriter(KeepingWriter):
    """Passes a body on to an inner writer that never replaces anything by itself.

    Args:
        writer: opened with if_absent, unless what it replaces is not to be kept.
        if_absent: whether an item that is there ends it, or is none that has to be kept.
        keep_at: returns a fresh name for what is replaced.
        take: moves an item to such a name.
    """

    def __init__(
        self,
        writer: Writer,
        place: Backend,
        name: str,
        *,
        if_absent: bool,
        keep_at: Callable[[], KernelPath],
        take: Callable[[str, KernelPath], object],
    ) -> None:
        self._writer = writer
        self._place = place
        self._name = name
        self._if_absent = if_absent
        self._keep_at = keep_at
        self._take = take

    @property
    def offset(self) -> int:
        return self._writer.offset

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)

    def abort(self) -> None:
        self._writer.abort()

    def checkpoint(self) -> str:
        return Paused(self._writer.checkpoint(), self._name, self._if_absent).to_token()

    def check(self) -> None:
        self._writer.check()

    def commit(self) -> None:
        for _ in range(TRIES):
            try:
                self._writer.commit()
                return
            except ObjectExists:
                if self._if_absent:
                    raise
            if self._replace():
                return
        raise BackendError(f"{self._name}: others replace it all the time", retryable=True)

    def _replace(self) -> bool:
        """Replace the item that is there; False where somebody was faster."""
        kept, self.kept = self.kept or self._keep_at(), None
        try:
            self._writer.commit_over(kept)
        except ObjectNotFound:
            return False
        except UnsupportedOperation:
            logger.debug("%s: is away for a moment while it is replaced", self._name)
        else:
            return True
        try:
            self._take(self._name, kept)
        except ObjectNotFound:
            if self._place.info(self._name).directory:
                raise BackendError(f"{self._name} is a folder") from None
            return False
        try:
            self._writer.commit()
        except ObjectExists:
            return False
        except BaseException:
            put_back(self._place, kept, self._name)
            raise
        return True


def put_back(place: Backend, kept: KernelPath, name: str) -> None:
    """Undo the first half of a change whose second half failed; if that fails, it stays kept."""
    try:
        place.move_if_absent(kept, name)
    except ObjectExists:
        logger.debug("%s was written anew meanwhile; what it replaced stays in the trash", name)
    except BackendError as error:
        logger.warning("%s could not be put back and lies in the trash: %s", name, error)
