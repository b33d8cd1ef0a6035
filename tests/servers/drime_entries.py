"""What a Drime account holds: entries, their bytes, uploads that are not finished.

Written from what the documentation of Drime's API and its public clients (pydrime, rclone) say of
the service. Whether it does one thing or another is a switch, for the live service has changed.
"""

from __future__ import annotations

import base64
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TRIMMED = re.compile(r"^[\s\ufeff\u200b\u200e]+|[\s\ufeff\u200b\u200e]+$")
"""What Laravel, which Drime is made with, cuts from the ends of every text it is sent."""

_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f/\\]")
_LONGEST = 255
"""Bytes of a name, as rclone has measured."""


@dataclass
class Switches:
    """How the service behaves. The defaults are the live service's where that is known.

    Attributes:
        most_per_page: a larger perPage is cut to it.
        honest_last_page: last_page is the last; else the next one, while there is one.
        repeat_last_page: a page beyond the last is the last again; else it is empty.
        never_ends_above: entries of a folder above which the last page never says that it is.
        refuse_duplicate_folders: a folder whose name is taken is a 422; else there are two.
        refuse_gone: deleting an entry that is gone is a 422, and nothing else is deleted either.
        largest_simple: bytes above which an upload must be in parts; None: any size.
        need_extension: registering an upload needs an extension.
        ranges: a download honours Range; else it comes whole with 200.
        redirect_downloads: a download is a redirect to the storage's host.
        link_seconds: for how long a link to the storage is good; None: until the file is gone, and
            the link does not say.
        trash_is_readable: what lies in the trash can be downloaded.
        search_finds: a query finds names that hold it; else it finds nothing.
        search_scoped: a query keeps to the folders asked for.
        order: orderBy is honoured.
        per_minute: requests a minute before 429; None: no limit.
        retry_after: seconds that 429 asks for.
        html_for_strangers: a wrong key is answered with a page of HTML and 200; else JSON and 401.
        incomplete: how many of the next uploads come to be without their users.
        short: how many of the next uploads lose their last byte.
        capacity: bytes of the account.
    """

    most_per_page: int = 200
    honest_last_page: bool = False
    repeat_last_page: bool = True
    never_ends_above: int = 1000
    refuse_duplicate_folders: bool = True
    refuse_gone: bool = True
    largest_simple: int | None = 5_000_000
    need_extension: bool = True
    ranges: bool = True
    redirect_downloads: bool = True
    link_seconds: int | None = 300
    trash_is_readable: bool = True
    search_finds: bool = True
    search_scoped: bool = True
    order: bool = True
    per_minute: int | None = None
    retry_after: int = 1
    html_for_strangers: bool = False
    incomplete: int = 0
    short: int = 0
    capacity: int = 1 << 50


