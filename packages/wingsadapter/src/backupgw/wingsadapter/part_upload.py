"""The adapter `s3`: a finished archive goes to where the Panel says, in parts.

The Panel has begun an upload in parts and gives an address for each, signed by it; what the node
reports back are the ETags, and the Panel ends the upload. So the size is told before, each part is
of the size that the Panel names (but the last), and nothing of the bucket's credentials is here.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeGuard
from urllib.parse import urlsplit

import httpx

from .archive import PIECE

log = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_PAUSE = 1.0
"""Seconds before a part is sent again; twice as long each time, up to LONGEST_PAUSE."""
LONGEST_PAUSE = 30.0
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""Seconds without a byte, not for a whole part."""
MAX_AT_ONCE = 8
MAX_PARTS = 10_000
"""S3's own limit."""


class UploadError(Exception):
    """An archive could not be brought to where the Panel wants it. No message shows an address:
    the signature in it is as good as a password."""


@dataclass(frozen=True)
class PartPlan:
    """Where the Panel wants the parts.

    Attributes:
        urls: one for each part, signed.
        part_size: bytes of each part but the last.
        at_once: how many may be on their way.
    """

    urls: tuple[str, ...] = field(repr=False)
    part_size: int
    at_once: int = 1

    @classmethod
    def from_answer(cls, answer: object, size: int) -> PartPlan:
        """Read the Panel's answer for an archive of `size` bytes.

        Raises:
            UploadError: it is not what it has to be, or too little for that size.
        """
        if not isinstance(answer, dict):
            raise UploadError("the Panel's answer for the upload is no object")
        urls, part_size = answer.get("parts"), answer.get("part_size")
        at_once = answer.get("max_concurrent_uploads", 1)
        if (
            not isinstance(urls, list)
            or not all(isinstance(url, str) for url in urls)
            or not _is_count(part_size)
        ):
            raise UploadError("the Panel's answer for the upload lacks parts or part_size")
        if any(urlsplit(url).scheme not in ("http", "https") for url in urls):
            raise UploadError("the Panel's answer for the upload has an address that is none")
        needed = max(1, -(-size // part_size))
        if len(urls) != needed or needed > MAX_PARTS:
            raise UploadError(
                f"the Panel gave {len(urls)} addresses for {needed} parts of {part_size} bytes"
            )
        return cls(tuple(urls), part_size, min(at_once, MAX_AT_ONCE) if _is_count(at_once) else 1)


@dataclass(frozen=True)
class UploadedPart:
    """What is reported of a part: the header as it came, quotes and all."""

    etag: str
    part_number: int


def upload_parts(
    archive: int,
    size: int,
    plan: PartPlan,
    *,
    tell: Callable[[int], object] = lambda _: None,
    take: Callable[[int], object] = lambda _: None,
    client: httpx.Client | None = None,
) -> list[UploadedPart]:
    """Send an archive; memory holds a piece of each part that is on its way.

    Args:
        archive: its descriptor; read by offset, so that its position does not matter.
        size: its bytes.
        plan: the Panel's.
        tell: told of the bytes that arrived so far, from several threads, but never at once; what
            it raises ends the work.
        take: called before each piece with its size, to hold to a rate.
        client: of httpx; by default one that follows no redirect and heeds no proxy variables.

    Raises:
        UploadError: a part was refused, or did not arrive after several attempts.
    """
    own = client is None
    client = client or httpx.Client(follow_redirects=False, trust_env=False, timeout=TIMEOUT)
    uploading = _Uploading(client, archive, size, plan, tell, take)
    try:
        with ThreadPoolExecutor(plan.at_once, "part upload") as threads:
            futures = [threads.submit(uploading.part, number) for number in range(len(plan.urls))]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                uploading.stop.set()
        # The first that failed says why; others only that they were ended.
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise next((e for e in errors if not isinstance(e, _Ended)), errors[0])
        return [future.result() for future in futures]
    finally:
        if own:
            client.close()


class _Uploading:
    def __init__(
        self,
        client: httpx.Client,
        archive: int,
        size: int,
        plan: PartPlan,
        tell: Callable[[int], object],
        take: Callable[[int], object],
    ) -> None:
        self.stop = threading.Event()
        self._client = client
        self._archive = archive
        self._size = size
        self._plan = plan
        self._tell = tell
        self._take = take
        self._lock = threading.Lock()
        self._done = 0

    def part(self, index: int) -> UploadedPart:
        """Send a part until it has arrived; where it cannot, no other one is begun."""
        if self.stop.is_set():
            raise _Ended("the upload was ended")
        try:
            return self._part(index)
        except BaseException:
            self.stop.set()
            raise

    def _part(self, index: int) -> UploadedPart:
        start = index * self._plan.part_size
        size = min(self._plan.part_size, self._size - start)
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            found = self._attempt(index, start, size)
            if isinstance(found, UploadedPart):
                return found
            if attempt == ATTEMPTS:
                break
            log.info("part %d is sent again: %s", index + 1, found)
            if self.stop.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads retries
                raise _Ended("the upload was ended")
            pause = min(pause * 2, LONGEST_PAUSE)
        raise UploadError(f"part {index + 1} of {len(self._plan.urls)} did not arrive: {found}")

    def _attempt(self, index: int, start: int, size: int) -> UploadedPart | str:
        """Send a part once. Returns why it is worth another attempt."""
        sent = _Sent()
        try:
            answer = self._client.put(
                self._plan.urls[index],
                content=self._pieces(start, size, sent),
                headers={"content-length": str(size), "content-type": "application/x-gzip"},
            )
        except httpx.HTTPError as error:
            self._told(-sent.bytes)
            return type(error).__name__
        if answer.status_code in (200, 201, 204):
            etag = answer.headers.get("etag", "")
            if not etag:
                raise UploadError(f"part {index + 1} was taken, but without an ETag")
            return UploadedPart(etag, index + 1)
        self._told(-sent.bytes)
        status = f"status {answer.status_code}"
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            return status
        raise UploadError(f"part {index + 1} of {len(self._plan.urls)} was refused: {status}")

    def _pieces(self, start: int, size: int, sent: _Sent) -> Iterator[bytes]:
        while sent.bytes < size:
            if self.stop.is_set():
                raise _Ended("the upload was ended")
            wanted = min(PIECE, size - sent.bytes)
            self._take(wanted)
            piece = os.pread(self._archive, wanted, start + sent.bytes)
            if not piece:
                raise UploadError("the archive became shorter while it was sent")
            yield piece
            sent.bytes += len(piece)
            self._told(len(piece))

    def _told(self, change: int) -> None:
        with self._lock:  # also while it is told, or what was told last might not be the latest
            self._done += change
            self._tell(self._done)


class _Ended(UploadError):
    """Another part failed."""


@dataclass
class _Sent:
    bytes: int = 0


def reported(parts: Sequence[UploadedPart]) -> list[dict[str, str | int]]:
    """Return the parts as the Panel is told of them."""
    return [{"etag": part.etag, "part_number": part.part_number} for part in parts]


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
