"""How an item is read out of Dropbox, or a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dropbox import files

from .base import Reader
from .body_reader import BodyReader
from .dropbox_calls import Calls
from .dropbox_errors import ERRORS, translate
from .errors import BackendError

if TYPE_CHECKING:
    from requests import Response

_RANGE_NOT_SATISFIABLE = 416


class NothingThere(BackendError):
    """The item has no bytes where it was to be read."""


class Download(NamedTuple):
    """An answer with an item's bytes, and what is told of the item."""

    found: files.FileMetadata
    response: Response

    def close(self) -> None:
        """Let go of it."""
        self.response.close()

    def reader(self, name: str, offset: int, size: int | None) -> Reader:
        """Return what reads it, as `begin` was asked."""
        found = self.found
        start = max(0, found.size + offset) if offset < 0 else offset
        rest = found.size - start
        return BodyReader(
            name,
            _Body(self.response),
            item_size=found.size,
            remaining=rest if size is None else min(size, rest),
            version=found.rev,
            errors=(*ERRORS, _http_error()),
            translate=lambda error: translate(error, name),
        )


def begin(calls: Calls, name: str, path: str, offset: int, size: int | None) -> Download:
    """Begin to read.

    Args:
        path: of the item, or `rev:` with its revision.
        offset: of the first byte; negative: of the last ones, then `size` is None.
        size: bytes, at least one; None for all the rest.

    Raises:
        NothingThere: it is shorter.
        ObjectNotFound: there is none.
    """
    headers = {}
    if offset or size is not None:
        end = "" if size is None else str(offset + size - 1)
        headers["Range"] = f"bytes={offset}-{end}" if offset >= 0 else f"bytes={offset}"
    try:
        with calls.translated(name):
            found, response = calls.client().request(
                files.download, "files", files.DownloadArg(path), None, extra_headers=headers
            )
    except BackendError as error:
        if getattr(error.__cause__, "status_code", None) == _RANGE_NOT_SATISFIABLE:
            raise NothingThere(name) from error
        raise
    return Download(found, response)


class _Body:
    """The body of a download, as it is sent."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        data: bytes = self._response.raw.read(size, decode_content=False)
        return data

    def close(self) -> None:
        self._response.close()


def _http_error() -> type[Exception]:
    from urllib3.exceptions import HTTPError

    return HTTPError
