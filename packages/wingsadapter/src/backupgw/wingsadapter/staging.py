"""A restore that cannot lose data: staged inside the server's folder, then swapped, or undone.

The folder itself is never renamed: a container and Wings hold its inode. Everything goes on in an
area inside it (`AREA`), so on the same file system and in the same quota project:

    AREA/new      what was unpacked
    AREA/old      what was there before, until all is in its place
    AREA/name     whose restore it is
    AREA/phase    how far it is: "out", "in" or "done"; no file: nothing was touched yet

What is there before goes to `old`, then what is new goes to its place; only then `old` is removed.
Renames are all that is done, so no disk can get full half-way. Whoever finds an area after a crash
knows from the phase what to do: "out" is undone, "in" is carried on, "done" is tidied up.

Everything is done by descriptors of folders, following no link.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from .staging_swap import AREA, FOLDER, NEW, OLD, SwapFolders, inside

log = logging.getLogger(__name__)

PHASE, NAME = "phase", "name"
RESERVE = 16 << 20
"""Bytes that stay free on the disk."""


class Phase(enum.StrEnum):
    """How far a restore is."""

    STAGED = ""
    OUT = "out"
    """What was there before is being moved out of the way, all of it."""
    IN = "in"
    """What is new is being moved to its place."""
    DONE = "done"


@dataclass(frozen=True)
class Recovered:
    """A restore that was found interrupted, and put in order.

    Attributes:
        phase: that it was in.
        name: whose it was.
    """

    phase: Phase
    name: str

    @property
    def restored(self) -> bool:
        """Whether the new files are there now; else those from before."""
        return self.phase in (Phase.IN, Phase.DONE)


class StagingFailed(Exception):
    """The restore cannot be carried out; the server's files are as they were."""


