"""Files as bytes: downloaded, uploaded, as an archive, and their checksums."""

from __future__ import annotations

from collections.abc import Iterator

from backupgw.kvstore.backends.base import Backend
from backupgw.runtime.http.incoming import ClientGone
from backupgw.runtime.threads import Threads

from ..core import Core
from ..files import archive, changes, names
from ..files.calling import on_thread
from ..files.disposition import attachment
from ..files.download import send_file
from ..files.incoming import ClientLeft
from ..files.names import lying
from ..files.upload import receive_file
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..problems import Problem
from .exchange import Headers
from .file_documents import (
    ArchiveFiles,
    ChecksumDocument,
    ChecksumFile,
    EntryDocument,
    FileParameters,
    PutFile,
    entry_document,
)
from .operation import Answer, Call, Media, NoModel, Operation
from .pieces import send_pieces, some_of

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


def file_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations on files' bytes."""
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
            f"{one}/archive",
            routes.archive,
            "Download files and folders as one zip or tar",
            parameters=ArchiveFiles,
            gives=Media(("application/zip", "application/x-tar"), "the archive"),
            problems=(409,),
            tag="files",
            raw=True,
        ),
    ]


class _FileRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._folders = core.folders
        self._threads = threads
        most = core.vfs.max_upload
        self._most = None if most is None else int(most)

    async def download(self, call: Call[FileParameters, NoModel]) -> None:
        wanted = call.parameters
        path = names.checked(wanted.path)

        def look() -> tuple[FolderAccess, str]:
            access = self._folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
            return access, lying(access.files, path)

        access, name = await on_thread(self._threads, path, look)
        await send_file(call.exchange, access.files, name, self._threads)

    async def upload(self, call: Call[PutFile, NoModel]) -> Answer:
        wanted, exchange = call.parameters, call.exchange
        name = names.new(wanted.path)

        def open_place() -> Backend:
            return self._folders.resolve(call.who, wanted.folder, Permission.READ_WRITE).files

        try:
            stored = await receive_file(
                exchange.scope,
                exchange.receive,
                open_place,
                name,
                self._threads,
                overwrite=wanted.overwrite,
                most=self._most,
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
            access = self._folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
            found = [lying(access.files, path) for path in paths]
            for path in found:
                changes.look(access.files, path)
            usual = found[0].rpartition("/")[2] if len(found) == 1 else ""
            stem = wanted.filename or f"{usual or access.folder.name}.{wanted.format}"
            pieces = archive.written(
                access.files, archive.members(access.files, found), wanted.format
            )
            return stem, pieces, some_of(pieces)

        saved_as, pieces, first = await on_thread(self._threads, "", begin)
        headers: Headers = [
            (b"content-type", wanted.format.media_type.encode()),
            (b"content-disposition", attachment(saved_as).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send_pieces(call.exchange, self._threads, headers, pieces, first)

    def checksum(self, call: Call[ChecksumFile, NoModel]) -> ChecksumDocument:
        wanted = call.parameters
        access = self._folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
        name = lying(access.files, names.checked(wanted.path))
        if changes.look(access.files, name).directory:
            raise Problem(409, "is-a-folder", f"{name!r} is a folder and has no checksum")
        digest = access.files.hash(name, wanted.algorithm)
        return ChecksumDocument(path=name, algorithm=wanted.algorithm, digest=digest)
