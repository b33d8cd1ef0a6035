"""Files: their bytes in and out, listings, and changes of what is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice

from backupgw.kvstore.backends.base import Backend
from backupgw.runtime.threads import Threads

from ..core import Core
from ..files import archive, changes, names
from ..files.calling import on_thread
from ..files.conditions import entity_tag
from ..files.disposition import attachment
from ..files.download import send_file
from ..files.incoming import ClientLeft
from ..files.listing import Entry, Listings, entries
from ..files.refusals import missing
from ..files.upload import receive_file
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..identity import Identity
from ..problems import Problem
from .exchange import ClientGone, Headers
from .file_documents import (
    ArchiveFiles,
    ChecksumDocument,
    ChecksumFile,
    DeleteFile,
    DeleteFiles,
    DoneDocument,
    EntryDocument,
    EntryList,
    FileParameters,
    ListFiles,
    MakeFolder,
    PutFile,
    StatFile,
    StreamFiles,
    Transfer,
    entry_document,
)
from .models import FolderParameters
from .operation import Answer, Call, Media, NoModel, Operation

_READING = {
    "Range": "bytes=FIRST-LAST; several ranges are answered with the whole",
    "If-Range": "an ETag: the whole file unless it is still this one",
    "If-None-Match": "an ETag: 304 while it is still this one",
    "If-Modified-Since": "a date: 304 unless it was changed since",
    "If-Match": "an ETag: 412 unless it is still this one",
}
_TELLING = {
    "ETag": "changes with the file",
    "Last-Modified": "where the volume tells",
    "Content-Disposition": "the file's name",
}
_BATCH = 500
"""Entries of a streamed listing, or pieces of an archive, that a thread makes at a time."""


def file_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations on what is in a folder."""
    routes = _FileRoutes(core, threads)
    one = "/v1/folders/{folder}"
    return [
        Operation(
            "GET",
            f"{one}/files/{{path*}}",
            routes.download,
            "Download a file, whole or a range",
            parameters=FileParameters,
            gives=Media(("application/octet-stream",), "the file"),
            also={206: "The range.", 304: "It has not changed."},
            problems=(409, 412, 416),
            request_headers=_READING,
            response_headers=_TELLING,
            tag="files",
            raw=True,
        ),
        Operation(
            "PUT",
            f"{one}/files/{{path*}}",
            routes.upload,
            "Upload a file in one request",
            parameters=PutFile,
            takes=Media(("application/octet-stream",), "the file"),
            answer=EntryDocument,
            status=201,
            also={200: "It took the place of another."},
            problems=(409, 412, 413, 507),
            request_headers={
                "Content-Digest": "sha-256=:…: that the bytes must have (RFC 9530)",
                "If-Match": "an ETag: only over this very file",
                "If-None-Match": "*: only where there is none",
            },
            response_headers={"ETag": "of the new file", "Location": "the file"},
            tag="files",
        ),
        Operation(
            "DELETE",
            f"{one}/files/{{path*}}",
            routes.delete,
            "Delete a file or folder",
            parameters=DeleteFile,
            answer=DoneDocument,
            problems=(409, 423),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/delete",
            routes.delete_several,
            "Delete several files and folders",
            parameters=FolderParameters,
            body=DeleteFiles,
            answer=DoneDocument,
            problems=(409, 423),
            tag="files",
        ),
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
            f"{one}/checksum",
            routes.checksum,
            "Read a file through and tell its checksum",
            parameters=ChecksumFile,
            answer=ChecksumDocument,
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
        Operation(
            "GET",
            f"{one}/archive",
            routes.archive,
            "Download files and folders as one zip or tar",
            parameters=ArchiveFiles,
            gives=Media(("application/zip", "application/x-tar"), "the archive"),
            problems=(409,),
            tag="files",
            raw=True,
        ),
        Operation(
            "POST",
            f"{one}/mkdir",
            routes.mkdir,
            "Make a folder within the folder",
            parameters=FolderParameters,
            body=MakeFolder,
            answer=EntryDocument,
            status=201,
            also={200: "It was there."},
            problems=(409, 507),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/move",
            routes.move,
            "Rename a file or folder, or move it to another folder",
            parameters=FolderParameters,
            body=Transfer,
            answer=DoneDocument,
            problems=(409, 423, 507),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/copy",
            routes.copy,
            "Copy a file or folder, perhaps to another folder",
            parameters=FolderParameters,
            body=Transfer,
            answer=DoneDocument,
            problems=(409, 507),
            tag="files",
        ),
    ]


