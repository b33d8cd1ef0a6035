"""What the headers and errors of an S3 service tell."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING, Protocol
from xml.etree import ElementTree

from .s3_client import clean_xml
from .s3_records import MARK, Found

if TYPE_CHECKING:
    from botocore.exceptions import _ClientErrorResponseError


class NotDirect(Exception):
    """The library has to ask."""


class Told(Protocol):
    """An answer, as far as its headers go."""

    def header(self, name: str) -> str | None: ...


def object_told(key: str, answer: Told) -> Found:
    """Return what an answer to HEAD tells. Raises NotDirect where it tells too little."""
    length, etag, when = (answer.header(n) for n in ("content-length", "etag", "last-modified"))
    try:
        mtime = email.utils.parsedate_to_datetime(when or "").timestamp()
    except ValueError as error:
        raise NotDirect from error
    if length is None or etag is None:
        raise NotDirect
    return Found(
        key,
        int(length),
        etag,
        mtime,
        answer.header(f"x-amz-meta-{MARK}"),
        answer.header("x-amz-version-id"),
    )


def error_told(said: bytes) -> _ClientErrorResponseError:
    """Return the code and message of an error, as far as it is one of S3's."""
    try:
        root = ElementTree.fromstring(clean_xml(said))  # noqa: S314 - as the library reads it
    except ElementTree.ParseError:
        return {}
    found = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in root}
    error: _ClientErrorResponseError = {}
    if "Code" in found:
        error["Code"] = found["Code"]
    if "Message" in found:
        error["Message"] = found["Message"]
    return error
