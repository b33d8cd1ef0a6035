"""`backupgw backup restore`: a backup, whole or by pattern, into a folder or where it came from."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import CommandError, Exit, UsageError
from backupgw.runtime.commands.store.output import error_text, size_text
from backupgw.runtime.commands.store.progress import State
from backupgw.runtime.restic import (
    Message,
    Node,
    Restic,
    ResticFailed,
    RestoreStatus,
    Snapshot,
    StopSignal,
)

from .archive_restoring import Overwrite, Restore
from .archives import Archive, ArchiveReader
from .backups import Backup, chosen, find
from .patterns import BadPattern, Patterns
from .report import Amounts, Reporter
from .restic_target import restic_at
from .site import Site, Target, target


def restore(arguments: Namespace, site: Site, reporter: Reporter, stop: StopSignal) -> int:
    """Restore, and return the exit status: 3 where something is not as it was."""
    if bool(arguments.target) == arguments.in_place:
        raise UsageError("say where to: --target DIR, or --in-place for where the files came from")
    try:
        wanted = Patterns(arguments.include)
    except BadPattern as error:
        raise UsageError(str(error)) from None
    goal = "/" if arguments.in_place else os.path.abspath(arguments.target)
    with _backup(arguments, site, reporter, stop) as (at, backup):
        if not arguments.dry_run:
            _make_target(goal)
        reporter.say(
            f"restoring {backup.set} of {backup.time.astimezone():%Y-%m-%d %H:%M:%S} "
            f"({backup.id}) from {backup.provider} into {goal}"
        )
        began = time.monotonic()
        overwrite = Overwrite(arguments.overwrite)
        if isinstance(backup.held, Archive):
            done = _archive(site, at, backup.held, goal, wanted, overwrite, reporter, arguments)
        else:
            done = _snapshot(site, at, backup, goal, wanted, overwrite, reporter, stop, arguments)
    seconds = time.monotonic() - began
    reporter.record(
        "restored",
        {
            "provider": backup.provider, "set": backup.set, "id": backup.id, "target": goal,
            "files": done.files, "bytes": done.bytes, "left": done.left, "seconds": seconds,
            "problem_count": len(done.problems), "dry_run": arguments.dry_run,
            "problems": [{"path": path, "reason": why} for path, why in done.problems[:100]],
        },
    )  # fmt: skip
    what = "would restore" if arguments.dry_run else "restored"
    left = f", {done.left} that were there are as they were" if done.left else ""
    reporter.say(f"{what} {done.files} files, {size_text(done.bytes)}, {seconds:.1f} s{left}")
    reporter.problems("not as it was", tuple(done.problems), len(done.problems))
    if not done.files and not done.left and arguments.include:
        raise CommandError("nothing in this backup matches the patterns")
    return Exit.PARTLY if done.problems else Exit.DONE


class Done:
    """What a restore came to."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.left = 0
        self.problems: list[tuple[str, str]] = []


@contextmanager
def _backup(
    arguments: Namespace, site: Site, reporter: Reporter, stop: StopSignal
) -> Iterator[tuple[Target, Backup]]:
    """Yield the backup that was asked for and its provider: the first that has it.

    Raises:
        CommandError: nobody has it. A provider that cannot be asked is told of.
    """
    wanted = None if arguments.set is None else site.backup.sets.get(arguments.set)
    names = site.targets_of(arguments.provider, wanted)
    last: CommandError | None = None
    failed = []
    for name in names:
        with ExitStack() as stack:
            try:
                at = stack.enter_context(target(site, name))
                host = None if arguments.all_hosts else arguments.host or site.host
                found = find(site, at, stop=stop, set_name=arguments.set, host=host)
                if arguments.set is None and arguments.id == "latest":
                    _require_one_set(found)
                of_set = f" of the set {arguments.set!r}" if arguments.set is not None else ""
                of_host = f" of the machine {host!r}" if host is not None else ""
                backup = chosen(found, arguments.id, of_set + of_host)
            except UsageError:
                raise
            except CommandError as error:
                last = error
                failed.append(f"{name}: {error_text(error)}")
                continue
            except BackendError as error:
                failed.append(f"{name}: {error_text(error)}")
                continue
            for text in failed:
                reporter.warn(text)
            if arguments.id == "latest" and backup.host == site.host:
                _warn_of_newer(site, names, backup, reporter)
            yield at, backup
            return
    if len(names) == 1 and last is not None:
        raise last
    raise CommandError("\n".join(failed))


