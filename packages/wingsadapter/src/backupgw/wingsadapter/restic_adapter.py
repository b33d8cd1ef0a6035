"""The adapter `restic`: a backup is a snapshot with the tags of its UUID and of its server's."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from backupgw.runtime.restic import (
    BackupStatus,
    Message,
    ResticError,
    ResticStopped,
    Snapshot,
)

from .adapter import (
    AdapterError,
    BackupOutcome,
    BackupRequest,
    BackupUnknown,
    Control,
    Found,
    Progress,
    RestoreRequest,
    Stopped,
)
from .archive import ArchiveError
from .archive import Progress as Done
from .archive_extract import extract_archive
from .chosen_paths import ChosenPaths
from .dump_gaps import DumpGaps
from .ignore import IgnoreError, IgnoreRules, read_rules
from .pouring import pour
from .repositories import Held, Repositories
from .restic_excludes import excludes
from .server_tree import open_staged
from .snapshots import BACKUP_TAG, SERVER_TAG, SnapshotIndex, tagged
from .staging_swap import AREA

log = logging.getLogger(__name__)

_MOST_WARNINGS = 20


class ResticAdapter:
    """See `adapter.Adapter`."""

    name = "restic"

    def __init__(self, repositories: Repositories, index: SnapshotIndex) -> None:
        self._repositories = repositories
        self._index = index

    def close(self) -> None:
        """Nothing is held here."""

    def create(self, request: BackupRequest, control: Control) -> BackupOutcome:
        """Make a snapshot, or find the one that an earlier attempt has made."""
        held = self._repositories.of(request.server)
        with _translated(), held.gate.together(control.stop):
            held.ensure(control.stop)
            self._index.look(held, control.stop)
            before = self._index.of_backup(request.backup, request.server)
            if before:
                log.info("backup %s: its snapshot was made already", request.backup)
                return self._outcome(before[-1], ())
            added, warnings = self._back_up(held, request, control)
            self._index.look(held, control.stop)
            made = self._index.of_backup(request.backup, request.server)
        if not made:
            raise AdapterError("restic has made a snapshot that it does not list", retryable=True)
        return self._outcome(made[-1], warnings, added)

    def _back_up(
        self, held: Held, request: BackupRequest, control: Control
    ) -> tuple[tuple[int, int], tuple[str, ...]]:
        with _opened(request.root) as root, _exclude_file(request, root) as patterns:
            result = held.restic.backup(
                [request.root],
                tags=[f"{BACKUP_TAG}{request.backup}", f"{SERVER_TAG}{request.server}"],
                host=request.server,
                exclude_file=f"/dev/fd/{patterns}",
                descriptors=[patterns],
                confined_to=[root] if self._repositories.confine else None,
                on_message=lambda message: _tell(message, control),
                stop=control.stop,
            )
        warnings = [f"{error.item}: {error.message}" for error in result.errors[:_MOST_WARNINGS]]
        if not result.complete and not warnings:
            warnings.append("some files could not be read")
        added = result.summary.added_packed
        return (
            (result.summary.bytes, result.summary.added if added is None else added),
            tuple(warnings),
        )

    def _outcome(
        self,
        snapshot: Snapshot,
        warnings: tuple[str, ...],
        sizes: tuple[int, int] | None = None,
    ) -> BackupOutcome:
        size = sizes[0] if sizes else snapshot.bytes or self._index.size_of(snapshot) or 0
        return BackupOutcome(
            checksum=snapshot.id,
            checksum_type="restic",
            size=size,
            added=sizes[1] if sizes else None,
            warnings=warnings,
        )

    def find(self, request: RestoreRequest, control: Control) -> Found:
        """Find the snapshot, and what it takes."""
        with _translated():
            snapshot, held = self._snapshot(request, control)
            size = self._index.size_of(snapshot)
            if size is None:
                size = held.restic.stats(snapshot.id, locking=False, stop=control.stop).bytes
        return Found(None if request.paths else size, tagged(snapshot, SERVER_TAG))

    def unpack(self, request: RestoreRequest, target: str, control: Control) -> None:
        """Restore what lay below the server's folder, whichever server that was."""
        with _translated():
            snapshot, held = self._snapshot(request, control)
            if len(snapshot.paths) != 1:
                raise AdapterError(f"snapshot {snapshot.short_id} is not of one folder")
            size = self._index.size_of(snapshot)
            chosen = ChosenPaths(request.paths)

            def tell(done: Done) -> None:
                control.check()
                fraction = min(done.bytes / size, 1.0) if size and not request.paths else None
                control.progress(Progress(fraction, done.bytes, size, done.files))

            # Not `restic restore`: it opens each file by its path, and whoever owns the server can
            # put links into a folder that it is writing to. What it dumps is unpacked by
            # descriptors, which lead nowhere else.
            below = [os.fsencode(name) for name in snapshot.paths[0].split("/") if name]
            with held.gate.together(control.stop), _staged(target) as folder:
                unpacked = pour(
                    lambda write: held.restic.dump_tar(
                        snapshot.id, snapshot.paths[0], write, stop=control.stop
                    ),
                    lambda source: extract_archive(
                        source, folder, owner=None, wanted=chosen, tell=tell, packed=False,
                        below=below,
                    ),
                )  # fmt: skip
                with DumpGaps(folder, below) as gaps:
                    held.restic.list_nodes(snapshot.id, gaps.take, stop=control.stop)
        if unpacked.bare or gaps.left_out:
            log.warning(
                "backup %s: not brought back are %d extended attributes, which the disk does not "
                "take, and %d pipes, sockets and devices",
                request.backup, unpacked.bare, gaps.left_out,
            )  # fmt: skip
        if missing := chosen.missing:
            raise AdapterError(f"{missing[0]} is not in the backup")

    def _snapshot(self, request: RestoreRequest, control: Control) -> tuple[Snapshot, Held]:
        server = None if request.cross_server else request.server
        found = self._index.of_backup(request.backup, server)
        if not found:
            # Another node may have made it a moment ago.
            self._index.look(self._repositories.of(request.server), control.stop)
            found = self._index.of_backup(request.backup, server)
        if not found:
            raise BackupUnknown(f"there is no snapshot of backup {request.backup}")
        snapshot = found[-1]
        return snapshot, self._repositories.of(tagged(snapshot, SERVER_TAG) or request.server)

    def delete(self, server: str, backup: str) -> bool:
        """Show the snapshot no longer, and note that it is to be removed."""
        with _translated():
            found = self._index.of_backup(backup, server)
        if found:
            self._index.hide(found, self._repositories.of(server).name)
        return bool(found)