class _FileRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads
        self._listings = Listings()

    def _access(self, who: Identity, folder: str, needed: Permission) -> FolderAccess:
        return self._core.folders.resolve(who, folder, needed)

    # -- bytes

    async def download(self, call: Call[FileParameters, NoModel]) -> None:
        wanted = call.parameters
        path = names.checked(wanted.path)

        def look() -> tuple[FolderAccess, str]:
            access = self._access(call.who, wanted.folder, Permission.READ_ONLY)
            return access, _lying(access.files, path)

        access, name = await on_thread(self._threads, path, look)
        await send_file(call.exchange, access.files, name, self._threads)

    async def upload(self, call: Call[PutFile, NoModel]) -> Answer:
        wanted, exchange = call.parameters, call.exchange
        name = names.new(wanted.path)
        access = await self._threads.run(
            self._access, call.who, wanted.folder, Permission.READ_WRITE
        )
        most = self._core.vfs.max_upload
        try:
            stored = await receive_file(
                exchange.scope,
                exchange.receive,
                access.files,
                name,
                self._threads,
                overwrite=wanted.overwrite,
                most=None if most is None else int(most),
            )
        except ClientLeft as error:
            raise ClientGone from error
        headers: Headers = [(b"etag", stored.tag.encode())]
        return Answer(
            entry_document(name, stored.info, stored.tag),
            status=200 if stored.replaced else 201,
            headers=headers,
        )

    async def archive(self, call: Call[ArchiveFiles, NoModel]) -> None:
        wanted = call.parameters
        paths = [names.checked_folder(path) for path in wanted.path] or [""]

        def begin() -> tuple[str, Iterator[bytes], list[bytes]]:
            access = self._access(call.who, wanted.folder, Permission.READ_ONLY)
            lying = [_lying(access.files, path) for path in paths]
            for path in lying:
                changes.look(access.files, path)
            usual = lying[0].rpartition("/")[2] if len(lying) == 1 else ""
            stem = wanted.filename or f"{usual or access.folder.name}.{wanted.format}"
            pieces = archive.written(
                access.files, archive.members(access.files, lying), wanted.format
            )
            return stem, pieces, _some(pieces)

        saved_as, pieces, first = await on_thread(self._threads, "", begin)
        headers: Headers = [
            (b"content-type", wanted.format.media_type.encode()),
            (b"content-disposition", attachment(saved_as).encode()),
            (b"cache-control", b"no-store"),
        ]
        await self._send_pieces(call, headers, pieces, first)

    # -- listings

    def stat(self, call: Call[StatFile, NoModel]) -> EntryDocument:
        wanted = call.parameters
        access = self._access(call.who, wanted.folder, Permission.READ_ONLY)
        name = _lying(access.files, names.checked_folder(wanted.path))
        info = changes.look(access.files, name)
        etag = None if info.directory else entity_tag(info, time.time())
        return entry_document(name, info, etag)

    def checksum(self, call: Call[ChecksumFile, NoModel]) -> ChecksumDocument:
        wanted = call.parameters
        access = self._access(call.who, wanted.folder, Permission.READ_ONLY)
        name = _lying(access.files, names.checked(wanted.path))
        if changes.look(access.files, name).directory:
            raise Problem(409, "is-a-folder", f"{name!r} is a folder and has no checksum")
        digest = access.files.hash(name, wanted.algorithm)
        return ChecksumDocument(path=name, algorithm=wanted.algorithm, digest=digest)

    def page(self, call: Call[ListFiles, NoModel]) -> EntryList:
        wanted = call.parameters
        access = self._access(call.who, wanted.folder, Permission.READ_ONLY)
        path = _lying(access.files, names.checked_folder(wanted.path))
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
            access = self._access(call.who, wanted.folder, Permission.READ_ONLY)
            path = _lying(access.files, names.checked_folder(wanted.path))
            if not changes.look(access.files, path).directory:
                raise missing(path)
            found = entries(access.files, path, recursive=wanted.recursive)
            lines = (_line(path, entry) for entry in found)
            return lines, _some(lines)

        lines, first = await on_thread(self._threads, wanted.path, begin)
        headers: Headers = [
            (b"content-type", b"application/x-ndjson"),
            (b"cache-control", b"no-store"),
        ]
        await self._send_pieces(call, headers, lines, first)

    async def _send_pieces(
        self,
        call: Call[ArchiveFiles, NoModel] | Call[StreamFiles, NoModel],
        headers: Headers,
        pieces: Iterator[bytes],
        first: list[bytes],
    ) -> None:
        exchange = call.exchange
        await exchange.start(200, headers)
        if exchange.method == "HEAD":
            await exchange.send_body(b"", more=False)
            return
        try:
            while first:
                await exchange.send_body(b"".join(first), more=True)
                first = await self._threads.run(_some, pieces)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                await self._threads.run(close)
        await exchange.send_body(b"", more=False)

    # -- changes

    def mkdir(self, call: Call[FolderParameters, MakeFolder]) -> Answer:
        wanted = call.body
        name = names.new(wanted.path)
        access = self._access(call.who, call.parameters.folder, Permission.READ_WRITE)
        made = changes.make_folder(
            access.files, name, parents=wanted.parents, exist_ok=wanted.exist_ok
        )
        info = access.files.info(name)
        return Answer(entry_document(name, info), status=201 if made else 200)

    def delete(self, call: Call[DeleteFile, NoModel]) -> DoneDocument:
        wanted = call.parameters
        access = self._access(call.who, wanted.folder, Permission.READ_WRITE_DELETE)
        name = _lying(access.files, names.checked(wanted.path))
        return DoneDocument(done=changes.delete(access.files, name, recursive=wanted.recursive))

    def delete_several(self, call: Call[FolderParameters, DeleteFiles]) -> DoneDocument:
        wanted = call.body
        access = self._access(call.who, call.parameters.folder, Permission.READ_WRITE_DELETE)
        lying = [_lying(access.files, names.checked(path)) for path in wanted.paths]
        for name in lying:
            changes.look(access.files, name)
        done = sum(
            changes.delete(access.files, name, recursive=wanted.recursive)
            for name in dict.fromkeys(lying)
        )
        return DoneDocument(done=done)

    def move(self, call: Call[FolderParameters, Transfer]) -> DoneDocument:
        source, target = self._ends(call, Permission.READ_WRITE_DELETE)
        other = target.access
        native = None
        if other is not source.access:

            def native(name: str, new_name: str) -> None:
                source.access.move_to(name, other, new_name, if_absent=not call.body.overwrite)

        done = changes.move(source.end, target.end, overwrite=call.body.overwrite, native=native)
        return DoneDocument(done=done)

    def copy(self, call: Call[FolderParameters, Transfer]) -> DoneDocument:
        source, target = self._ends(call, Permission.READ_ONLY)
        other = target.access
        native = None
        if other is not source.access:

            def native(name: str, new_name: str) -> None:
                source.access.copy_to(name, other, new_name)

        done = changes.copy(source.end, target.end, overwrite=call.body.overwrite, native=native)
        return DoneDocument(done=done)

    def _ends(
        self, call: Call[FolderParameters, Transfer], needed: Permission
    ) -> tuple[_Side, _Side]:
        wanted = call.body
        here = call.parameters.folder
        there = wanted.target_folder or here
        new = names.new(wanted.target)
        writing = (
            Permission.READ_WRITE
            if there != here
            else max(needed, Permission.READ_WRITE, key=lambda permission: permission.rank)
        )
        source = self._access(call.who, here, needed if there != here else writing)
        target = source if there == here else self._access(call.who, there, writing)
        name = _lying(source.files, names.checked(wanted.source))
        return _Side(source, name), _Side(target, new)


class _Side:
    """One end of a move or copy, with what may be done there."""

    def __init__(self, access: FolderAccess, name: str) -> None:
        self.access = access
        self.end = changes.End(access.files, access.folder.id, name)


def _lying(place: Backend, path: str) -> str:
    """Return the name under which something lies that a client calls `path`."""
    return names.found(path, lambda name: place.info(name).exists) if path else path


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


def _some(pieces: Iterator[bytes]) -> list[bytes]:
    """Return the next pieces, a megabyte or so; none at the end."""
    found: list[bytes] = []
    size = 0
    for piece in islice(pieces, _BATCH):
        found.append(piece)
        size += len(piece)
        if size >= 1 << 20:
            break
    return found
