"""What is known of each set at each provider: the last run, the last success, and what it came to.

One file, `status.json` in the state folder, changed whole or not at all. A run notes when it begins
and when it ends, and holds a lock meanwhile: one that began, did not end and holds no lock was
killed, and is told as interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from backupgw.runtime.command import CommandError

FILE = "status.json"

Result = Literal["done", "partly", "failed", "interrupted"]


class AlreadyRunning(CommandError):
    """The same is being done by another process."""


@dataclass
class Record:
    """What is known of a set at a provider. Times are seconds since the epoch, 0 for never.

    Attributes:
        result: of the last run that ended: "partly" where files could not be read.
        id: of the last backup.
        added: bytes that the last backup brought anew.
        problems: files that the last backup lacks.
        error: why the last run failed; "".
        success: when a backup was last whole.
    """

    began: float = 0.0
    ended: float = 0.0
    result: str = ""
    id: str = ""
    files: int = 0
    bytes: int = 0
    added: int = 0
    seconds: float = 0.0
    problems: int = 0
    error: str = ""
    success: float = 0.0
    verified: float = 0.0
    verify_error: str = ""
    pruned: float = 0.0


@dataclass
class Status:
    """All of them: by set, by provider."""

    records: dict[str, dict[str, Record]] = field(default_factory=dict)

    def of(self, set_name: str, provider: str) -> Record:
        """Return a record, made if there was none."""
        return self.records.setdefault(set_name, {}).setdefault(provider, Record())

    def all(self) -> Iterator[tuple[str, str, Record]]:
        """Yield set, provider, record, sorted."""
        for set_name, providers in sorted(self.records.items()):
            for provider, record in sorted(providers.items()):
                yield set_name, provider, record


class StatusFile:
    """The file.

    Args:
        folder: of the state of backups; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / FILE

    def read(self) -> Status:
        """Return what is known; nothing where there is no file.

        Raises:
            CommandError: it cannot be read, or is not ours.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Status()
        except OSError as error:
            raise CommandError(f"cannot read {self.path}: {error.strerror}") from error
        known = {each.name for each in fields(Record)}
        try:
            sets = json.loads(content)["sets"]
            return Status(
                {
                    str(name): {
                        str(provider): Record(**{k: v for k, v in values.items() if k in known})
                        for provider, values in providers.items()
                    }
                    for name, providers in sets.items()
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(
                f"{self.path} is damaged; move it away, backups do not need it"
            ) from error

    @contextlib.contextmanager
    def changing(self) -> Iterator[Status]:
        """Yield what is known, to be changed; written at the end, one process at a time."""
        with self._locked("status.lock", wait=True):
            status = self.read()
            yield status
            self._write(status)

    def _write(self, status: Status) -> None:
        document = {
            "version": 1,
            "sets": {
                name: {provider: asdict(record) for provider, record in providers.items()}
                for name, providers in status.records.items()
            },
        }
        write_whole(self.path, json.dumps(document, indent=1).encode() + b"\n", 0o600)

    @contextlib.contextmanager
    def running(self, set_name: str) -> Iterator[None]:
        """Be the only one that backs up this set.

        Raises:
            AlreadyRunning: there is one.
        """
        with self._locked(f"run-{set_name}.lock", wait=False) as fd:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "since": time.time()}).encode(), 0)
            yield

    def is_running(self, set_name: str) -> dict[str, Any] | None:
        """Return who backs this set up now and since when; None if nobody does."""
        try:
            fd = os.open(self._folder / f"run-{set_name}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(ValueError):
                found = json.loads(os.pread(fd, 1000, 0))
                if isinstance(found, dict):
                    return found
            return {}
        else:
            return None
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[int]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CommandError(f"cannot use {self._folder}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                about = os.pread(fd, 1000, 0).decode(errors="replace")
                pid = ""
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    pid = f" (process {json.loads(about)['pid']})"
                raise AlreadyRunning(
                    f"{name.removeprefix('run-').removesuffix('.lock')} is being backed up "
                    f"already{pid}; wait for its end"
                ) from None
            yield fd
        finally:
            os.close(fd)


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all. Raises CommandError."""
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            if name:
                os.unlink(name)
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def metrics_text(status: Status) -> str:
    """Return what is known in Prometheus' text format, as a textfile collector reads it."""
    gauges: dict[str, tuple[str, Callable[[Record], float]]] = {
        "last_run_timestamp_seconds": ("When the last run ended.", lambda r: r.ended),
        "last_success_timestamp_seconds": ("When a backup was last whole.", lambda r: r.success),
        "last_verified_timestamp_seconds": ("When it was last verified.", lambda r: r.verified),
        "last_run_ok": (
            "1 where the last run was whole, 0 where not.",
            lambda r: int(r.result == "done"),
        ),
        "duration_seconds": ("Of the last run.", lambda r: r.seconds),
        "files": ("In the last backup.", lambda r: r.files),
        "bytes": ("In the last backup.", lambda r: r.bytes),
        "added_bytes": ("That the last backup brought anew.", lambda r: r.added),
        "problems": ("Files that the last backup lacks.", lambda r: r.problems),
    }
    lines = []
    for name, (about, value) in gauges.items():
        metric = f"backupgw_backup_{name}"
        lines += [f"# HELP {metric} {about}", f"# TYPE {metric} gauge"]
        for set_name, provider, record in status.all():
            lines.append(f'{metric}{{set="{set_name}",provider="{provider}"}} {value(record):.12g}')
    return "\n".join(lines) + "\n"
