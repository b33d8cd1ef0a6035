"""How far a verification is, written down so that another run goes on where it ended.

In the state folder, for each place and choice of repositories: `….json` how far the run is,
`….problems` what it has found so far, a line of JSON each, and `….lock`, held while it runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from backupgw.runtime.command import CommandError

from .verify_findings import Counts, Finding, Problem
from .verify_walk import Position

_WRITE_AGAIN = 1.0
"""Seconds between two notes of how far it is."""


@dataclass(slots=True)
class Record:
    """What is known of a run. Times are seconds since the epoch.

    Attributes:
        after: the last file that it has dealt with, all before it included.
        problems: bytes of the file of problems that belong to it.
        finished: None until it has gone through everything.
        place, repositories: what it is about, for who reads the file.
    """

    place: str
    repositories: list[str]
    began: float
    counts: Counts = field(default_factory=Counts)
    after: Position | None = None
    problems: int = 0
    finished: float | None = None

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Return what a file says; None where there is none, or one that cannot be understood."""
        try:
            found = json.loads(path.read_text())
            after = found.pop("after")
            return cls(
                **{**found, "counts": Counts(**found["counts"])},
                after=None if after is None else Position(tuple(after[0]), after[1], after[2]),
            )
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None


class VerifyState:
    """The files of one verification; a context manager that holds its lock.

    Args:
        folder: the state folder, which exists.
        place: the place's name.
        url: the place's URL: other folders have been called the same.
        repositories: the patterns that were asked for; none: all.
    """

    def __init__(self, folder: Path, place: str, url: str, repositories: Sequence[str]) -> None:
        what = "\0".join([url, *sorted(repositories)])
        stem = f"rest-verify-{place}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
        self._record_path = folder / f"{stem}.json"
        self._problems_path = folder / f"{stem}.problems"
        self._lock_path = folder / f"{stem}.lock"
        self._folder = folder
        self._lock = -1
        self._written = 0.0
        self.record = Record(place, list(repositories), time.time())

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            CommandError: another verification of the same is running, or the files cannot be made.
        """
        try:
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._give_away(self._lock)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise CommandError("another verification of this place is running") from None
        except OSError as error:
            self.__exit__()
            raise CommandError(
                f"cannot note how far it is in {self._folder}: {error.strerror}"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def last(self) -> Record | None:
        """Return what is known of the last run, finished or not."""
        return Record.read(self._record_path)

    def begin(self, *, restart: bool) -> bool:
        """Take up a run that was broken off, or begin another; return whether it was taken up."""
        last = None if restart else self.last()
        if last is not None and last.finished is None and self._problems_end() >= last.problems:
            self.record = last
            # What was found after the last note will be found again.
            os.truncate(self._problems_path, last.problems)
            return True
        try:
            self._problems_path.write_bytes(b"")
            self._own(self._problems_path)
        except OSError as error:
            raise self._cannot_note(error) from error
        self.save()
        return False

    def found(self, finding: Finding) -> None:
        """Write down a problem."""
        self.record.counts.add(finding)
        self._append(finding)

    def amend(self, finding: Finding) -> None:
        """Write down what became of the problem that was written down last."""
        self._append(finding)

    def _append(self, finding: Finding) -> None:
        line = json.dumps(finding.document()).encode() + b"\n"
        try:
            with self._problems_path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._cannot_note(error) from error
        self.record.problems += len(line)

    def done(self, position: Position, size: int) -> None:
        """A file has been dealt with, and all before it."""
        self.record.after = position
        self.record.counts.objects += 1
        self.record.counts.bytes += size
        if time.monotonic() - self._written >= _WRITE_AGAIN:
            self.save()

    def finish(self) -> None:
        """Everything has been dealt with."""
        self.record.finished = time.time()
        self.save()

    def save(self) -> None:
        """Note how far it is.

        Raises:
            CommandError: the file cannot be written.
        """
        new = self._record_path.with_suffix(".new")
        try:
            new.write_text(json.dumps(asdict(self.record)))
            self._own(new)
            new.replace(self._record_path)
        except OSError as error:
            raise self._cannot_note(error) from error
        self._written = time.monotonic()

    def _cannot_note(self, error: OSError) -> CommandError:
        return CommandError(
            f"cannot note how far it is in {self._folder}: {error.strerror}; what was found so "
            "far is noted, and another run goes on from there"
        )

    def findings(self) -> Iterator[Finding]:
        """Yield the problems of the run, as they were found, each as it was written down last."""
        left = self.record.problems
        last: Finding | None = None
        try:
            with self._problems_path.open("rb") as file:
                for line in file:
                    left -= len(line)
                    if left < 0:
                        break
                    fields: dict[str, Any] = json.loads(line)
                    found = Finding(**{**fields, "problem": Problem(fields["problem"])})
                    if last is not None and last.name != found.name:
                        yield last
                    last = found
        except OSError as error:
            raise CommandError(
                f"what was found cannot be read from {self._problems_path}: {error.strerror}"
            ) from error
        if last is not None:
            yield last

    def _problems_end(self) -> int:
        try:
            return self._problems_path.stat().st_size
        except OSError:
            return -1

    def _own(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._give_away(descriptor)
        finally:
            os.close(descriptor)

    def _give_away(self, descriptor: int) -> None:
        """Make a file the folder's owner's: what root leaves there, the service has to read."""
        if os.geteuid() == 0:
            owner = self._folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
