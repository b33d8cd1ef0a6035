"""Requests to Dropbox: made again where that helps, their errors in the kernel's family."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias, TypeVar

import dropbox as sdk
from dropbox import files

from ..layers.retry_schedule import Schedule
from .dropbox_client import Login
from .dropbox_errors import ERRORS, tags, translate
from .dropbox_target import WrongOffset
from .errors import BackendConnectionError, BackendMustBeOpen
from .part_transfers import Attempts

T = TypeVar("T")

_PAGE = 400
"""Entries asked for at a time; the library makes heavy objects of them."""

Found: TypeAlias = files.FileMetadata | files.FolderMetadata


class Calls:
    """What is asked of an account.

    Args:
        login: how it signs in.
        schedule: how often and how long a request is repeated.
        label: what messages call the place.
    """

    def __init__(self, login: Login, schedule: Schedule, label: str) -> None:
        self._login = login
        self._schedule = schedule
        self._label = label
        self._client: sdk.Dropbox | None = None

    def connect(self) -> None:
        """Get ready."""
        self._client = self._login.client()

    def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self.client(), None
        client.close()

    def client(self) -> sdk.Dropbox:
        """Return the library's client. Raises BackendMustBeOpen."""
        if self._client is None:
            raise BackendMustBeOpen(f"{self._label} is not open")
        return self._client

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """What the library raises leaves the block as the kernel's."""
        try:
            yield
        except sdk.exceptions.ApiError as error:
            offset = _correct_offset(error)
            if offset is not None:
                raise WrongOffset(f"{what}: the upload is at {offset}", offset) from error
            raise translate(error, what) from error
        except ERRORS as error:
            raise translate(error, what) from error
        except AssertionError as error:  # the library's way to say that an answer is no JSON
            raise BackendConnectionError(
                f"{what}: it is not Dropbox that answers: {error}"
            ) from error

    def do(self, what: str, work: Callable[[], T]) -> T:
        """Make a request that may be made again."""

        def attempt() -> T:
            with self.translated(what):
                return work()

        return Attempts(self._schedule, what).result(attempt)

    def once(self, what: str, work: Callable[[], object], *, done: Callable[[], bool]) -> None:
        """Make a request that has its effect once; `done` tells whether a lost one had it."""

        def attempt() -> None:
            with self.translated(what):
                work()

        Attempts(self._schedule, what).land(attempt, done)

    def look(self, what: str, path: str) -> Found:
        """Return what there is. Raises ObjectNotFound."""
        return self.do(what, lambda: self.client().files_get_metadata(path))

    def rename(self, what: str, path: str, new_path: str) -> None:
        """Give a file or folder another path."""
        self.do(what, lambda: self.client().files_move_v2(path, new_path))

    def remove(self, what: str, path: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        self.do(what, lambda: self.client().files_delete_v2(path))

    def entries(self, path: str) -> Iterator[Found]:
        """List what is in a folder."""
        what = path or "the folder"
        page = self.do(what, lambda: self.client().files_list_folder(path, limit=_PAGE))
        while True:
            cursor = page.cursor if page.has_more else None
            entries, page = page.entries, None
            while entries:
                yield entries.pop()
            if cursor is None:
                return
            page = self.do(what, partial(self._next_page, cursor))

    def _next_page(self, cursor: str) -> files.ListFolderResult:
        return self.client().files_list_folder_continue(cursor)


def _correct_offset(error: sdk.exceptions.ApiError) -> int | None:
    """Return where a session is, when it was told a wrong offset."""
    if "incorrect_offset" not in tags(error.error):
        return None
    inner = error.error
    if inner.is_lookup_failed() if hasattr(inner, "is_lookup_failed") else False:
        inner = inner.get_lookup_failed()
    offset: int = inner.get_incorrect_offset().correct_offset
    return offset
