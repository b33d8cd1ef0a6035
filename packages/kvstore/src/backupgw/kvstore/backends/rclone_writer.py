"""Values on their way to an rclone remote.

A value of moderate size is kept in a file of this machine until it is committed, and handed over
whole: rclone then knows its length, can repeat what broke, and so can we when rclone itself died. A
larger one is streamed once it has outgrown that; the remote has to take it at the first attempt.

Where a remote shows what is being written, the value goes to a temporary name of the kernel's and
is renamed; elsewhere it goes straight to its name, and is seen when its last byte has arrived.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from typing import IO
from urllib.parse import quote

from ..layers.retry_schedule import Schedule
from ..names import RESERVED_PREFIX, KernelPath
from .base import CHUNK, Writer
from .errors import (
    BackendConnectionError,
    BackendError,
    ObjectExists,
    ObjectNotFound,
    StorageFull,
)
from .part_transfers import Attempts
from .plan import Plan
from .rclone_calls import AS_SENT, AS_TOLD, LONG, Calls
from .rest_upload import Refused, Upload

TEMPORARY = f"{RESERVED_PREFIX}-tmp-"
"""How the name of a value begins that is being written."""


class RcloneWriter(Writer):
    """Gathers a value and hands it over.

    Args:
        calls: of the place.
        plan: what `open_writer` was told.
        target: where the bytes go: the item itself, or a temporary name.
        place: makes the target the item; called when the target is complete.
        clear: raises what stands against the item; called before it becomes visible.
        spool: bytes up to which a value is kept here.
        schedule: how often and how long it is handed over.
    """

    def __init__(
        self,
        calls: Calls,
        plan: Plan,
        target: str,
        place: Callable[[], None] | None,
        clear: Callable[[], None],
        *,
        spool: int,
        schedule: Schedule | None = None,
    ) -> None:
        self._calls = calls
        self._plan = plan
        self._name = plan.name
        self._target = target
        self._place = place
        self._clear = clear
        self._spool = spool
        self._attempts = Attempts(schedule or Schedule(), plan.name)
        self._digest = hashlib.sha256() if plan.expected_hash is not None else None
        self._count = 0
        self._kept: IO[bytes] | None = None
        self._upload: Upload | None = None
        self._boundary = secrets.token_hex(16)
        self._arrived = False
        self._ended = False

    @property
    def offset(self) -> int:
        return self._count

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            raise BackendError(f"{self._name}: the write has ended already")
        size = memoryview(data).nbytes
        if not size:
            return
        if self._digest is not None:
            self._digest.update(data)
        self._count += size
        self._plan.check_room(self._count)
        if self._upload is None and self._count > self._spool:
            self._begin()
        if self._upload is not None:
            self._send(data)
        else:
            self._keep(data)

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        try:
            if self._kept is None:
                self._kept = tempfile.NamedTemporaryFile(dir=self._calls.process.folder)  # noqa: SIM115
            self._kept.write(data)
        except OSError as error:
            raise StorageFull(
                f"{self._name}: no room for it in this machine's temporary folder: {error.strerror}"
            ) from error

    def _begin(self) -> None:
        """Stream from here on; what was kept goes first."""
        self._attempts.result(self._clear)
        self._upload = self._calls.upload(self._target, self._boundary)
        filename = quote(self._target.rpartition("/")[2], safe="")
        self._send(
            f"--{self._boundary}\r\n"
            f"Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''{filename}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n".encode()
        )
        if self._kept is not None:
            self._kept.seek(0)
            while block := self._kept.read(CHUNK):
                self._send(block)
            self._drop()

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        assert self._upload is not None
        try:
            self._upload.write(data)
        except Refused as refused:
            error = self._calls.refusal(refused.answer, self._name)
            raise _again(error) from refused

    def check(self) -> None:
        if self._ended:
            raise BackendError(f"{self._name}: the write has ended already")
        digest = self._digest.hexdigest() if self._digest is not None else None
        self._plan.check_content(self._count, digest)

    def commit(self) -> None:
        self.check()
        if not self._arrived:
            self._attempts.result(self._refuse_existing)
            if self._upload is None:
                self._attempts.result(self._hand_over)
            else:
                self._finish()
            self._arrived = True
        if self._place is not None:
            self._attempts.result(self._refuse_existing)
            self._attempts.land(self._place, self._is_gone)
        self._ended = True
        self._drop()

    def _refuse_existing(self) -> None:
        if self._plan.if_absent and self._calls.item(self._name) is not None:
            raise ObjectExists(self._name)

    def _hand_over(self) -> None:
        self._clear()
        if self._kept is None:
            self._keep(b"")
        assert self._kept is not None
        self._kept.flush()
        folder, file = os.path.split(self._kept.name)
        remote = self._calls.remote
        self._calls.ask(
            "operations/copyfile",
            self._name,
            {
                "srcFs": ":local:/",
                "srcRemote": f"{folder}/{file}".lstrip("/"),
                "dstFs": remote.fs,
                "dstRemote": remote.path(self._target),
                "_config": AS_SENT if self._place is None else AS_TOLD,
            },
            timeout=LONG,
        )

    def _is_gone(self) -> bool:
        """Whether the temporary name is: an attempt to rename it has succeeded."""
        return self._calls.item(self._target) is None

    def _finish(self) -> None:
        assert self._upload is not None
        self._send(f"\r\n--{self._boundary}--\r\n".encode())
        upload, self._upload = self._upload, None
        try:
            self._calls.uploaded(upload.finish(), self._name)
        except BackendConnectionError:
            raise
        except BackendError as error:
            self._ended = True
            raise _again(error) from error

    def abort(self) -> None:
        if self._ended:
            self._drop()
            return
        self._ended = True
        self._attempts.give_up()
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.abort()
        if self._place is not None and (self._arrived or upload is not None):
            with contextlib.suppress(BackendError):  # rclone may have removed it, or `reap` will
                self._calls.ask("operations/deletefile", "", self._calls.at(self._target))
        self._drop()

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with contextlib.suppress(OSError):
                kept.close()


def temporary(name: str) -> KernelPath:
    """Return a name for a value that is being written, beside its item."""
    folder, slash, _ = name.rpartition("/")
    return KernelPath(f"{folder}{slash}{TEMPORARY}{secrets.token_hex(8)}")


def _again(error: BackendError) -> BackendError:
    """A stream cannot be repeated here, but whoever has the bytes can send them again. What another
    one wrote to the name meanwhile counts as damage too, so nothing is removed."""
    if "corrupted on transfer" in str(error):
        error.retryable = True
    if isinstance(error, ObjectNotFound):
        return BackendError(f"{error}: it cannot be written there")
    return error
