"""restic's commands as calls: what is asked for as arguments that cannot become options, what it
answers as records, and how it ends as an exception.

All of them block; a `StopSignal` ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import messages
from .arguments import Limits, Option, absolute, pattern, snapshot_id, tag
from .errors import INCOMPLETE, ResticError, ResticFailed, ResticUnusable
from .messages import BackupSummary, ForgetGroup, ItemError, Message, Node, Snapshot, Stats
from .running import Ran, Runner
from .stopping import StopSignal


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


class Restic(Runner):
    """A restic program that works on a repository, by its commands. For any thread."""

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
        confined_to: Sequence[int] | None = None,
        stop: StopSignal | None = None,
    ) -> BackupResult:
        """Make a snapshot.

        Args:
            paths: absolute.
            tags: without commas, at which restic splits.
            exclude_file: file of patterns as restic reads them; it expands $VARIABLES in them.
            flags: further ones of `restic backup`.
            descriptors: that restic inherits, for an exclude_file in /dev/fd.
            confined_to: descriptors of the only folders that it may read from: where others write
                to `paths`, who could lead it elsewhere by links. None: wherever `paths` lead.

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
            confined_to=confined_to,
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


__all__ = ["BackupResult", "Limits", "Option", "Ran", "Restic", "ResticError", "pattern"]
