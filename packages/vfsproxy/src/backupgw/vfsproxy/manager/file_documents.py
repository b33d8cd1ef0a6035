"""Parameters and answers about files as Backend.AI has them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..api.models import Amount, Model
from .documents import FolderBody

RelativePath = Annotated[str, Field(max_length=4096, examples=["data/a.txt"])]


class PathBody(FolderBody):
    """Which file or folder in it."""

    relpath: RelativePath


class ListBody(FolderBody):
    """Which folder in it."""

    relpath: RelativePath = "."


class MkdirBody(FolderBody):
    """Which folders are to be made."""

    relpath: RelativePath | Annotated[list[RelativePath], Field(min_length=1, max_length=50)]
    parents: bool = True
    exist_ok: bool = False


class RenameBody(PathBody):
    """How it is to be called."""

    new_name: str = Field(min_length=1, max_length=255)
    is_dir: bool | None = Field(None, description="taken and not used")


class MoveBody(FolderBody):
    """From where to where."""

    src_relpath: RelativePath
    dst_relpath: RelativePath


class DownloadBody(PathBody):
    """What a token is to be for."""

    archive: bool = Field(False, description="a folder as a zip; the token is for both")
    unmanaged_path: None = Field(None, description="not offered")


class ArchiveBody(FolderBody):
    """What a token is to be for."""

    files: list[RelativePath] = Field(min_length=1, max_length=1000)
    filename: str | None = Field(None, max_length=255)


class UploadBody(PathBody):
    """The upload that is to be begun."""

    size: Amount


class DeleteBody(FolderBody):
    """What is to be deleted."""

    relpaths: list[RelativePath] = Field(min_length=1, max_length=1000)
    recursive: bool = False


class MkdirItem(Model):
    """What became of one; `msg` and `error_code` say why it could not be made."""

    item: str
    msg: str | None = None
    error_code: str | None = None


class MkdirResult(Model):
    """What became of each."""

    success: list[MkdirItem]
    failed: list[MkdirItem]


class MkdirAnswer(Model):
    """What became of the folders that were to be made."""

    results: MkdirResult


class TokenAnswer(Model):
    """A token for the API for clients."""

    token: str
