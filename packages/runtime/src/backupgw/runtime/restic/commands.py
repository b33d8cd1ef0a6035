"""restic's commands as calls: what is asked for as arguments that cannot become options, what it
answers as records, and how it ends as an exception.

All of them block; a `StopSignal` ends them.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import messages
from .child import GRACE, Ended, run_child
from .errors import (
    INCOMPLETE,
    RepositoryLocked,
    ResticError,
    ResticFailed,
    ResticStopped,
    ResticUnusable,
    SnapshotMissing,
    from_exit,
)
from .messages import BackupSummary, ForgetGroup, ItemError, Message, Node, Snapshot, Stats
from .program import ResticProgram
from .repository import Repository
from .stopping import StopSignal

log = logging.getLogger(__name__)

Option = str | tuple[str, str]
"""`--flag`, or a flag with its value, which is joined to it and so never read as a flag."""

_ID = re.compile(r"[0-9a-f]{8,64}")
_MOST_OUTPUT = 1 << 30
"""Bytes of an answer that is kept whole."""


@dataclass(frozen=True)
class Limits:
    """What a restic may take.

    Attributes:
        upload, download: bytes a second; None: no limit. restic counts in KiB.
        compression: one of `ResticProgram.compressions`; None: its own choice.
    """

    upload: int | None = None
    download: int | None = None
    compression: str | None = None

    def options(self) -> list[str]:
        """Return them as restic's options."""
        found = [
            f"--limit-{way}={max(1, rate // 1024)}"
            for way, rate in (("upload", self.upload), ("download", self.download))
            if rate
        ]
        return found + ([f"--compression={self.compression}"] if self.compression else [])


@dataclass(frozen=True)
class Ran:
    """What a command that did not fail left behind.

    Attributes:
        status: restic's exit status: 0, or 3 where a backup is incomplete.
        output: what it answered where that was to be kept.
    """

    status: int
    output: bytes = b""
    errors: tuple[ItemError, ...] = ()
    error_count: int = 0
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackupResult:
    """A snapshot that was made.

    Attributes:
        complete: False where files could not be read: the snapshot lacks them.
        errors: the first of them.
    """

    summary: BackupSummary
    complete: bool
    errors: tuple[ItemError, ...] = ()
    error_count: int = 0


