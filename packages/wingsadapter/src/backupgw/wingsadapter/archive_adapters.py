"""The adapters `wings` and `s3`: both make a tar.gz; one keeps it here, the other uploads it."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from .adapter import (
    AdapterError,
    BackupOutcome,
    BackupRequest,
    BackupUnknown,
    Control,
    Found,
    Part,
    Progress,
    RestoreRequest,
)
from .archive import ArchiveError, Made
from .archive import Progress as Done
from .archive_extract import extract_archive, inspect_archive
from .chosen_paths import ChosenPaths
from .download_source import ANYWHERE_PUBLIC, Allowed, DownloadError, fetch
from .downloads import label_of
from .ignore import IgnoreError, IgnoreRules, read_rules
from .local_archives import LocalArchives
from .part_upload import PartPlan, UploadError, upload_parts
from .server_tree import FOLDER, open_staged
from .staging_swap import AREA
from .wings_file import Compression

log = logging.getLogger(__name__)

PLAN_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between questions to the Panel, before the attempt is given up."""


_NO_AREA = IgnoreRules.parse(f"/{AREA}")
"""A restore that is under way is no part of a server; as the last line, nothing takes it back."""


class WingsAdapter:
    """`wings`: archives kept in the node's backup folder.

    Args:
        archives: the folder.
        compression: how hard.
    """

    name = "wings"

    def __init__(
        self, archives: LocalArchives, *, compression: Compression = Compression.BEST_SPEED
    ) -> None:
        self._archives = archives
        self._compression = compression

    def create(self, request: BackupRequest, control: Control) -> BackupOutcome:
        """See `Adapter`. An archive of an earlier attempt is replaced once the new one is whole."""
        made = make(self._archives, request, control, self._compression)
        return BackupOutcome(made.sha1, "sha1", made.size, warnings=_warnings(made))

    def find(self, request: RestoreRequest, control: Control) -> Found:
        """See `Adapter`. The whole archive is read: what is damaged is found here."""
        with _told():
            try:
                server = server_of(self._archives.label(request.backup))
                if server not in (None, request.server) and not request.cross_server:
                    raise BackupUnknown(f"backup {request.backup} is another server's")
                size = inspect(self._archives, request, control)
            except FileNotFoundError:
                raise BackupUnknown(f"there is no archive of backup {request.backup}") from None
        return Found(size, server)

    def unpack(self, request: RestoreRequest, target: str, control: Control) -> None:
        """See `Adapter`."""
        unpack(self._archives, request, target, control)

    def delete(self, server: str, backup: str) -> bool:
        """See `Adapter`."""
        with _told():
            try:
                whose = server_of(self._archives.label(backup))
            except (FileNotFoundError, ArchiveError):
                whose = None  # nothing, or something broken: away with it
            if whose not in (None, server):
                log.warning("backup %s is not server %s's, and stays", backup, server)
                return False
            return self._archives.delete(backup)

    def delete_all(self, server: str) -> int:
        """Remove all archives that say that they are a server's; return how many there were."""
        count = 0
        with _told():
            for backup in self._archives.uuids():
                try:
                    whose = server_of(self._archives.label(backup))
                except (FileNotFoundError, ArchiveError):
                    continue
                if whose == server:
                    count += self._archives.delete(backup)
        return count

    def close(self) -> None:
        """See `Adapter`."""


class PartSource(Protocol):
    """The Panel, as far as uploads go."""

    def upload_plan(self, backup: str, size: int) -> object:
        """Return the answer to `GET /api/remote/backups/{backup}?size=…`, decoded.

        Raises:
            AdapterError: the Panel refuses, or is away.
        """


