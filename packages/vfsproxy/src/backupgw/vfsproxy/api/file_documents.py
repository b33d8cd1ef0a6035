"""What the operations on files take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from backupgw.kvstore.backends.base import ItemInfo

from ..files.archive import Format
from ..files.listing import LARGEST_PAGE
from .models import FolderId, FolderParameters, Model, moment

Path = Annotated[
    str, Field(max_length=4096, description="a path in the folder", examples=["data/a.txt"])
]
Algorithm = Literal["md5", "sha1", "sha256", "sha512", "blake2b"]


class FileParameters(FolderParameters):
    """Which file."""

    path: Path


class PutFile(FileParameters):
    """A file that comes in one request."""

    overwrite: bool = Field(False, description="replace a file of that name")


class DeleteFile(FileParameters):
    """What is to go."""

    recursive: bool = Field(False, description="a folder with all that is in it")


class StatFile(FolderParameters):
    """What is asked about; the folder itself by default."""

    path: Path = ""


class ChecksumFile(FolderParameters):
    """Whose checksum."""

    path: Path
    algorithm: Algorithm = "sha256"


class ListFiles(FolderParameters):
    """Which part of a listing."""

    path: Path = ""
    recursive: bool = Field(False, description="with all that is below")
    after: str | None = Field(None, max_length=16_384, description="`next` of the page before")
    limit: int = Field(1000, ge=1, le=LARGEST_PAGE, description="entries at most")


class StreamFiles(FolderParameters):
    """What is listed in one answer."""

    path: Path = ""
    recursive: bool = Field(False, description="with all that is below")


class ArchiveFiles(FolderParameters):
    """What goes into an archive."""

    path: list[Path] = Field([], max_length=1000, description="files and folders; none: all")
    format: Format = Format.ZIP
    filename: str | None = Field(
        None, min_length=1, max_length=255, description="what it is saved as"
    )


class EntryDocument(Model):
    """A file or folder."""

    path: str
    name: str
    type: Literal["file", "folder"]
    size: int = Field(ge=0, description="bytes; 0 for a folder")
    modified: datetime | None = Field(description="where the volume tells")
    etag: str | None = Field(None, description="of a file")


class EntryList(Model):
    """A page of a listing."""

    items: list[EntryDocument]
    next: str | None = Field(description="for `after` of the next page")


class ChecksumDocument(Model):
    """What a file's bytes come to."""

    path: str
    algorithm: Algorithm
    digest: str = Field(pattern="^[0-9a-f]+$")


class MakeFolder(Model):
    """A folder within the folder."""

    path: Path
    parents: bool = Field(False, description="those above it too")
    exist_ok: bool = Field(False, description="one that is there is fine")


class Transfer(Model):
    """What is moved or copied where."""

    source: Path
    target: Path
    target_folder: FolderId | None = Field(None, description="another folder; default this one")
    overwrite: bool = Field(False, description="replace a file of that name")


class DeletePaths(Model):
    """Several things that are to go, folders with all that is in them."""

    paths: list[Path] = Field(min_length=1, max_length=1000)


class DeleteFiles(DeletePaths):
    """Several things that are to go."""

    recursive: bool = Field(False, description="folders with all that is in them")


class DoneDocument(Model):
    """How many files and folders were made, moved, copied or deleted."""

    done: int = Field(ge=0)


def entry_document(path: str, info: ItemInfo, etag: str | None = None) -> EntryDocument:
    """Return what is told of a file or folder."""
    return EntryDocument(
        path=path,
        name=path.rpartition("/")[2],
        type="folder" if info.directory else "file",
        size=0 if info.directory else info.size,
        modified=moment(info.mtime) if info.mtime > 0 else None,
        etag=etag,
    )