class Staging:
    """The area of one restore in a server's folder.

    Args:
        root: the server's folder, absolute, no link.
        name: of the restore: what `recover` returns.
    """

    def __init__(self, root: str, name: str = "") -> None:
        self.root = root
        self._name = name
        self._root = -1
        self._area = -1

    def __enter__(self) -> Self:
        """Make the area, empty.

        Raises:
            StagingFailed: it cannot be made.
        """
        try:
            self._root = os.open(self.root, FOLDER)
            os.mkdir(AREA, 0o700, dir_fd=self._root)
            self._area = os.open(AREA, FOLDER, dir_fd=self._root)
            os.mkdir(NEW, 0o700, dir_fd=self._area)
            _write(self._area, NAME, self._name)
        except OSError as error:
            self.__exit__()
            raise StagingFailed(f"{self.root}: {error.strerror}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        """Close what is open; the area stays for `recover`, or is gone already."""
        for descriptor in (self._area, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._area = self._root = -1

    @property
    def target(self) -> str:
        """The folder that is to be filled."""
        return os.path.join(self.root, AREA, NEW)

    def room(self) -> int:
        """Return the bytes that still fit, by the file system or the folder's quota."""
        found = os.statvfs(self._root)
        return max(0, found.f_bavail * found.f_frsize - RESERVE)

    def own(self, user: int, group: int, check: Callable[[], None]) -> None:
        """Give all that was unpacked to a user and a group.

        Args:
            check: called now and then; what it raises is passed on.
        """
        new = os.open(NEW, FOLDER, dir_fd=self._area)
        try:
            for folder, entry in _walk(new, check):
                # It takes the set-user-ID bit away, too.
                os.chown(entry.name, user, group, dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(new)

    def sync(self) -> None:
        """Have all that was unpacked on the disk."""
        descriptor = os.open(NEW, FOLDER, dir_fd=self._area)
        try:
            _sync_file_system(descriptor)
        finally:
            os.close(descriptor)

    def swap(self, *, whole: bool) -> None:
        """Put what was unpacked in its place.

        Args:
            whole: it takes the place of all that is there; else other files stay.

        Raises:
            StagingFailed: it did not work, and everything is as it was.
        """
        moved: list[tuple[str, str]] = []
        phase = Phase.STAGED
        try:
            os.mkdir(OLD, 0o700, dir_fd=self._area)
            with inside(self._area, NEW) as new, contextlib.suppress(FileNotFoundError):
                shutil.rmtree(AREA, dir_fd=new)  # of a backup that was made by another program
            with SwapFolders(self._root, self._area) as folders:
                if whole:
                    phase = self._enter(Phase.OUT)
                    folders.clear(moved)
                phase = self._enter(Phase.IN)
                folders.fill(moved)
        except OSError as error:
            log.warning("%s: %s; the restore is undone", self.root, error)
            if moved:
                with SwapFolders(self._root, self._area) as folders:
                    folders.undo(moved)
            self.discard()
            raise StagingFailed(
                f"{self.root}: {error.strerror}, in the phase {phase.value!r}; all is as it was"
            ) from error
        try:
            self._enter(Phase.DONE)
        except OSError as error:
            # Whoever finds it "in" has nothing left to move.
            log.warning("%s: the restore's end cannot be noted: %s", self.root, error)

    def _enter(self, phase: Phase) -> Phase:
        _write(self._area, PHASE, phase.value)
        return phase

    def discard(self) -> None:
        """Remove the area with what is in it: what was not put in its place, or was replaced."""
        _remove_area(self._root)


def unfinished(root: str) -> bool:
    """Whether a restore was begun in a server's folder and not brought to its end."""
    return os.path.lexists(os.path.join(root, AREA))


def recover(root: str) -> Recovered | None:
    """Bring a restore that a crash has interrupted to its end, or undo it.

    Returns:
        what it was; None: there was none.

    Raises:
        OSError: it cannot be done yet; nothing is lost.
    """
    descriptor = os.open(root, FOLDER)
    try:
        try:
            area = os.open(AREA, FOLDER, dir_fd=descriptor)
        except FileNotFoundError:
            return None
        try:
            found = Recovered(_phase(_read(area, PHASE)), _read(area, NAME))
            if found.phase in (Phase.OUT, Phase.IN):
                for name in (NEW, OLD):  # their removal may have begun
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=area)
                with SwapFolders(descriptor, area) as folders:
                    if found.phase is Phase.OUT:
                        folders.put_back()
                        _write(area, PHASE, Phase.STAGED.value)
                    else:
                        folders.fill([])
                        _write(area, PHASE, Phase.DONE.value)
        finally:
            os.close(area)
        _remove_area(descriptor)
    finally:
        os.close(descriptor)
    log.warning("%s: an interrupted restore was %s", root, _WHAT_BECAME[found.phase])
    return found


_WHAT_BECAME = {
    Phase.STAGED: "removed: nothing was touched",
    Phase.OUT: "undone",
    Phase.IN: "carried on to its end",
    Phase.DONE: "tidied up",
}


def _phase(text: str) -> Phase:
    try:
        return Phase(text)
    except ValueError:
        raise OSError(errno.EINVAL, f"{AREA}/{PHASE} says nothing that is known") from None


def _walk(folder: int, check: Callable[[], None]) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """Yield each entry below a folder with the descriptor of the folder that it is in."""
    check()
    with os.scandir(folder) as entries:
        for entry in entries:
            yield folder, entry
            if entry.is_dir(follow_symlinks=False):
                with inside(folder, entry.name) as inner:
                    yield from _walk(inner, check)


def _write(area: int, name: str, text: str) -> None:
    temporary = f"{name}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=area)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, name, src_dir_fd=area, dst_dir_fd=area)
    os.fsync(area)


def _read(area: int, name: str) -> str:
    try:
        # O_NONBLOCK: the folder is a customer's, who might have put a named pipe there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=area)
    except FileNotFoundError:
        return ""
    try:
        return os.read(descriptor, 256).decode(errors="replace")
    finally:
        os.close(descriptor)


def _sync_file_system(descriptor: int) -> None:
    import ctypes

    # syncfs(2): one call instead of one for each of a million files.
    library = ctypes.CDLL(None, use_errno=True)
    if library.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _remove_area(root: int) -> None:
    """Remove the area, the phase last: until then it says what is to be done."""
    try:
        area = os.open(AREA, FOLDER, dir_fd=root)
    except FileNotFoundError:
        return
    try:
        for name in (NEW, OLD):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(name, dir_fd=area)
        for name in os.listdir(area):
            os.unlink(name, dir_fd=area)
    finally:
        os.close(area)
    os.rmdir(AREA, dir_fd=root)
    os.fsync(root)