class S3Adapter:
    """`s3`: archives in a bucket that the Panel alone has the keys of.

    Args:
        panel: says where parts go.
        spool: where an archive lies while it is on its way; emptied at the start.
        allowed: where archives to be restored may come from.
        compression: how hard.
    """

    name = "s3"

    def __init__(
        self,
        panel: PartSource,
        spool: LocalArchives,
        *,
        allowed: Allowed = ANYWHERE_PUBLIC,
        compression: Compression = Compression.BEST_SPEED,
    ) -> None:
        self._panel = panel
        self._spool = spool
        self._allowed = allowed
        self._compression = compression
        with _told():
            for backup in {*spool.uuids(), *spool.leftovers()}:
                spool.delete(backup)

    def create(self, request: BackupRequest, control: Control) -> BackupOutcome:
        """See `Adapter`."""
        with _told():
            try:
                made = make(self._spool, request, control, self._compression)
                plan = self._plan(request.backup, made.size, control)
                parts = self._upload(request.backup, made, plan, control)
            finally:
                self._spool.delete(request.backup)
        return BackupOutcome(made.sha1, "sha1", made.size, parts, warnings=_warnings(made))

    def _plan(self, backup: str, size: int, control: Control) -> PartPlan:
        """Ask the Panel; for some seconds again, since a new backup may not be there for it yet."""
        for pause in (*PLAN_PAUSES, None):
            try:
                return PartPlan.from_answer(self._panel.upload_plan(backup, size), size)
            except AdapterError as error:
                if pause is None or not error.retryable:
                    raise
                log.info("the Panel is asked again where backup %s goes: %s", backup, error)
                _wait(control, pause)
        raise AssertionError("unreachable")

    def _upload(self, backup: str, made: Made, plan: PartPlan, control: Control) -> Sequence[Part]:
        clock = _Clock()

        def tell(done: int) -> None:
            control.check()
            fraction = done / made.size
            left = clock.left(fraction)
            control.progress(Progress(fraction, done, made.size, made.files, made.files, left))

        archive = self._spool.open(backup)
        try:
            sent = upload_parts(archive, made.size, plan, tell=tell)
        finally:
            os.close(archive)
        return [Part(part.etag, part.part_number) for part in sent]

    def find(self, request: RestoreRequest, control: Control) -> Found:
        """See `Adapter`. The archive is fetched here, since its address is good for minutes."""
        url = request.download_url
        if not url:
            raise AdapterError("a restore from s3 needs a download_url")

        def tell(done: int, total: int | None) -> None:
            control.check()
            control.progress(Progress(None, done, total))

        with _told():
            self._spool.store(
                request.backup,
                lambda write: fetch(
                    url,
                    write,
                    allowed=self._allowed,
                    tell=tell,
                    pause=lambda seconds: _wait(control, seconds),
                ),
            )
            try:
                server = server_of(self._spool.label(request.backup))
                if server not in (None, request.server) and not request.cross_server:
                    raise BackupUnknown(f"backup {request.backup} is another server's")
                return Found(inspect(self._spool, request, control), server)
            except BaseException:
                self._spool.delete(request.backup)
                raise

    def unpack(self, request: RestoreRequest, target: str, control: Control) -> None:
        """See `Adapter`."""
        with _told():
            try:
                unpack(self._spool, request, target, control)
            finally:
                self._spool.delete(request.backup)

    def delete(self, server: str, backup: str) -> bool:  # noqa: ARG002 - the Panel's affair
        """See `Adapter`. The Panel removes the archive from its bucket itself."""
        with _told():
            self._spool.delete(backup)
        return False

    def close(self) -> None:
        """See `Adapter`."""


# -- what both do


def _wait(control: Control, seconds: float) -> None:
    """Wait, unless it is to stop. Raises Stopped."""
    stop = select.poll()
    stop.register(control.stop.fileno(), select.POLLIN)
    stop.poll(seconds * 1000)
    control.check()


def make(
    archives: LocalArchives, request: BackupRequest, control: Control, compression: Compression
) -> Made:
    """Make an archive of a server's folder. Raises AdapterError, Stopped."""

    def tell(done: Done) -> None:
        control.check()
        control.progress(Progress(None, done.bytes, None, done.files))

    with _told():
        root = os.open(request.root, FOLDER)
        try:
            rules = IgnoreRules.parse(request.ignore) if request.ignore else read_rules(root)
            rules = IgnoreRules((*rules.rules, *_NO_AREA.rules))
            return archives.make(
                request.backup,
                root,
                rules,
                compression=compression,
                label=label_of(request.server),
                tell=tell,
            )
        finally:
            os.close(root)


def inspect(archives: LocalArchives, request: RestoreRequest, control: Control) -> int:
    """Read a whole archive; return what its files take.

    Raises:
        ArchiveError: it is damaged or unsafe.
        AdapterError: a path that is wanted is not in it.
    """
    chosen = ChosenPaths(request.paths)

    def tell(done: Done) -> None:
        control.check()
        control.progress(Progress(None, done.bytes, None, done.files))

    with open(archives.open(request.backup), "rb", buffering=0) as file:
        held = inspect_archive(file, wanted=chosen, tell=tell)
    if missing := chosen.missing:
        raise AdapterError(f"the backup has no {missing[0]!r}")
    return held.content


def unpack(archives: LocalArchives, request: RestoreRequest, target: str, control: Control) -> None:
    """Unpack an archive. Raises AdapterError, Stopped."""

    def tell(done: Done) -> None:
        control.check()
        control.progress(Progress(None, done.bytes, None, done.files))

    with _told():
        folder = open_staged(target)
        try:
            with open(archives.open(request.backup), "rb", buffering=0) as file:
                extract_archive(
                    file, folder, owner=None, wanted=ChosenPaths(request.paths), tell=tell
                )
        except FileNotFoundError:
            raise BackupUnknown(f"there is no archive of backup {request.backup}") from None
        finally:
            os.close(folder)


def server_of(label: str) -> str | None:
    """Return whose an archive is; None where it does not say (Wings' own do not)."""
    name, colon, server = label.partition(":")
    return server if colon and name == "server_uuid" else None


def _warnings(made: Made) -> tuple[str, ...]:
    if not made.changed_count:
        return ()
    named = ", ".join(made.changed[:3])
    more = f" and {made.changed_count - 3} more" if made.changed_count > 3 else ""
    return (f"changed while they were read: {named}{more}",)


@contextmanager
def _told() -> Iterator[None]:
    """Raise what goes wrong as AdapterError."""
    try:
        yield
    except (ArchiveError, DownloadError, IgnoreError) as error:
        raise AdapterError(str(error)) from error
    except UploadError as error:
        raise AdapterError(str(error), retryable=True) from error
    except OSError as error:
        raise AdapterError(error.strerror or str(error)) from error


class _Clock:
    """Guesses how long something will go on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()

    def left(self, fraction: float) -> float | None:
        if fraction < 0.01:
            return None
        return (self._clock() - self._begun) * (1 - fraction) / fraction
