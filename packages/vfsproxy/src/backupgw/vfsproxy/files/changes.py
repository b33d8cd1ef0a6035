"""Changing what is in a folder: making, renaming, copying, deleting; never over something unasked.

Trees are changed item by item, since that is what volumes have in common, and each item keeps its
accounts right. What is under way is told by `report`, which may also end it: what was done by then
stays, and doing the same again does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backupgw.kvstore.backends.base import CHUNK, Backend, ItemInfo
from backupgw.kvstore.backends.errors import (
    BackendError,
    ObjectNotFound,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.walking import Found, walk

from .parents import check_parents
from .refusals import FileRefusal, exists, missing

Report = Callable[[int], object]
"""Called after every item with the number of those done; raises to end the work."""


def silent(_done: int) -> None:
    """A `Report` for nobody."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a move or copy: a path in a folder.

    Attributes:
        place: the folder's.
        key: tells the folder from any other.
        name: the path, checked.
    """

    place: Backend
    key: str
    name: str

    def below(self, path: str) -> End:
        """Return what lies at `path` beneath this."""
        return End(self.place, self.key, f"{self.name}/{path}")


Native = Callable[[str, str], None]
"""Moves or copies an item, by its path at either end, in one step of the volume's;
never over another. Raises UnsupportedOperation where it cannot."""


def look(place: Backend, name: str) -> ItemInfo:
    """Return what is at a path. Raises FileRefusal: 404, nothing is."""
    info = place.info(name)
    if not info.exists:
        raise missing(name)
    return info


def make_folder(place: Backend, name: str, *, parents: bool, exist_ok: bool) -> bool:
    """Make a folder; return whether there was none.

    Args:
        parents: those above it too, where they are missing.
        exist_ok: one that is there is fine.

    Raises:
        FileRefusal: 409, something has the name; 404, what is above it is missing.
    """
    info = place.info(name)
    if info.exists:
        if info.directory and exist_ok:
            return False
        raise exists(name)
    above = name.rpartition("/")[0]
    check_parents(place, name)
    if above and not parents and not place.info(above).exists:
        raise missing(above)
    place.mkdir(name)
    return True


def delete(place: Backend, name: str, *, recursive: bool, report: Report = silent) -> int:
    """Delete a file, or a folder with all that is in it; return how many files and folders.

    Raises:
        FileRefusal: 404; 409, a folder that is not empty was not to be deleted with its content.
    """
    if not look(place, name).directory:
        place.delete(name)
        report(1)
        return 1
    if not recursive and next(iter(place.list(name)), None) is not None:
        raise FileRefusal(
            409, "folder-not-empty", f"{name!r} is not empty; ask to delete all that is in it"
        )
    done = 0
    for found in walk(place, name):
        try:
            if found.left:
                _rmdir(place, found.path)
            elif not found.info.directory:
                place.delete(found.path)
            else:
                continue
        except ObjectNotFound:
            continue  # somebody else deletes it too, or the volume has no empty folders
        done += 1
        report(done)
    _rmdir(place, name)
    report(done + 1)
    return done + 1


def move(
    source: End,
    target: End,
    *,
    overwrite: bool,
    native: Native | None = None,
    report: Report = silent,
) -> int:
    """Give a file or folder another name, perhaps in another folder; return how many items.

    A folder that takes the place of another would mix the two: it is refused, asked or not.

    Args:
        native: for two folders; without it bytes are copied, and deleted at the source.

    Raises:
        FileRefusal: 404; 409, the name is taken, or a folder would come to lie in itself.
    """
    info = look(source.place, source.name)
    if source.key == target.key and source.name == target.name:
        return 0
    _check_way(source, target, info, overwrite=overwrite)
    if not info.directory:
        _move_item(source, target, overwrite=overwrite, native=native)
        report(1)
        return 1
    done = 0
    for found in _below(source):
        here, there = source.below(found.path), target.below(found.path)
        if not found.info.directory:
            # A move that was broken off is carried on: what is there already was moved then.
            _move_item(here, there, overwrite=False, native=native)
        elif found.left:
            if found.entries == 0:
                there.place.mkdir(there.name)
            _rmdir(here.place, here.name)
        else:
            continue
        done += 1
        report(done)
    if not target.place.info(target.name).exists:
        target.place.mkdir(target.name)
    _rmdir(source.place, source.name)
    report(done + 1)
    return done + 1


def copy(
    source: End,
    target: End,
    *,
    overwrite: bool,
    native: Native | None = None,
    report: Report = silent,
) -> int:
    """Copy a file, or a folder with all that is in it; return how many items.

    Args:
        native: for two folders.

    Raises:
        FileRefusal: as `move`.
    """
    info = look(source.place, source.name)
    if source.key == target.key and source.name == target.name:
        raise exists(target.name)
    _check_way(source, target, info, overwrite=overwrite)
    if not info.directory:
        copy_item(source, target, overwrite=overwrite, native=native)
        report(1)
        return 1
    target.place.mkdir(target.name)
    done = 0
    for found in _below(source):
        here, there = source.below(found.path), target.below(found.path)
        if not found.info.directory:
            copy_item(here, there, overwrite=False, native=native)
        elif found.left and found.entries == 0:
            there.place.mkdir(there.name)
        else:
            continue
        done += 1
        report(done)
    return done + 1


def copy_item(source: End, target: End, *, overwrite: bool, native: Native | None = None) -> None:
    """Copy a file.

    Raises:
        ObjectExists: there is one at the target, which is not to be replaced.
    """
    if overwrite or not target.place.info(target.name).exists:
        # By a way of the volume's, which replaces: the look before it is all that can be had.
        try:
            if native is not None:
                native(source.name, target.name)
                return
            if source.key == target.key and source.place.capabilities.copy:
                source.place.copy(source.name, target.name)
                return
        except UnsupportedOperation:
            pass
    with (
        source.place.open_reader(source.name) as reader,
        target.place.open_writer(
            target.name, size=reader.item_size, if_absent=not overwrite
        ) as writer,
    ):
        while chunk := reader.read(CHUNK):
            writer.write(chunk)


def _move_item(source: End, target: End, *, overwrite: bool, native: Native | None) -> None:
    if source.key == target.key:
        if overwrite:
            source.place.move(source.name, target.name)
        else:
            source.place.move_if_absent(source.name, target.name)
        return
    if native is not None:
        try:
            native(source.name, target.name)
            return
        except UnsupportedOperation:
            pass
    copy_item(source, target, overwrite=overwrite)
    source.place.delete(source.name)


def _check_way(source: End, target: End, info: ItemInfo, *, overwrite: bool) -> None:
    if (
        info.directory
        and source.key == target.key
        and f"{target.name}/".startswith(f"{source.name}/")
    ):
        raise FileRefusal(409, "into-itself", "a folder cannot be put into itself")
    there = target.place.info(target.name)
    if not there.exists:
        check_parents(target.place, target.name)
    elif info.directory or there.directory or not overwrite:
        raise exists(target.name)


def _below(folder: End) -> Iterator[Found]:
    """Yield what is below a folder, with paths below it."""
    cut = len(folder.name) + 1
    for found in walk(folder.place, folder.name):
        yield Found(found.path[cut:], found.info, found.left, found.entries)


def _rmdir(place: Backend, name: str) -> None:
    try:
        place.rmdir(name)
    except ObjectNotFound:
        return  # volumes without real folders lose them with their last item
    except BackendError as error:
        if error.retryable or isinstance(error, PermissionDenied):
            raise
        raise FileRefusal(
            409, "folder-not-empty", f"something came into {name!r} meanwhile; do it again"
        ) from error
