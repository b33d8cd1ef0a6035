"""A folder of a place as a place of its own.

Whoever uses it cannot name anything outside: each name is checked before the folder's is put in
front of it, so neither `..` nor a name of the kernel's gets through, and everything that is told
of items is relative to the folder. Errors tell the full name, for the log of the operator; a
service does not pass them on to clients.

`create` makes the inner place too where there is none, `destroy` removes the folder alone. What
the kernel keeps (quarantine, what dead writers left) is the inner place's, and `reap` is too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..backends.base import Backend, Capabilities, ItemInfo, Reader, Writer
from ..backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    ObjectNotFound,
)
from ..names import InvalidName, check_folder, check_path, joined
from .base import Layer, changed
from .options import OptionInvalid, text
from .wrapped import WrappedWriter


def from_options(inner: Backend, *, folder: object) -> PrefixLayer:
    """`folder`: the path within the place, such as "clients/alice"."""
    try:
        return PrefixLayer(inner, text("folder", folder))
    except InvalidName as error:
        raise OptionInvalid("folder", f"{error}; write a path without / at its ends") from None


class PrefixLayer(Layer):
    """What lies beneath a folder of `inner`.

    Args:
        folder: its path; raises InvalidName for what is none.
    """

    def __init__(self, inner: Backend, folder: str) -> None:
        super().__init__(inner)
        self.folder = check_path(folder)
        self._opened = False

    def __repr__(self) -> str:
        return f"PrefixLayer({self.inner!r}, {self.folder!r})"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        """The inner backend's; its figures and snapshots are of the whole place."""
        return changed(self.inner.capabilities, local_path=False, quota=False, snapshots=False)

    def _full(self, name: str) -> str:
        return joined(self.folder, check_path(name))

    def _full_folder(self, name: str) -> str:
        return joined(self.folder, check_folder(name))

    # -- the place itself

    def create(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen(f"{self.folder} is open")
        try:
            self.inner.open()
        except BackendDoesNotExist:
            self.inner.create()
            self.inner.open()
        try:
            info = self.inner.info(self.folder)
            if info.exists and not (info.directory and self._is_empty()):
                raise BackendAlreadyExists(f"{self.folder} exists and is not an empty folder")
            self.inner.mkdir(self.folder)
        finally:
            self.inner.close()

    def _is_empty(self) -> bool:
        return next(self.inner.list(self.folder), None) is None

    def destroy(self) -> None:
        """Remove the folder with all that is in it, and nothing else."""
        if self._opened:
            raise BackendMustNotBeOpen(f"{self.folder} is open")
        with self.inner:
            self._must_exist()
            self._remove(self.folder)

    def _remove(self, folder: str) -> None:
        for info in self.inner.list(folder):
            name = f"{folder}/{info.name}"
            try:
                if info.directory:
                    self._remove(name)
                else:
                    self.inner.delete(name)
            except ObjectNotFound:
                continue  # somebody else removes it too
        try:
            self.inner.rmdir(folder)
        except ObjectNotFound:
            return  # places without real folders lose them with their last item
        except BackendError as error:
            if error.retryable or next(self.inner.list(folder), None) is not None:
                raise
            raise BackendError(
                f"{folder}: nothing is left in it but writes that have not ended; the place clears "
                "them away in time (reap), then the folder can be removed"
            ) from error

    def open(self) -> None:
        self.inner.open()
        try:
            self._must_exist()
        except BaseException:
            self.inner.close()
            raise
        self._opened = True

    def _must_exist(self) -> None:
        if not self.inner.info(self.folder).directory:
            raise BackendDoesNotExist(f"{self.folder}: there is no such folder in the place")

    def close(self) -> None:
        if not self._opened:
            raise BackendMustBeOpen(f"{self.folder} is not open")
        self._opened = False
        self.inner.close()

    # -- folders and items

    def mkdir(self, name: str) -> None:
        self.inner.mkdir(self._full_folder(name))

    def mkdirs(self, names: Iterable[str]) -> None:
        self.inner.mkdirs(self._full_folder(name) for name in names)

    def rmdir(self, name: str) -> None:
        self.inner.rmdir(self._full(name))

    def info(self, name: str) -> ItemInfo:
        return self.inner.info(self._full_folder(name))._replace(name=name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        return self.inner.list(self._full_folder(name))

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        return self.inner.open_reader(self._full(name), offset=offset, size=size)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        return self.inner.open_reader_nowait(self._full(name), offset=offset, size=size)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(
            self._full(name), size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        return PrefixWriter(writer, self.folder)

    def resume_writer(self, token: str) -> Writer:
        return PrefixWriter(self.inner.resume_writer(self._inner_token(token)), self.folder)

    def abort_writer(self, token: str) -> None:
        self.inner.abort_writer(self._inner_token(token))

    def keep_writer(self, token: str) -> None:
        self.inner.keep_writer(self._inner_token(token))

    def reserve_writer(
        self, name: str, *, size: int, if_absent: bool = False, seconds: float | None = None
    ) -> str:
        token = self.inner.reserve_writer(
            self._full(name), size=size, if_absent=if_absent, seconds=seconds
        )
        return f"{self.folder}\n{token}"

    def _inner_token(self, token: str) -> str:
        """Refuse checkpoints of other folders: their names lie outside."""
        folder, separator, inner = token.partition("\n")
        if not separator or folder != self.folder:
            raise ValueError("not a token of a checkpoint of this folder")
        return inner

    def delete(self, name: str) -> None:
        self.inner.delete(self._full(name))

    def delete_sized(self, name: str) -> int:
        return self.inner.delete_sized(self._full(name))

    def move(self, name: str, new_name: str) -> None:
        self.inner.move(self._full(name), self._full(new_name))

    def move_if_absent(self, name: str, new_name: str) -> None:
        self.inner.move_if_absent(self._full(name), self._full(new_name))

    # -- optional operations, all safe once the names are mapped

    def sync(self, name: str) -> None:
        self.inner.sync(self._full(name))

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        return self.inner.hash(self._full(name), algorithm)

    def copy(self, name: str, new_name: str) -> None:
        self.inner.copy(self._full(name), self._full(new_name))

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        return self.inner.gather(
            [(self._full(name), offset, size) for name, offset, size in sources]
        )

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        mapped = [(self._full(name), offset, size) for name, offset, size in sources]
        self.inner.defrag(mapped, self._full(target))

    def quarantine(self, name: str) -> str:
        """Where it is kept is told as the inner place has it."""
        return self.inner.quarantine(self._full(name))


class PrefixWriter(WrappedWriter):
    """Marks its checkpoints with the folder that they belong to."""

    def __init__(self, writer: Writer, folder: str) -> None:
        super().__init__(writer)
        self._folder = folder

    def commit_over(self, kept: str) -> None:
        self._writer.commit_over(joined(self._folder, check_path(kept)))

    def checkpoint(self) -> str:
        return f"{self._folder}\n{self._writer.checkpoint()}"
