"""What restic prints with --json, as records.

The formats are those of restic's documentation ("JSON output" in its chapter on scripting), and
where 0.14 differs, what it prints: fewer fields, an error as Go's structure, and for some commands
(restore, check, prune, unlock) plain text instead. A field that a version lacks is None or 0. Kinds
of message that are not known here are left out, as restic asks its readers to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Fields = Mapping[str, Any]

_NANOSECONDS = re.compile(r"(\.\d{6})\d+")


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How far a backup is; totals grow until the scan has ended.

    Attributes:
        fraction: 0 to 1.
        seconds_left: by restic's guess; None where it makes none.
        errors: files that could not be read so far.
    """

    fraction: float
    files: int
    total_files: int
    bytes: int
    total_bytes: int
    seconds: int
    seconds_left: int | None
    errors: int
    current_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What a backup came to. Sizes are bytes.

    Attributes:
        snapshot: its id, of which 0.14 tells only the first 8 digits; "" where none was made.
        files, bytes: that the snapshot has.
        added: new data before compression, metadata included.
        added_packed: the same as it is stored; None before 0.17.
    """

    snapshot: str
    files: int
    bytes: int
    files_new: int
    files_changed: int
    files_unmodified: int
    added: int
    added_packed: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ItemError:
    """A file or folder that could not be read, or not be restored.

    Attributes:
        during: "archival", "scan", "restore" …; "" where restic does not say.
    """

    item: str
    message: str
    during: str = ""


@dataclass(frozen=True, slots=True)
class RestoreStatus:
    """How far a restore is (0.16 and newer)."""

    fraction: float
    files: int
    total_files: int
    bytes: int
    total_bytes: int
    seconds: int


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """What a restore says it did; on a full disk it claims files that it did not write."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot.

    Attributes:
        id: 64 hexadecimal digits.
        bytes, files: what the snapshot itself tells (0.17 and newer); None else.
    """

    id: str
    time: datetime
    paths: tuple[str, ...]
    host: str
    tags: tuple[str, ...]
    tree: str
    username: str = ""
    parent: str | None = None
    bytes: int | None = None
    files: int | None = None
    raw_time: str = ""

    @property
    def short_id(self) -> str:
        """The first 8 digits of its id, as restic shows it."""
        return self.id[:8]


@dataclass(frozen=True, slots=True)
class Stats:
    """What `restic stats` counts.

    Attributes:
        bytes: by the mode that was asked for.
        files: with folders and links; None where the mode does not count them.
    """

    bytes: int
    files: int | None
    snapshots: int


@dataclass(frozen=True, slots=True)
class Node:
    """An entry of a snapshot: `type` is "file", "dir", "symlink" …; size is bytes.

    Attributes:
        changed: when its content was, in nanoseconds since 1970; None where restic does not say.
    """

    path: str
    type: str
    size: int
    mode: int
    changed: int | None = None


@dataclass(frozen=True, slots=True)
class ForgetGroup:
    """What a policy keeps and removes of snapshots that belong together."""

    host: str
    paths: tuple[str, ...]
    tags: tuple[str, ...]
    keep: tuple[Snapshot, ...]
    remove: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """What `restic check` found (0.18 and newer)."""

    errors: int
    broken_packs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Initialized:
    """A repository that was made: its id."""

    id: str


@dataclass(frozen=True, slots=True)
class ExitError:
    """Why restic ends (0.17 and newer)."""

    code: int
    message: str


Message = (
    BackupStatus
    | BackupSummary
    | ItemError
    | RestoreStatus
    | RestoreSummary
    | Snapshot
    | Node
    | CheckSummary
    | Initialized
    | ExitError
)
"""What a line may be. `Stats` and lists are whole documents: see `stats`, `snapshots`, `groups`."""


def message(line: bytes | str) -> Message | None:
    """Return the record that a line is; None: plain text, or a kind that is not known."""
    text = line.decode(errors="surrogateescape") if isinstance(line, bytes) else line
    if not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    try:
        return _message(fields)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None  # a version that writes it in another way: its exit status still counts


def _message(fields: Fields) -> Message | None:
    match fields.get("message_type") or fields.get("struct_type"):
        case "status" if "files_restored" in fields or "bytes_restored" in fields:
            return _restore_status(fields)
        case "status":
            return _status(fields)
        case "summary" if "snapshot_id" in fields or "files_new" in fields:
            return _backup_summary(fields)
        case "summary" if "num_errors" in fields:
            broken = fields.get("broken_packs") or ()
            return CheckSummary(int(fields["num_errors"]), tuple(map(str, broken)))
        case "summary" if "files_restored" in fields or "total_files" in fields:
            return RestoreSummary(
                _number(fields, "files_restored"),
                _number(fields, "total_files"),
                _number(fields, "bytes_restored"),
                _number(fields, "total_bytes"),
            )
        case "error":
            return ItemError(
                str(fields.get("item") or ""),
                _error_text(fields.get("error", fields.get("message"))),
                str(fields.get("during") or ""),
            )
        case "exit_error":
            return ExitError(int(fields["code"]), str(fields["message"]))
        case "initialized":
            return Initialized(str(fields["id"]))
        case "snapshot":
            return snapshot(fields)
        case "node":
            return Node(
                str(fields["path"]),
                str(fields["type"]),
                _number(fields, "size"),
                _number(fields, "mode"),
                _nanoseconds(fields.get("mtime")),
            )
        case _:
            return None


def _nanoseconds(text: object) -> int | None:
    """Return a time such as "2024-02-02T17:32:46.258123456+01:00" without rounding it."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    try:
        whole = datetime.fromisoformat(f"{found[1]}{found[3]}")
    except ValueError:
        return None
    return int(whole.timestamp()) * 10**9 + int((found[2] or ".0")[1:10].ljust(9, "0"))


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


