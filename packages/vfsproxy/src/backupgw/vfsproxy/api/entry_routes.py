"""What is in a folder: listed in pages or in one answer, or told of one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from backupgw.runtime.threads import Threads

from ..core import Core
from ..files import changes, names
from ..files.calling import on_thread
from ..files.conditions import entity_tag
from ..files.listing import Entry, Listings, entries
from ..files.names import lying
from ..files.refusals import missing
from ..folders.records import Permission
from .exchange import Headers
from .file_documents import (
    EntryDocument,
    EntryList,
    ListFiles,
    StatFile,
    StreamFiles,
    entry_document,
)
from .operation import Call, Media, NoModel, Operation
from .pieces import send_pieces, some_of


def entry_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations that tell what is in a folder."""
    routes = _EntryRoutes(core, threads)
    one = "/v1/folders/{folder}"
    return [
        Operation(
            "GET",
            f"{one}/stat",
            routes.stat,
            "Tell about a file or folder",
            parameters=StatFile,
            answer=EntryDocument,
            problems=(409,),
            tag="files",
        ),
        Operation(
            "GET",
            f"{one}/entries",
            routes.page,
            "List what is in the folder, or in one within, page by page",
            parameters=ListFiles,
            answer=EntryList,
            problems=(409, 410),
            tag="files",
        ),
        Operation(
            "GET",
            f"{one}/entries.ndjson",
            routes.stream,
            "List what is in the folder in one answer, a line for each entry",
            parameters=StreamFiles,
            gives=Media(("application/x-ndjson",), "an entry a line"),
            problems=(409,),
            tag="files",
            raw=True,
        ),
    ]


class _EntryRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._folders = core.folders
        self._threads = threads
        self._listings = Listings()

    def stat(self, call: Call[StatFile, NoModel]) -> EntryDocument:
        wanted = call.parameters
        access = self._folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
        name = lying(access.files, names.checked_folder(wanted.path))
        info = changes.look(access.files, name)
        etag = None if info.directory else entity_tag(info, time.time())
        return entry_document(name, info, etag)

    def page(self, call: Call[ListFiles, NoModel]) -> EntryList:
        wanted = call.parameters
        access = self._folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
        path = lying(access.files, names.checked_folder(wanted.path))
        page = self._listings.page(
            access.files,
            f"{access.folder.id}.{access.folder.generation}",
            path,
            recursive=wanted.recursive,
            size=wanted.limit,
            cursor=wanted.after,
        )
        items = [_entry(path, entry) for entry in page.entries]
        return EntryList(items=items, next=page.cursor)

    async def stream(self, call: Call[StreamFiles, NoModel]) -> None:
        wanted = call.parameters

        def begin() -> tuple[Iterator[bytes], list[bytes]]:
            access = self._folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
            path = lying(access.files, names.checked_folder(wanted.path))
            if not changes.look(access.files, path).directory:
                raise missing(path)
            found = entries(access.files, path, recursive=wanted.recursive)
            lines = (_line(path, entry) for entry in found)
            return lines, some_of(lines)

        lines, first = await on_thread(self._threads, wanted.path, begin)
        headers: Headers = [
            (b"content-type", b"application/x-ndjson"),
            (b"cache-control", b"no-store"),
        ]
        await send_pieces(call.exchange, self._threads, headers, lines, first)


def _entry(path: str, entry: Entry) -> EntryDocument:
    return entry_document(f"{path}/{entry.path}" if path else entry.path, entry.info)


def _line(path: str, entry: Entry) -> bytes:
    info = entry.info
    told = {
        "path": f"{path}/{entry.path}" if path else entry.path,
        "type": "folder" if info.directory else "file",
        "size": 0 if info.directory else info.size,
        "modified": info.mtime or None,
    }
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"
