"""How an item is read out of B2, or a part of it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from b2sdk.v3.exception import B2Error

from ..layers.retry_reader import ReplacedMeanwhile
from .b2_session import Bucket
from .base import Reader
from .body_reader import BodyReader, NoBytes
from .errors import BackendError, ObjectNotFound

_PIECE = 256 << 10


def open_range(
    bucket: Bucket, name: str, offset: int, size: int | None, version: str | None
) -> Reader:
    """Begin to read an item; see `body_reader.open_steadily`."""
    wanted: tuple[int, int | None] | None = None
    if offset or size is not None:
        newest = bucket.head(name)
        if newest is None:
            raise ObjectNotFound(name)
        total = newest.size
        first = max(total + offset, 0) if offset < 0 else min(offset, total)
        count = total - first if size is None else min(size, total - first)
        if not count:
            return NoBytes(total, newest.id)
        version, wanted = version or newest.id, (first, first + count - 1)
    url = (
        bucket.session.get_download_url_by_name(bucket.name, bucket.file(name))
        if version is None
        else bucket.session.get_download_url_by_id(version)
    )
    try:
        with bucket.translate.call(
            name, bucket.session.download_file_from_url, url, range_=wanted
        ) as response:
            return _reader(bucket, name, response, wanted)
    except ObjectNotFound as error:
        if version is None:
            raise
        raise ReplacedMeanwhile(f"{name}: it was replaced or removed meanwhile") from error


def _reader(
    bucket: Bucket, name: str, response: Any, wanted: tuple[int, int | None] | None
) -> BodyReader:
    headers = {key.lower(): value for key, value in response.headers.items()}
    length = int(headers["content-length"])
    span = re.search(r"/(\d+)\Z", headers.get("content-range") or "")
    return BodyReader(
        name,
        _Body(response),
        item_size=int(span[1]) if wanted is not None and span else length,
        remaining=wanted[1] - wanted[0] + 1 if wanted and wanted[1] is not None else length,
        version=str(headers["x-bz-file-id"]),
        errors=(OSError, B2Error, ValueError),
        translate=partial(_broken, bucket, name),
    )


def _broken(bucket: Bucket, name: str, error: Exception) -> BackendError:
    if isinstance(error, B2Error):
        return bucket.translate.error(error, name)
    return BackendError(f"{name}: the connection broke in an answer", retryable=True)


class _Body:
    """What the SDK hands out for an answer's body, to be read like a file."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._pieces = response.iter_content(chunk_size=_PIECE)
        self._held = b""

    def read(self, size: int, /) -> bytes:
        if not self._held:
            self._held = next(self._pieces, b"")
        data, self._held = self._held[:size], self._held[size:]
        return data

    def close(self) -> None:
        self._response.close()