def _status(fields: Fields) -> BackupStatus | RestoreStatus:
    left = fields.get("seconds_remaining")
    return BackupStatus(
        _fraction(fields),
        _number(fields, "files_done"),
        _number(fields, "total_files"),
        _number(fields, "bytes_done"),
        _number(fields, "total_bytes"),
        _number(fields, "seconds_elapsed"),
        None if left is None else int(left),
        _number(fields, "error_count"),
        tuple(map(str, fields.get("current_files") or ())),
    )


def _restore_status(fields: Fields) -> RestoreStatus:
    return RestoreStatus(
        _fraction(fields),
        _number(fields, "files_restored"),
        _number(fields, "total_files"),
        _number(fields, "bytes_restored"),
        _number(fields, "total_bytes"),
        _number(fields, "seconds_elapsed"),
    )


def _backup_summary(fields: Fields) -> BackupSummary:
    packed = fields.get("data_added_packed")
    return BackupSummary(
        snapshot=str(fields.get("snapshot_id") or ""),
        files=_number(fields, "total_files_processed"),
        bytes=_number(fields, "total_bytes_processed"),
        files_new=_number(fields, "files_new"),
        files_changed=_number(fields, "files_changed"),
        files_unmodified=_number(fields, "files_unmodified"),
        added=_number(fields, "data_added"),
        added_packed=None if packed is None else int(packed),
        seconds=float(fields.get("total_duration") or 0.0),
    )


def _number(fields: Fields, name: str) -> int:
    return int(fields.get(name) or 0)


def _fraction(fields: Fields) -> float:
    return max(0.0, min(1.0, float(fields.get("percent_done") or 0.0)))


def _error_text(error: object) -> str:
    if isinstance(error, dict):
        if isinstance(error.get("message"), str):
            return str(error["message"])
        # 0.14 writes Go's own structure: {"Op": "open", "Path": "/x", "Err": 13}.
        number = error.get("Err")
        parts = [str(error[key]) for key in ("Op", "Path") if error.get(key)]
        if isinstance(number, int):
            parts.append(f"error {number}")
        return " ".join(parts) or "it could not be read"
    return str(error) if error else "it could not be read"


def snapshot(fields: Fields) -> Snapshot:
    """Return the snapshot that restic describes.

    Raises:
        ValueError, KeyError: it is none.
    """
    identity = str(fields["id"])
    if not re.fullmatch(r"[0-9a-f]{64}", identity):
        raise ValueError(f"{identity!r} is no snapshot's id")
    summed = fields.get("summary") or {}
    parent = fields.get("parent")
    raw = str(fields["time"])
    return Snapshot(
        id=identity,
        time=datetime.fromisoformat(_NANOSECONDS.sub(r"\1", raw)),
        paths=tuple(map(str, fields.get("paths") or ())),
        host=str(fields.get("hostname") or ""),
        tags=tuple(map(str, fields.get("tags") or ())),
        tree=str(fields.get("tree") or ""),
        username=str(fields.get("username") or ""),
        parent=None if not parent else str(parent),
        bytes=summed.get("total_bytes_processed"),
        files=summed.get("total_files_processed"),
        raw_time=raw,
    )


def snapshots(document: str | bytes) -> list[Snapshot]:
    """Return what `restic snapshots --json` printed, oldest first.

    Raises:
        ValueError: it is something else.
    """
    found = json.loads(document or "null") or []
    try:
        return sorted((snapshot(each) for each in found), key=lambda each: each.time)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no list of snapshots: {error}") from error


def groups(document: str | bytes) -> list[ForgetGroup]:
    """Return what `restic forget --json` printed; nothing where ids were named.

    Raises:
        ValueError: it is something else.
    """
    found = json.loads(document or "null") or []
    try:
        return [
            ForgetGroup(
                str(each.get("host") or ""),
                tuple(map(str, each.get("paths") or ())),
                tuple(map(str, each.get("tags") or ())),
                tuple(snapshot(one) for one in each.get("keep") or ()),
                tuple(snapshot(one) for one in each.get("remove") or ()),
            )
            for each in found
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no answer to forget: {error}") from error


def stats(document: str | bytes) -> Stats:
    """Return what `restic stats --json` printed.

    Raises:
        ValueError: it is something else.
    """
    fields = json.loads(document)
    if not isinstance(fields, dict) or "total_size" not in fields:
        raise ValueError("no statistics")
    files = fields.get("total_file_count")
    return Stats(
        int(fields["total_size"]), None if files is None else int(files),
        int(fields.get("snapshots_count") or 1),
    )  # fmt: skip


@dataclass
class Transcript:
    """What a run printed, as far as it is needed to tell how it went.

    Attributes:
        said: the last lines of standard error that are no messages, and messages of errors.
        errors: the first items that failed.
        error_count: how many did.
    """

    said: list[str] = field(default_factory=list)
    errors: list[ItemError] = field(default_factory=list)
    error_count: int = 0
    most: int = 50

    def say(self, line: str) -> None:
        """Keep a line, of very many the last."""
        self.said.append(line[:2000])
        if len(self.said) > self.most:
            del self.said[: -self.most]

    def add_error(self, error: ItemError) -> None:
        """Count an item that failed, and keep the first."""
        self.error_count += 1
        if len(self.errors) < self.most:
            self.errors.append(error)
