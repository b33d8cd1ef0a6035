"""What Google Cloud Storage answers with: an object's bytes, or a part of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import google_crc32c

from .errors import BackendError
from .gcs_checksums import encoded_crc

if TYPE_CHECKING:
    import requests

SERVICE = "Google Cloud Storage"


@dataclass(frozen=True, slots=True)
class Download:
    """An answer with an object's bytes, or a part of them."""

    response: requests.Response
    size: int
    """Of the whole object."""
    length: int
    """Of what comes."""
    generation: str | None
    crc32c: str | None
    """Of what comes, where it is the whole object."""


class Body:
    """The body of a download; a whole one is held against its CRC."""

    def __init__(self, download: Download, what: str) -> None:
        self._response = download.response
        self._left = download.length
        self._expected = download.crc32c
        self._crc = 0
        self._what = what

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, b"" at the end.

        Raises:
            BackendError: they are not what was stored.
        """
        data: bytes = self._response.raw.read(size, decode_content=False)
        if self._expected is not None:
            self._crc = google_crc32c.extend(self._crc, data)
            self._left -= len(data)
            if not self._left and encoded_crc(self._crc) != self._expected:
                raise BackendError(f"{self._what}: came damaged from {SERVICE}: its CRC differs")
        return data

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()


def download_of(response: requests.Response, what: str) -> Download:
    """Return what an answer with bytes says of them.

    Raises:
        BackendError: it is a part, and nobody knows of what.
    """
    headers = response.headers
    length = int(headers["content-length"])
    span = re.search(r"/(\d+)\Z", headers.get("content-range", ""))
    told = re.search(r"crc32c=([^,\s]+)", headers.get("x-goog-hash", ""))
    if response.status_code == 206 and span is None:
        raise BackendError(f"{what}: {SERVICE} sends a part and does not say which")
    size = int(span[1]) if span else length
    return Download(
        response,
        size,
        length,
        headers.get("x-goog-generation"),
        told[1] if told and length == size else None,
    )
