"""What is remembered of each configured provider: that its container was there, its last test, how
many requests went to its service.

One JSON file a provider in the gateway's state folder, changed whole or not at all by one process
at a time. It holds no secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backupgw.runtime.command import CommandError

from .calls import CallLog, read_logs
from .journal import FileJournal

Record = dict[str, Any]
MONTHS = 24
"""Months of which the requests are remembered."""


class ProviderState:
    """What is remembered of one provider.

    Args:
        folder: the gateway's state folder.
        name: the provider's.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / "providers"
        self._path = self._folder / f"{name}.json"
        self._name = name

    def journal(self) -> FileJournal:
        """Return the provider's interrupted uploads."""
        return FileJournal(self._folder / f"{self._name}.uploads")

    def call_log(self) -> CallLog:
        """Return where another process notes the requests that it sends."""
        return CallLog(self._calls)

    def logged_calls(self) -> dict[str, int]:
        """Return what was noted by processes that have ended; the next time it is not there."""
        return read_logs(self._calls)

    @property
    def _calls(self) -> Path:
        return self._folder / f"{self._name}.requests"

    def forget_container(self) -> None:
        """Let the container be made anew where it is not there."""
        if self._path.exists():
            with self.changing() as record:
                record.pop("known", None)

    def read(self) -> Record:
        """Return the record, empty where there is none. A damaged one counts as none."""
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            return {}
        except OSError as error:
            raise CommandError(f"{self._path}: {error.strerror}") from error
        return found if isinstance(found, dict) else {}

    @contextlib.contextmanager
    def changing(self) -> Iterator[Record]:
        """Yield the record to be changed; it is written at the end, unless it raises."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(
                f"{self._folder}: {error.strerror}; set folder in [state] to one that this user "
                "can write"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = self.read()
            yield record
            self._write(json.dumps(record, indent=1).encode())
        except OSError as error:
            raise CommandError(f"{self._path}: {error.strerror}") from error
        finally:
            os.close(lock)

    def _write(self, text: bytes) -> None:
        fd, temporary = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._folder)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def add_calls(record: Record, month: str, counts: dict[str, int]) -> None:
    """Add requests to a record.

    Args:
        month: as 2027-01.
    """
    if not counts:
        return
    months = record.setdefault("calls", {})
    known = months.setdefault(month, {})
    for call, count in counts.items():
        known[call] = known.get(call, 0) + count
    for old in sorted(months)[:-MONTHS]:
        del months[old]
