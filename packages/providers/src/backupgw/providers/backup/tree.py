"""What lies below the paths of a backup, in the order of the names, without what is left out.

Every folder is entered by the descriptor of the one above it and no symbolic link is followed, so
that whoever changes the tree meanwhile cannot lead the walk elsewhere. The paths that were asked
for may themselves lie behind links: they are backed up under the names that these lead to, since a
restore follows no link either.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .patterns import Patterns

CACHE_TAG = "CACHEDIR.TAG"
_CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""https://bford.info/cachedir/"""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

NEVER_BELOW_ROOT = ("/dev/*", "/proc/*", "/run/*", "/sys/*", "/tmp/*", "/var/tmp/*")  # noqa: S108
"""Left out where the whole machine is backed up: what is made anew at each start."""

Problem = Callable[[str, str], None]
"""Is told of what cannot be read: the path and why."""


@dataclass(frozen=True)
class Selection:
    """What is backed up.

    Attributes:
        paths: files and folders.
        exclude: patterns of what is left out.
        if_present: names of files whose folder's content is left out, but for that file.
        caches: leave out the content of folders that say they are caches.
        one_file_system: do not go into other file systems; the folders they are mounted on stay.
    """

    paths: Sequence[str]
    exclude: Sequence[str] = ()
    if_present: Sequence[str] = ()
    caches: bool = True
    one_file_system: bool = False

    def roots(self) -> list[str]:
        """Return the paths with every link before their last name followed, none within another."""
        found = set()
        for path in self.paths:
            folder, name = os.path.split(os.path.abspath(path))
            found.add(os.path.join(os.path.realpath(folder), name))
        return sorted(root for root in found if not any(_within(root, other) for other in found))

    def there(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Return the roots that are there, and those that are not with the reason."""
        found, missing = [], []
        for root in self.roots():
            try:
                os.lstat(root)
            except OSError as error:
                missing.append((root, error.strerror or str(error)))
            else:
                found.append(root)
        return found, missing

    def patterns(self) -> list[str]:
        """Return the patterns of what is left out, those for a whole machine included."""
        whole = "/" in self.roots()
        return [*(NEVER_BELOW_ROOT if whole else ()), *self.exclude]


def _within(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class Found:
    """An entry, while its folder is open.

    Attributes:
        path: absolute.
        folder: descriptor of the folder that it is in.
        name: in that folder.
        status: of itself, where it is a symbolic link.
    """

    path: str
    folder: int
    name: str
    status: os.stat_result


@dataclass(slots=True)
class _Level:
    """A folder on the way down."""

    path: str
    fd: int
    device: int
    names: Iterator[str] = field(default_factory=lambda: iter(()))


def walk(selection: Selection, problem: Problem) -> Iterator[Found]:
    """Yield every file, folder, link and device of a selection, folders before what is in them.

    Raises:
        FileNotFoundError: none of the selection's own paths is there; one that is not is a problem.
    """
    excluded = Patterns(selection.patterns())
    there, missing = selection.there()
    for each in missing:
        problem(*each)
    if not there:
        raise FileNotFoundError(errno.ENOENT, "nothing of what is to be backed up is there")
    for root in there:
        if not excluded.match(root):
            yield from _below(root, selection, excluded, problem)


def _below(
    root: str, selection: Selection, excluded: Patterns, problem: Problem
) -> Iterator[Found]:
    above, name = os.path.split(root)
    levels = [_Level(above, os.open(above, _FOLDER), -1, iter((name or ".",)))]
    try:
        while levels:
            level = levels[-1]
            name = next(level.names, "")
            if not name:
                os.close(levels.pop().fd)
                continue
            path = root if len(levels) == 1 else os.path.join(level.path, name)
            if len(levels) > 1 and excluded.match(path):
                continue
            try:
                status = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it was deleted since its folder was listed
            except OSError as error:
                problem(path, error.strerror or str(error))
                continue
            yield Found(path, level.fd, name, status)
            if not stat.S_ISDIR(status.st_mode):
                continue
            if selection.one_file_system and level.device not in (-1, status.st_dev):
                continue
            if (deeper := _entered(level, name, path, selection, problem)) is not None:
                levels.append(deeper)
    finally:
        for level in levels:
            os.close(level.fd)


def _entered(
    level: _Level, name: str, path: str, selection: Selection, problem: Problem
) -> _Level | None:
    fd = -1
    try:
        fd = os.open(name, _FOLDER, dir_fd=level.fd)
        names = sorted(os.listdir(fd))
        kept = [tag for tag in selection.if_present if tag in names]
        if selection.caches and CACHE_TAG in names and _is_cache(fd):
            kept.append(CACHE_TAG)
        device = os.fstat(fd).st_dev
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        if not isinstance(error, FileNotFoundError):
            problem(path, error.strerror or str(error))
        return None
    return _Level(path, fd, device, iter(kept or names))


def _is_cache(folder: int) -> bool:
    try:
        fd = os.open(
            CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
        )
    except OSError:
        return False
    try:
        return os.read(fd, len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)
