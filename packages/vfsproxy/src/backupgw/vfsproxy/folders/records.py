"""The records: folders, shares, snapshots, limits."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from backupgw.kvstore.ledger import Limit
from backupgw.runtime.authorisation import Action


class Kind(enum.StrEnum):
    """What somebody is whom a folder can belong to, or be shared with."""

    USER = "user"
    GROUP = "group"


class Status(enum.StrEnum):
    """Where a folder stands in its life; the words are those of Backend.AI."""

    READY = "ready"
    PERFORMING = "performing"
    """A task is making or changing it: it can be read, not written."""
    CLONING = "cloning"
    """It is being made from another."""
    ERROR = "error"
    DELETE_PENDING = "delete-pending"
    """Deleted, and can be restored."""
    DELETE_ONGOING = "delete-ongoing"
    DELETE_COMPLETE = "delete-complete"
    DELETE_ERROR = "delete-error"

    @property
    def readable(self) -> bool:
        """Whether its files can be read."""
        return self in (Status.READY, Status.PERFORMING)

    @property
    def writable(self) -> bool:
        """Whether its files can be changed."""
        return self is Status.READY


class Permission(enum.StrEnum):
    """What somebody may do with a folder; each includes those before it."""

    READ_ONLY = "ro"
    READ_WRITE = "rw"
    """Add files and replace them; remove and rename none."""
    READ_WRITE_DELETE = "rwd"
    OWNER = "owner"
    """All of it, and say who else may what."""

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(Permission).index(self)

    def includes(self, other: Permission) -> bool:
        """Whether whoever has this one may do what `other` allows."""
        return self.rank >= other.rank

    @property
    def actions(self) -> Action:
        """What a token or a rule has to allow for it."""
        return _ACTIONS[self]

    @property
    def letters(self) -> str:
        """What the kernel's layer of permissions calls it."""
        return _LETTERS[self]


_READ = Action.OPEN | Action.LIST | Action.LOAD
_WRITE = _READ | Action.ADD | Action.REPLACE
_ACTIONS = {
    Permission.READ_ONLY: _READ,
    Permission.READ_WRITE: _WRITE,
    Permission.READ_WRITE_DELETE: _WRITE | Action.DELETE,
    Permission.OWNER: _WRITE | Action.DELETE | Action.MANAGE,
}
_LETTERS = {
    Permission.READ_ONLY: "lr",
    Permission.READ_WRITE: "lrwW",
    Permission.READ_WRITE_DELETE: "lrwWD",
    Permission.OWNER: "lrwWD",
}


@dataclass(frozen=True, slots=True)
class Holder:
    """A user or a group as the owner of folders."""

    kind: Kind
    name: str

    @property
    def scope(self) -> str:
        """What the ledger calls its account."""
        return f"vfs:{self.kind}:{self.name}"

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a folder or an owner may hold; None is without limit."""

    bytes: int | None = None
    files: int | None = None

    def of_ledger(self) -> Limit:
        """Return what the ledger is told."""
        return Limit(hard_bytes=self.bytes, hard_objects=self.files)


@dataclass(frozen=True, slots=True)
class Folder:
    """A virtual folder as the database has it.

    Attributes:
        id: 32 hexadecimal digits.
        path: of its content in the volume.
        generation: changes when what counts for a write under way changes: owner, end, content.
        group_permission: what the members of the group may do that it belongs to.
        mode: permission bits of the folder on disk, where somebody asked for some.
        source: the folder that it is being cloned from.
        job: the task that works on it.
        reason: why its status is an error.
    """

    id: str
    name: str
    holder: Holder
    volume: str
    path: str
    status: Status
    generation: int
    group_permission: Permission
    mode: int | None
    limits: Limits
    creator: str
    created: float
    changed: float
    deleted: float | None = None
    expires: float | None = None
    source: str | None = None
    job: str | None = None
    reason: str | None = None

    @property
    def scope(self) -> str:
        """What the ledger calls its account."""
        return f"vfs:folder:{self.id}"

    @property
    def scopes(self) -> tuple[str, ...]:
        """The accounts that its files count towards."""
        return (self.scope, self.holder.scope)

    @property
    def staging(self) -> str:
        """Where in the volume its uploads are gathered."""
        return f"staging/{self.id}"

    @property
    def snapshots(self) -> str:
        """Where in the volume its snapshots lie, where the volume has no native ones."""
        return f"snapshots/{self.id}"


@dataclass(frozen=True, slots=True)
class Share:
    """A folder shared with a user or a group."""

    folder: str
    subject: Holder
    permission: Permission
    created: float
    creator: str


def path_of(folder_id: str, root: str = "folders") -> str:
    """Return where a new folder's content lies in its volume: spread, as Backend.AI does it."""
    return f"{root}/{folder_id[:2]}/{folder_id[2:4]}/{folder_id[4:]}"