class Refused(Exception):
    """The service says no.

    Args:
        status: HTTP's.
        message: what it says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Entry:
    """A folder or a file."""

    id: int
    name: str
    parent: int | None
    workspace: int
    content: Sequence[Path] | None
    """The files that hold its bytes, one after the other; None for a folder."""
    size: int = 0
    file_name: str = ""
    extension: str | None = None
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    deleted: float | None = None
    users: bool = True

    @property
    def is_folder(self) -> bool:
        return self.content is None

    @property
    def hash(self) -> str:
        return base64.b64encode(f"{self.id}|".encode()).decode().rstrip("=")

    def shown(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "file_name": self.file_name,
            "mime": None if self.is_folder else "application/octet-stream",
            "file_size": self.size,
            "parent_id": self.parent,
            "created_at": _moment(self.created),
            "updated_at": _moment(self.updated),
            "deleted_at": None if self.deleted is None else _moment(self.deleted),
            "type": "folder" if self.is_folder else "file",
            "extension": self.extension,
            "hash": self.hash,
            "url": None if self.is_folder else f"api/v1/file-entries/{self.id}",
            "workspace_id": self.workspace,
            "users": [{"id": 1, "email": "owner@example.org"}] if self.users else [],
        }


@dataclass
class Upload:
    """An upload in parts, or by one presigned request."""

    key: str
    name: str
    workspace: int
    parent: int | None
    parts: dict[int, tuple[Path, str]] = field(default_factory=dict)
    done: list[Path] | None = None


class Account:
    """All that one account holds. The API alone changes it; the storage adds parts and reads."""

    def __init__(self, switches: Switches) -> None:
        self.switches = switches
        self.entries: dict[int, Entry] = {}
        self.uploads: dict[str, Upload] = {}
        self.by_file_name: dict[str, Upload] = {}
        """All uploads, by the last part of their keys."""
        self.changes = 0
        """How often anything was changed."""
        self._children: dict[tuple[int, int | None], dict[int, Entry]] = {}
        self.fetched = 0
        """Bytes of downloads that were asked for."""
        self._last_id = 1000
        self._folder = tempfile.TemporaryDirectory(prefix="drime-double-")
        self._files = 0
        self.used = 0
        """Bytes of all files, those in the trash too."""

    def close(self) -> None:
        """Remove what was stored."""
        self._folder.cleanup()

    # -- bytes

    def new_file(self) -> Path:
        """Return the path of a file for some bytes."""
        self._files += 1
        return Path(self._folder.name, str(self._files))

    # -- looking

    def children(self, workspace: int, parents: Sequence[int | None]) -> Iterator[Entry]:
        """Yield what lies in the folders and is not in the trash."""
        for parent in parents:
            for entry in self._children.get((workspace, parent), {}).values():
                if entry.deleted is None:
                    yield entry

    def everything(self, workspace: int) -> Iterator[Entry]:
        """Yield all entries of a workspace that are not in the trash."""
        return (
            entry
            for entry in self.entries.values()
            if entry.workspace == workspace and entry.deleted is None
        )

    def by_hash(self, text: str) -> Entry:
        """Return the file of a hash. Raises Refused."""
        try:
            number = int(base64.b64decode(text + "=" * (-len(text) % 4)).decode().partition("|")[0])
        except ValueError:
            raise Refused(404, "There is no such file") from None
        entry = self.entries.get(number)
        if entry is None or entry.is_folder:
            raise Refused(404, "There is no such file")
        if entry.deleted is not None and not self.switches.trash_is_readable:
            raise Refused(404, "There is no such file")
        return entry

    def path(self, entry: Entry) -> str:
        """Return where an entry lies."""
        parts = [entry.name]
        while entry.parent is not None:
            entry = self.entries[entry.parent]
            parts.append(entry.name)
        return "/".join(reversed(parts))

    def tree(self, workspace: int = 0) -> dict[str, list[int]]:
        """Return the sizes of what lies at each path, -1 for a folder; several are duplicates."""
        found: dict[str, list[int]] = {}
        for entry in sorted(self.everything(workspace), key=lambda entry: entry.id):
            size = -1 if entry.is_folder else entry.size
            found.setdefault(self.path(entry), []).append(size)
        return found

    # -- changing

    def make_folder(self, name: str, workspace: int, parent: int | None) -> Entry:
        """Make a folder."""
        name = self._name(name)
        self._need_folder(parent)
        if self.switches.refuse_duplicate_folders and any(
            child.is_folder and child.name == name for child in self.children(workspace, [parent])
        ):
            raise Refused(422, "Folder with same name already exists.")
        return self._add(name, workspace, parent, None)

    def make_file(
        self,
        name: str,
        workspace: int,
        parent: int | None,
        content: Sequence[Path],
        *,
        file_name: str | None = None,
        extension: str | None = None,
    ) -> Entry:
        """Make a file of bytes that are there; a name that is taken is no obstacle."""
        name = self._name(name)
        self._need_folder(parent)
        size = sum(path.stat().st_size for path in content)
        if self.used + size > self.switches.capacity:
            raise Refused(422, "You have exhausted your allowed space of the plan.")
        entry = self._add(name, workspace, parent, content)
        entry.size = size
        entry.file_name = file_name or secrets.token_hex(16)
        entry.extension = extension
        if self.switches.incomplete > 0:
            self.switches.incomplete -= 1
            entry.users = False
        if self.switches.short > 0 and size:
            self.switches.short -= 1
            entry.size -= 1
        self.used += entry.size
        return entry

    def delete(self, ids: Sequence[int], *, forever: bool) -> None:
        """Delete entries, or put them into the trash."""
        if self.switches.refuse_gone and any(number not in self.entries for number in ids):
            raise Refused(422, "The selected entry ids is invalid.")
        for number in ids:
            entry = self.entries.get(number)
            if entry is None:
                continue
            if forever:
                self._forget(entry)
            else:
                self._trash(entry)

    def restore(self, ids: Sequence[int]) -> None:
        """Take entries out of the trash."""
        for number in ids:
            if (entry := self.entries.get(number)) is not None:
                entry.deleted = None
                self.changes += 1

    def move(self, ids: Sequence[int], destination: int | None) -> list[Entry]:
        """Put entries into another folder."""
        self._need_folder(destination)
        moved = [self._need(number) for number in ids]
        for entry in moved:
            del self._children[entry.workspace, entry.parent][entry.id]
            entry.parent, entry.updated = destination, time.time()
            self.changes += 1
            self._children.setdefault((entry.workspace, destination), {})[entry.id] = entry
        return moved

    def duplicate(self, ids: Sequence[int], destination: int | None) -> list[Entry]:
        """Copy files; beside the original a copy has another name."""
        copies = []
        for number in ids:
            entry = self._need(number)
            if entry.content is None:
                raise Refused(422, "folders are not copied here")
            name = f"{entry.name} - Copy" if destination == entry.parent else entry.name
            copies.append(self.make_file(name, entry.workspace, destination, entry.content))
        return copies

    def rename(self, number: int, name: str) -> Entry:
        """Give an entry another name."""
        entry = self._need(number)
        name = self._name(name)
        taken = self.children(entry.workspace, [entry.parent])
        if any(other.name == name and other.is_folder == entry.is_folder for other in taken):
            raise Refused(422, "An entry with this name already exists.")
        entry.name, entry.updated = name, time.time()
        self.changes += 1
        return entry

    def _add(
        self, name: str, workspace: int, parent: int | None, content: Sequence[Path] | None
    ) -> Entry:
        self._last_id += 1
        self.changes += 1
        entry = Entry(self._last_id, name, parent, workspace, content)
        self.entries[entry.id] = entry
        self._children.setdefault((workspace, parent), {})[entry.id] = entry
        return entry

    def _below(self, entry: Entry) -> list[Entry]:
        return [*self._children.get((entry.workspace, entry.id), {}).values()]

    def _forget(self, entry: Entry) -> None:
        for child in self._below(entry):
            self._forget(child)
        del self.entries[entry.id]
        self.changes += 1
        self.used -= entry.size
        del self._children[entry.workspace, entry.parent][entry.id]

    def _trash(self, entry: Entry) -> None:
        for child in self._below(entry):
            self._trash(child)
        entry.deleted = entry.deleted or time.time()
        self.changes += 1

    def _need(self, number: int) -> Entry:
        entry = self.entries.get(number)
        if entry is None or entry.deleted is not None:
            raise Refused(422, "The selected entry ids is invalid.")
        return entry

    def _need_folder(self, number: int | None) -> None:
        if number is None:
            return
        entry = self.entries.get(number)
        if entry is None or not entry.is_folder or entry.deleted is not None:
            raise Refused(422, "The selected parent id is invalid.")

    def _name(self, name: str) -> str:
        name = _TRIMMED.sub("", name)
        if not name or _UNSPEAKABLE.search(name):
            raise Refused(422, "The name is invalid.")
        if len(name.encode()) > _LONGEST:
            raise Refused(422, "The name must not be greater than 255 characters.")
        return name


def _moment(seconds: float) -> str:
    naive = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{naive.isoformat(timespec='microseconds')}Z"
