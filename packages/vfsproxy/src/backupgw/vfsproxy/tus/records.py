"""An upload as it is remembered between two requests, and the store that remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Kind(StrEnum):
    """What an upload becomes."""

    WHOLE = "whole"
    """A file."""
    PARTIAL = "partial"
    """A part of a file, for a final upload."""
    FINAL = "final"
    """A file, joined from partial uploads."""


class State(StrEnum):
    """Where an upload stands."""

    OPEN = "open"
    ENDING = "ending"
    """Its holder may be giving the file its name; whoever finds it so after a crash looks."""
    DONE = "done"
    JOINED = "joined"
    """A partial upload whose bytes became a file."""


class Piece(NamedTuple):
    """An item of the staging area: a partial upload's bytes, or some of an upload's to a volume
    that cannot carry writes on."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload.

    Attributes:
        id: unique, and part of its URL.
        folder: the id of the folder that it goes to.
        owner: who created it.
        name: path of the file in the folder; "" for a partial upload.
        length: bytes it will have; None where the client has not said yet.
        offset: bytes that are kept.
        metadata: Upload-Metadata exactly as the client sent it.
        overwrite: whether a file of that name is replaced.
        parts: ids of the partial uploads of a final one.
        token: a checkpoint of the volume's; None before the first, and where it has none.
        pieces: see `Piece`.
        created, expires: seconds since 1970 by the store's clock.
    """

    id: str
    folder: str
    owner: str
    name: str
    length: int | None
    kind: Kind = Kind.WHOLE
    state: State = State.OPEN
    offset: int = 0
    metadata: str = ""
    overwrite: bool = False
    parts: tuple[str, ...] = ()
    token: str | None = None
    pieces: tuple[Piece, ...] = ()
    created: float = 0.0
    expires: float = 0.0

    @property
    def recorded(self) -> bool:
        """Whether the store knows it; otherwise whoever has it has all there is."""
        return self.created > 0

    @property
    def complete(self) -> bool:
        """Whether all its bytes are there, whatever became of them."""
        return self.length is not None and self.offset == self.length


@dataclass(frozen=True, slots=True)
class Held:
    """An upload that is one request's.

    Attributes:
        epoch: what its writes ask for: whoever takes it over later raises it.
        died: the one who had it before died, or lost it: the volume may have more than is written
            down.
        ending: it is written down that this request may be giving the file its name.
    """

    upload: Upload
    epoch: int
    died: bool
    ending: bool = False


class UploadBusy(Exception):
    """Somebody else holds the upload; they were asked to let go."""


class UploadLost(Exception):
    """The upload was taken over, or is gone: what this request has done to it does not count."""


class UploadStore(Protocol):
    """Remembers uploads, for all gateways. Every method may be called from any thread.

    All of them raise DatabaseError when the store fails.
    """

    def add(self, upload: Upload, lifetime: float) -> Upload:
        """Remember a new upload for `lifetime` seconds; return it with its times.

        One that is known already stays as it is, and is returned.
        """

    def find(self, upload_id: str) -> Upload | None:
        """Return an upload, None where there is none."""

    def take(self, upload_id: str, lease: float, *, ending: bool) -> Held | None:
        """Make an upload this request's, for `lease` seconds; None where there is none.

        Args:
            ending: whether this request may give the file its name.

        Raises:
            UploadBusy: it is somebody's, who is asked to let go.
        """

    def renew(self, held: Held, lease: float) -> bool:
        """Hold it for `lease` seconds from now on; return whether somebody else waits for it.

        Raises:
            UploadLost: it is no longer this request's.
        """

    def keep(self, held: Held, upload: Upload, lifetime: float, *, release: bool) -> Upload:
        """Write down what became of it, and let go of it; return it with its times.

        Args:
            lifetime: seconds from now until it expires.
            release: False goes on holding it.

        Raises:
            UploadLost: it is no longer this request's; nothing was written.
        """

    def release(self, held: Held) -> None:
        """Let go of it as it was. A no-op where it is no longer this request's."""

    def drop(self, held: Held) -> None:
        """Forget it. A no-op where it is no longer this request's."""

    def expired(self, most: int) -> Sequence[str]:
        """Return ids of uploads whose time is over and that nobody holds."""

    def below(self, folder: str, path: str, most: int) -> Sequence[Upload]:
        """Return uploads that are under way to `path` of a folder, or to below it; "" is all."""