def _warn_of_newer(site: Site, names: list[str], backup: Backup, reporter: Reporter) -> None:
    """Tell where another provider has a later backup of the set, as far as is known here."""
    try:
        status = site.status.read()
    except CommandError:
        return  # backups do not need it
    own = status.of(backup.set, backup.provider)
    for name in names:
        other = status.of(backup.set, name)
        behind = own.began < other.began or (
            own.began == other.began and own.result in ("failed", "interrupted")
        )
        if name != backup.provider and behind and other.result in ("done", "partly"):
            reporter.warn(
                f"{name} has a newer backup of {backup.set} than {backup.provider}; "
                f"-p {name} restores that"
            )


def _require_one_set(found: list[Backup]) -> None:
    sets = sorted({backup.set for backup in found})
    if len(sets) > 1:
        raise UsageError(f"there are backups of several sets ({', '.join(sets)}): choose by --set")


def _make_target(goal: str) -> None:
    try:
        os.makedirs(goal, mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make {goal}: {error.strerror}") from error


def _archive(
    site: Site,
    at: Target,
    archive: Archive,
    goal: str,
    wanted: Patterns,
    overwrite: Overwrite,
    reporter: Reporter,
    arguments: Namespace,
) -> Done:
    key = site.keys.archive_key_or_none()
    done = Done()
    reading: list[ArchiveReader] = []
    there = goal if os.path.isdir(goal) else "/"  # a dry run makes nothing
    run = Restore(there, wanted, overwrite=overwrite, dry=arguments.dry_run)

    def opened() -> ArchiveReader:
        reading.append(ArchiveReader(at.place, archive, key))
        return reading[-1]

    def state() -> State:
        # Of the archive as it is stored: what it holds is known at its end only.
        read = reading[-1].taken if reading else 0
        return State(min(read, archive.size), run.done.members, archive.size)

    with closing(run), reporter.progress(state):
        restored = run.run(opened)
    done.files, done.bytes, done.left = restored.members, restored.bytes, restored.left
    done.problems = restored.problems
    return done


def _snapshot(
    site: Site,
    at: Target,
    backup: Backup,
    goal: str,
    wanted: Patterns,
    overwrite: Overwrite,
    reporter: Reporter,
    stop: StopSignal,
    arguments: Namespace,
) -> Done:
    assert isinstance(backup.held, Snapshot)
    amounts = Amounts()
    with restic_at(site, at, stop=stop) as restic:
        done = _counted(restic, backup.held, wanted, stop)
        if arguments.dry_run or not done.files:
            return done
        flags: list[str | tuple[str, str]] = [
            ("--include", pattern) for pattern in arguments.include
        ]
        if overwrite is not Overwrite.ALWAYS:
            if restic.program.version < (0, 17, 0):
                raise CommandError(
                    f"--overwrite {overwrite.value} needs restic 0.17, this is "
                    f"{restic.program.shown}"
                )
            flags.append(("--overwrite", overwrite.value))

        def show(message: Message) -> None:
            if isinstance(message, RestoreStatus):
                amounts.set("", State(message.bytes, message.files, done.bytes, done.files))

        with reporter.progress(amounts.state):
            try:
                restic.restore(backup.held.id, goal, flags=flags, on_message=show, stop=stop)
            except ResticFailed as error:
                done.problems.append((goal, error_text(error)))
    return done


def _counted(restic: Restic, snapshot: Snapshot, wanted: Patterns, stop: StopSignal) -> Done:
    """Count what will be restored: restic itself says nothing where a pattern matches nothing."""
    done = Done()
    if not wanted and snapshot.files and snapshot.bytes is not None:
        done.files, done.bytes = snapshot.files, snapshot.bytes
        return done

    def count(node: Node) -> None:
        if not wanted or wanted.match(node.path):
            done.files += 1
            done.bytes += node.size if node.type == "file" else 0

    restic.list_nodes(snapshot.id, count, stop=stop)
    return done
