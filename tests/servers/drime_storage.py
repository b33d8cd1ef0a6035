"""The storage beside Drime's API: it takes parts, and gives out files to whoever has a signed link.

It refuses whoever shows it the API's key.
"""

from __future__ import annotations

import calendar
import re
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .drime_entries import Account, Entry

PIECE = 256 << 10


def storage_of(account: Account) -> Starlette:
    """Return the storage beside an account, as an application."""

    async def part(request: Request) -> Response:
        return await _take(request, request.path_params["number"])

    async def whole(request: Request) -> Response:
        return await _take(request, 0)

    async def _take(request: Request, number: int) -> Response:
        upload = account.uploads.get(request.path_params["upload"])
        path, check = account.new_file(), 0
        with path.open("wb") as file:
            async for piece in request.stream():
                check = zlib.crc32(piece, check)
                file.write(piece)
        tag = f"{check:08x}-{path.stat().st_size}"  # S3's is MD5: clients take it as it is
        if (refusal := _stranger(request)) is not None:
            return refusal
        if upload is None:
            return Response("<Error><Code>NoSuchUpload</Code></Error>", 404)
        upload.parts[number] = path, tag
        if number == 0:
            upload.done = [path]
        return Response(headers={"ETag": f'"{tag}"'})

    async def get(request: Request) -> Response:
        if (refusal := _stranger(request)) is not None:
            return refusal
        entry = account.entries.get(request.path_params["id"])
        if entry is None or entry.content is None:
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404)
        return content_of(request, entry, account)

    return Starlette(
        routes=[
            Route("/part/{upload}/{number:int}", part, methods=["PUT"]),
            Route("/whole/{upload}", whole, methods=["PUT"]),
            Route("/object/{id:int}", get),
        ]
    )


def signature(seconds: int | None) -> str:
    """Return the query of a signed link, with the names that S3's presigned URLs have."""
    if seconds is None:
        return "signature=1"
    made = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"X-Amz-Date={made}&X-Amz-Expires={seconds}&signature=1"


def _run_out(query: Any) -> bool:
    """Whether a signed link is older than it may become."""
    if "X-Amz-Date" not in query:
        return False
    made = calendar.timegm(time.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    return time.time() > made + int(query["X-Amz-Expires"])


def _stranger(request: Request) -> Response | None:
    """Refuse who shows the API's key to a host that is none of its business, or has no URL."""
    if "Authorization" in request.headers:
        return Response("<Error><Code>InvalidArgument</Code></Error>", 400)
    if request.query_params.get("signature") != "1" or _run_out(request.query_params):
        return Response("<Error><Code>AccessDenied</Code></Error>", 403)
    return None


def content_of(request: Request, entry: Entry, account: Account) -> Response:
    """Answer with the bytes of a file, or with those that were asked for."""
    assert entry.content is not None
    size = sum(path.stat().st_size for path in entry.content)
    first, last, status = 0, size - 1, 200
    headers = {"Content-Type": "application/octet-stream"}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if account.switches.ranges and wanted is not None and (wanted[1] or wanted[2]):
        if wanted[1]:
            first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        else:
            first = max(0, size - int(wanted[2]))
        if first >= size or first > last:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    account.fetched += last - first + 1
    return StreamingResponse(_pieces(entry.content, first, last + 1), status, headers)


async def _pieces(content: Any, start: int, end: int) -> AsyncIterator[bytes]:
    at = 0
    for path in content:
        size = path.stat().st_size
        if at + size > start and at < end:
            with path.open("rb") as file:
                file.seek(max(0, start - at))
                left = min(at + size, end) - max(at, start)
                while left and (piece := file.read(min(PIECE, left))):
                    left -= len(piece)
                    yield piece
        at += size
