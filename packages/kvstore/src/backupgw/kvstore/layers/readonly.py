"""Nothing changes: every operation that would is refused with one clear error.

Reading goes through untouched, native operations included. `sync` does too: it makes durable what
is there already. `reap` removes nothing and says so, since upkeep runs on every place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from ..backends.base import Backend, Capabilities, Quota, Writer
from ..backends.errors import PermissionDenied
from ..names import check_folder, check_path
from .base import ReadingThrough, changed


def from_options(inner: Backend) -> ReadOnlyLayer:
    """The layer takes no options."""
    return ReadOnlyLayer(inner)


class ReadOnlyLayer(ReadingThrough):
    """A place that nobody can change through here.

    Raises:
        PermissionDenied: from everything that would change an item, a folder or the place.
    """

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        return changed(
            self.inner.capabilities,
            resumable_write=False,
            copy=False,
            local_path=False,
            snapshots=False,
        )

    # -- refused; names are checked first, so that a bad one is told as such

    def create(self) -> NoReturn:
        _refuse("create")

    def destroy(self) -> NoReturn:
        _refuse("destroy")

    def mkdir(self, name: str) -> NoReturn:
        _refuse("mkdir", check_folder(name))

    def mkdirs(self, names: Iterable[str]) -> NoReturn:  # noqa: ARG002 - the signature is Backend's
        _refuse("mkdirs")

    def rmdir(self, name: str) -> NoReturn:
        _refuse("rmdir", check_path(name))

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,  # noqa: ARG002
        if_absent: bool = False,  # noqa: ARG002
        expected_hash: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        _refuse("write", check_path(name))

    def resume_writer(self, token: str) -> Writer:  # noqa: ARG002
        _refuse("resume a write")

    def abort_writer(self, token: str) -> None:  # noqa: ARG002
        _refuse("abort a write")

    def delete(self, name: str) -> NoReturn:
        _refuse("delete", check_path(name))

    def move(self, name: str, new_name: str) -> NoReturn:
        check_path(new_name)
        _refuse("move", check_path(name))

    def move_if_absent(self, name: str, new_name: str) -> NoReturn:
        self.move(name, new_name)

    def copy(self, name: str, new_name: str) -> NoReturn:
        check_path(new_name)
        _refuse("copy", check_path(name))

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> NoReturn:
        for name, _, _ in sources:
            check_path(name)
        _refuse("defrag", check_path(target))

    def quarantine(self, name: str) -> NoReturn:
        _refuse("set aside", check_path(name))

    def reap(self, older_than: float) -> int:  # noqa: ARG002
        return 0

    # -- reading

    def quota(self) -> Quota:
        return self.inner.quota()


def _refuse(operation: str, name: str = "") -> NoReturn:
    what = f"{name}: " if name else ""
    raise PermissionDenied(f"{what}{operation} is refused: this place is read-only")