def check_rules(text: str) -> IgnoreRules:
    """Return the rules that a text stands for.

    Raises:
        IgnoreError: no backup can be made with it.
    """
    return IgnoreRules.parse(text)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Let what restic and the disk say leave as an AdapterError."""
    try:
        yield
    except ResticStopped as error:
        raise Stopped(str(error)) from error
    except ResticError as error:
        raise AdapterError(str(error), retryable=error.retryable) from error
    except (ArchiveError, IgnoreError) as error:
        raise AdapterError(str(error)) from error
    except OSError as error:
        raise AdapterError(f"{error.filename or 'the disk'}: {error.strerror}") from error


@contextlib.contextmanager
def _opened(root: str) -> Iterator[int]:
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AdapterError(f"the server's folder {root}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _staged(target: str) -> Iterator[int]:
    descriptor = open_staged(target)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _exclude_file(request: BackupRequest, root: int) -> Iterator[int]:
    """Yield a descriptor of a file without a name that holds the patterns for restic."""
    rules = check_rules(request.ignore) if request.ignore.strip() else read_rules(root)
    path = os.fsencode(request.root)
    found = excludes(rules, root, path)
    if found.left_in:
        log.warning(
            "%s: %d entries are in the backup although the rules leave them out: too many to name",
            request.root, found.left_in,
        )  # fmt: skip
    own = excludes(IgnoreRules.parse(f"/{AREA}\n"), root, path)
    descriptor = os.memfd_create("excludes", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(found.file() + own.file())
        yield descriptor
    finally:
        os.close(descriptor)


def _tell(message: Message, control: Control) -> None:
    if isinstance(message, BackupStatus):
        control.progress(
            Progress(
                message.fraction if message.total_bytes else None,
                message.bytes,
                message.total_bytes or None,
                message.files,
                message.total_files or None,
                message.seconds_left,
            )
        )