@dataclass(frozen=True)
class Restic:
    """A restic program that works on a repository. For any thread.

    Attributes:
        cache: folder of restic's cache; None: it keeps none.
        environ: ours, of which a few harmless variables are handed on.
        lock_wait: seconds that a command waits for a repository that another has locked (0.16 and
            newer; an older restic fails at once).
        grace: seconds between the word to stop and SIGKILL.
    """

    program: ResticProgram
    repository: Repository
    cache: Path | None = None
    limits: Limits = Limits()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    lock_wait: float = 0.0
    grace: float = GRACE

    # -- what is in the repository

    def snapshots(
        self,
        *,
        tags: Sequence[str] = (),
        host: str | None = None,
        locking: bool = True,
        stop: StopSignal | None = None,
    ) -> list[Snapshot]:
        """Return the snapshots that have all of the tags, oldest first.

        Args:
            tags: matched exactly, here: restic would split one at its commas.
            locking: without, a repository can be looked at while it is pruned; what was removed in
                that moment may be missing or shown.
        """
        flags: list[Option] = [] if locking else ["--no-lock"]
        if host is not None:
            flags.append(("--host", host))
        found = messages.snapshots(self.run("snapshots", flags, keep=True, stop=stop).output)
        return [each for each in found if set(tags) <= set(each.tags)]

    def stats(
        self,
        snapshot: str,
        *,
        mode: str = "restore-size",
        locking: bool = True,
        stop: StopSignal | None = None,
    ) -> Stats:
        """Return size and number of files of a snapshot.

        Args:
            mode: "restore-size", "files-by-contents" or "raw-data" (what it takes in the
                repository, and would take if there were no others).
            locking: as with `snapshots`.
        """
        flags: list[Option] = [("--mode", mode)]
        if not locking:
            flags.append("--no-lock")
        ran = self.run("stats", flags, [snapshot_id(snapshot)], keep=True, stop=stop)
        return messages.stats(ran.output)

    def list_nodes(
        self,
        snapshot: str,
        on_node: Callable[[Node], None],
        *,
        folder: str | None = None,
        recursive: bool = True,
        stop: StopSignal | None = None,
    ) -> None:
        """Tell of each entry of a snapshot, or of a folder in it."""

        def take(message: Message) -> None:
            if isinstance(message, Node):
                on_node(message)

        flags = ["--recursive"] if recursive and folder is not None else []
        operands = [snapshot_id(snapshot)] + ([] if folder is None else [absolute(folder)])
        self.run("ls", flags, operands, on_message=take, stop=stop)

    # -- backup and restore

    def backup(
        self,
        paths: Sequence[str],
        *,
        tags: Sequence[str] = (),
        host: str | None = None,
        exclude_file: str | None = None,
        flags: Sequence[Option] = (),
        on_message: Callable[[Message], None] | None = None,
        descriptors: Sequence[int] = (),
        stop: StopSignal | None = None,
    ) -> BackupResult:
        """Make a snapshot.

        Args:
            paths: absolute.
            tags: without commas, at which restic splits.
            exclude_file: file of patterns as restic reads them; it expands $VARIABLES in them.
            flags: further ones of `restic backup`.
            descriptors: that restic inherits, for an exclude_file in /dev/fd.

        Raises:
            SourceMissing, and the rest of the family: there is no snapshot.
        """
        wanted: list[Option] = [("--tag", tag(each)) for each in tags]
        if host is not None:
            wanted.append(("--host", host))
        if exclude_file is not None:
            wanted.append(("--exclude-file", exclude_file))
        summaries: list[BackupSummary] = []

        def take(message: Message) -> None:
            if isinstance(message, BackupSummary):
                summaries.append(message)
            elif on_message is not None:
                on_message(message)

        ran = self.run(
            "backup",
            [*wanted, *flags],
            [absolute(path) for path in paths],
            on_message=take,
            tolerated=(INCOMPLETE,),
            descriptors=descriptors,
            stop=stop,
        )
        if not summaries or not summaries[-1].snapshot:
            raise ResticFailed("restic backup ended well, and does not say which snapshot it made")
        return BackupResult(summaries[-1], ran.status == 0, ran.errors, ran.error_count)

    def restore(
        self,
        snapshot: str,
        target: str,
        *,
        folder: str | None = None,
        include: Sequence[str] = (),
        flags: Sequence[Option] = (),
        on_message: Callable[[Message], None] | None = None,
        stop: StopSignal | None = None,
    ) -> Ran:
        """Restore a snapshot below `target`, whole: a file that fails is an error.

        Args:
            folder: restore what is in this folder of the snapshot instead (0.16 and newer).
            include: only these paths and what is below them: absolute, from `folder` on.

        Raises:
            ResticError: something was not restored.
        """
        source = snapshot_id(snapshot)
        if folder is not None:
            if not self.program.restores_subfolders:
                raise ResticUnusable(f"{self.program.shown} restores no folders of snapshots")
            source += f":{absolute(folder)}"
        wanted: list[Option] = [("--target", absolute(target))]
        wanted += [("--include", pattern(absolute(path))) for path in include]
        ran = self.run("restore", [*wanted, *flags], [source], on_message=on_message, stop=stop)
        if ran.error_count:
            # 0.14 ends with 0 although files failed.
            first = ran.errors[0]
            raise ResticFailed(
                f"restic restore: {ran.error_count} entries were not restored, "
                f"{first.item}: {first.message}"
            )
        return ran

    def dump_tar(
        self,
        snapshot: str,
        folder: str,
        on_piece: Callable[[bytes], None],
        *,
        stop: StopSignal | None = None,
    ) -> None:
        """Pass on a folder of a snapshot as a tar file, not compressed.

        Its entries have their whole path as a name, without a slash at the start. It is whole only
        if nothing is raised here.

        Args:
            on_piece: given the file piece by piece. What it raises ends restic.

        Raises:
            ResticError: it is not whole.
        """
        operands = [snapshot_id(snapshot), absolute(folder)]
        self.run("dump", [("--archive", "tar")], operands, on_piece=on_piece, stop=stop)

    # -- upkeep

    def init(self, *, time_limit: float | None = 60.0, stop: StopSignal | None = None) -> None:
        """Make the repository. Several at once would destroy it: see `init.ensure_repository`."""
        self.run("init", time_limit=time_limit, stop=stop)

    def exists(self, *, stop: StopSignal | None = None) -> bool:
        """Return whether the repository is there and opens.

        Raises:
            ResticError: that cannot be said, or it does not open.
        """
        from .errors import RepositoryMissing

        try:
            self.run("cat", ["--no-lock"], ["config"], keep=True, stop=stop)
        except RepositoryMissing:
            return False
        return True

    def forget(self, snapshots: Sequence[str], *, stop: StopSignal | None = None) -> None:
        """Remove snapshots; one that is gone is no error. Their data stays until `prune`."""
        if snapshots:
            self.run("forget", [], [snapshot_id(each, whole=True) for each in snapshots], stop=stop)

    def policy(
        self, flags: Sequence[Option], *, stop: StopSignal | None = None
    ) -> list[ForgetGroup]:
        """Return what `restic forget` with a policy would keep and remove; it removes nothing."""
        ran = self.run("forget", [*flags, "--dry-run"], keep=True, stop=stop)
        text = ran.output.decode(errors="replace")
        line = next((each for each in text.splitlines() if each.startswith("[")), "[]")
        return messages.groups(line)

    def prune(self, flags: Sequence[Option] = (), *, stop: StopSignal | None = None) -> None:
        """Remove data that no snapshot needs, while nobody else can work on the repository."""
        self.run("prune", flags, stop=stop)

    def check(self, *, read_data: str | None = None, stop: StopSignal | None = None) -> None:
        """Verify the repository.

        Args:
            read_data: "all", or a part as `--read-data-subset` takes it: "5%", "1/10".

        Raises:
            ResticError: it has errors, or could not be verified.
        """
        flags: list[Option] = []
        if read_data == "all":
            flags.append("--read-data")
        elif read_data is not None:
            flags.append(("--read-data-subset", read_data))
        self.run("check", flags, stop=stop)

    def unlock(self, *, stop: StopSignal | None = None) -> None:
        """Remove the locks that restic itself finds stale: of a process of this machine that has
        ended, or not renewed for 30 minutes. Never those of others that live."""
        self.run("unlock", stop=stop, waiting=False)

    # -- all of them

    def run(
        self,
        command: str,
        flags: Sequence[Option] = (),
        operands: Sequence[str] = (),
        *,
        on_message: Callable[[Message], None] | None = None,
        keep: bool = False,
        tolerated: Sequence[int] = (),
        descriptors: Sequence[int] = (),
        stop: StopSignal | None = None,
        time_limit: float | None = None,
        waiting: bool = True,
        on_piece: Callable[[bytes], None] | None = None,
    ) -> Ran:
        """Run a command with --json.

        A repository that is locked by a restic that is no more is unlocked, once.

        Args:
            flags: options; operands are behind a `--` and may look like anything.
            on_message: given each message. What it raises ends restic.
            keep: the answer as it is.
            tolerated: exit statuses that are no failure, besides 0.
            descriptors: further ones that restic inherits.
            time_limit: seconds after which it is stopped.
            waiting: for a lock, as `lock_wait` says.
            on_piece: given the answer as it comes; it is neither messages nor kept then.

        Raises:
            ResticError: of the kind that its exit status and words stand for.
        """
        try:
            return self._run(
                command, flags, operands, on_message, keep, tolerated, descriptors, stop,
                time_limit, 0.0, on_piece,
            )  # fmt: skip
        except RepositoryLocked as locked:
            if not waiting or (stop is not None and stop.is_set):
                raise
            log.info("%s; stale locks are removed, then it is tried again", locked)
        self.unlock(stop=stop)
        return self._run(
            command, flags, operands, on_message, keep, tolerated, descriptors, stop, time_limit,
            self.lock_wait, on_piece,
        )  # fmt: skip

    def _run(
        self,
        command: str,
        flags: Sequence[Option],
        operands: Sequence[str],
        on_message: Callable[[Message], None] | None,
        keep: bool,
        tolerated: Sequence[int],
        descriptors: Sequence[int],
        stop: StopSignal | None,
        time_limit: float | None,
        lock_wait: float,
        on_piece: Callable[[bytes], None] | None,
    ) -> Ran:
        transcript = messages.Transcript()
        output = bytearray()
        what = f"restic {command}"

        def take_output(line: bytes) -> None:
            message = messages.message(line)
            if message is not None:
                self._note(message, transcript, on_message)
            if keep:
                output.extend(line + b"\n")
                if len(output) > _MOST_OUTPUT:
                    raise ResticFailed(f"{what} answers more than {_MOST_OUTPUT} bytes")
            elif message is None:
                transcript.say(self._text(line))

        def take_error(line: bytes) -> None:
            message = messages.message(line)
            if message is None:
                transcript.say(self._text(line))
            else:
                self._note(message, transcript, on_message)

        arguments = self._arguments(command, flags, operands, lock_wait)
        ending = signal.SIGTERM if self.program.ends_on_sigterm else signal.SIGINT
        log.debug("restic %s on %s", " ".join(arguments), self.repository.shown)
        try:
            with self.repository.handed_over(self.environ) as (variables, inherited):
                if self.cache is not None:
                    variables["RESTIC_CACHE_DIR"] = str(self.cache)
                ended = run_child(
                    [self.program.path, *arguments],
                    environment=variables,
                    descriptors=[*inherited, *descriptors],
                    on_output=take_output,
                    on_error=take_error,
                    stop=stop,
                    ending=ending,
                    grace=self.grace,
                    time_limit=time_limit,
                    on_piece=on_piece,
                )
        except OSError as error:
            raise ResticUnusable(f"{self.program.path} cannot be run: {error.strerror}") from error
        self._judge(ended, transcript, what, tolerated)
        return Ran(
            ended.status,
            bytes(output),
            tuple(transcript.errors),
            transcript.error_count,
            tuple(transcript.said),
        )

    def _arguments(
        self, command: str, flags: Sequence[Option], operands: Sequence[str], lock_wait: float
    ) -> list[str]:
        arguments = [command, "--json", *self.repository.options(), *self.limits.options()]
        if self.cache is None:
            arguments.append("--no-cache")
        if lock_wait > 0 and self.program.waits_for_locks:
            arguments.append(f"--retry-lock={lock_wait:.0f}s")
        arguments += [each if isinstance(each, str) else f"{each[0]}={each[1]}" for each in flags]
        if operands:
            arguments += ["--", *operands]
        for argument in arguments:
            if "\0" in argument:
                raise ValueError("an argument for restic holds a NUL")
        return arguments

    def _note(
        self,
        message: Message,
        transcript: messages.Transcript,
        on_message: Callable[[Message], None] | None,
    ) -> None:
        if isinstance(message, ItemError):
            message = ItemError(
                message.item, self.repository.scrub(message.message), message.during
            )
            transcript.add_error(message)
        elif isinstance(message, messages.ExitError):
            transcript.say(self.repository.scrub(message.message))
        if on_message is not None:
            on_message(message)

    def _text(self, line: bytes) -> str:
        # restic begins lines anew by control sequences of terminals.
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", line.decode(errors="replace"))
        return self.repository.scrub(text)

    def _judge(
        self,
        ended: Ended,
        transcript: messages.Transcript,
        what: str,
        tolerated: Sequence[int],
    ) -> None:
        if ended.timed_out:
            raise ResticFailed(f"{what} took too long, and was stopped", exit_status=ended.status)
        if ended.status == 0 or ended.status in tolerated:
            return
        if ended.stopped:
            how = "and had to be killed" if ended.killed else "as asked"
            raise ResticStopped(f"{what} was stopped, {how}", exit_status=ended.status)
        said = list(transcript.said)
        if transcript.errors:
            first = transcript.errors[0]
            said.insert(0, f"{first.item}: {first.message}")
        raise from_exit(ended.status, said, what=what)


def tag(text: str) -> str:
    """Return a tag that stays one.

    Raises:
        ValueError: restic would split it, or leave it out.
    """
    if not text.strip() or "," in text:
        raise ValueError(f"{text!r} cannot be a tag: no commas, not empty")
    return text


def snapshot_id(text: str, *, whole: bool = False) -> str:
    """Return a snapshot's id, which is no path, "latest" or option.

    Raises:
        SnapshotMissing: it is none, and so there is no such snapshot.
    """
    if not _ID.fullmatch(text) or (whole and len(text) != 64):
        raise SnapshotMissing(f"{text[:80]!r} is no snapshot's id")
    return text


def absolute(path: str) -> str:
    """Return a path that starts with a slash and has no parts that lead elsewhere.

    Raises:
        ValueError: it is another.
    """
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"{path[:200]!r} is no absolute path without '..'")
    return path


def pattern(path: str) -> str:
    """Return a path as a pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path)


__all__ = ["BackupResult", "Limits", "Option", "Ran", "Restic", "ResticError"]
