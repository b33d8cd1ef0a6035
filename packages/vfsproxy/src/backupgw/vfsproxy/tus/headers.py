"""The headers of tus 1.0.0, read strictly: what cannot be right is refused with a reason."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..files.refusals import FileRefusal
from .records import Kind, Upload

if TYPE_CHECKING:
    from hashlib import _Hash

VERSION = "1.0.0"
EXTENSIONS = (
    "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination,"
    "concatenation"
)
ALGORITHMS = ("sha1", "sha256", "sha512", "md5", "blake2b")
OCTETS = "application/offset+octet-stream"
LARGEST = 2**63 - 1
"""Bytes of the largest file that any file system has."""

_NUMBER = re.compile(r"[0-9]{1,19}\Z", re.ASCII)
_METADATA_KEY = re.compile(r"[!-+\--~]+\Z", re.ASCII)  # ASCII but for blanks and commas


def check_version(headers: Mapping[str, str]) -> None:
    """Refuse a client of another version, or of none.

    Raises:
        FileRefusal: 412, as the protocol has it.
    """
    if headers.get("tus-resumable") != VERSION:
        raise FileRefusal(
            412,
            "tus-version",
            f"this is tus {VERSION}: send the header Tus-Resumable: {VERSION}",
            {"Tus-Version": VERSION},
        )


def number(headers: Mapping[str, str], name: str) -> int | None:
    """Return the number that a header holds, None where there is no such header.

    Raises:
        FileRefusal: 400, it is none that bytes can be counted by.
    """
    text = headers.get(name.lower())
    if text is None:
        return None
    if not _NUMBER.match(text) or int(text) > LARGEST:
        raise FileRefusal(400, "invalid-header", f"{name} must be a number from 0 to {LARGEST}")
    return int(text)


def length(headers: Mapping[str, str], most: int | None) -> int | None:
    """Return Upload-Length; None where the client says that it will come later.

    Raises:
        FileRefusal: 400, neither or both are said; 413, it is more than `most` bytes.
    """
    told = number(headers, "Upload-Length")
    defer = headers.get("upload-defer-length")
    if defer is not None and defer != "1":
        raise FileRefusal(400, "invalid-header", "Upload-Defer-Length must be 1")
    if (told is None) == (defer is None):
        raise FileRefusal(
            400, "invalid-header", "send either Upload-Length or Upload-Defer-Length: 1"
        )
    check_size(told, most)
    return told


def check_size(size: int | None, most: int | None) -> None:
    """Refuse what is larger than the largest upload. Raises FileRefusal, 413."""
    if size is not None and most is not None and size > most:
        raise FileRefusal(413, "too-large", f"an upload may have {most} bytes")


def metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what Upload-Metadata says; values that are no text have characters of U+DC80 to DCFF.

    Raises:
        FileRefusal: 400, it is malformed or names a key twice.
    """
    found: dict[str, str] = {}
    text = headers.get("upload-metadata", "")
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        try:
            decoded = base64.b64decode(value, validate=True)
        except binascii.Error:
            decoded = None
        if decoded is None or not _METADATA_KEY.match(key) or key in found:
            raise FileRefusal(
                400,
                "invalid-header",
                "Upload-Metadata must be pairs of a key and a value in Base64, joined by commas",
            )
        found[key] = decoded.decode(errors="surrogateescape")
    return found


@dataclass(frozen=True, slots=True)
class Concatenation:
    """What Upload-Concat says.

    Attributes:
        parts: ids of the partial uploads, where the upload is final.
    """

    kind: Kind
    parts: tuple[str, ...] = ()


def concatenation(headers: Mapping[str, str], most: int = 10_000) -> Concatenation:
    """Return what an upload is to become.

    Args:
        most: partial uploads that a final one may have.

    Raises:
        FileRefusal: 400, it is malformed.
    """
    text = headers.get("upload-concat")
    if text is None:
        return Concatenation(Kind.WHOLE)
    if text == "partial":
        return Concatenation(Kind.PARTIAL)
    word, separator, rest = text.partition(";")
    # A URL is absolute or a path; what names the upload is its last segment.
    parts = tuple(urlsplit(url).path.rstrip("/").rpartition("/")[2] for url in rest.split())
    if word.strip() != "final" or not separator or not parts or not all(parts):
        raise FileRefusal(
            400, "invalid-header", "Upload-Concat must be partial, or final; and the parts' URLs"
        )
    if len(parts) > most or len(set(parts)) != len(parts):
        raise FileRefusal(
            400, "invalid-header", f"a final upload has up to {most} parts, each of them once"
        )
    return Concatenation(Kind.FINAL, parts)


class Checksum:
    """What Upload-Checksum says of the body of a request."""

    def __init__(self, algorithm: str, digest: bytes) -> None:
        self._expected = digest
        self._hash: _Hash = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Take more of the body."""
        self._hash.update(data)

    def check(self) -> None:
        """Refuse a body that is not what was sent. Raises FileRefusal, 460."""
        if not hmac.compare_digest(self._hash.digest(), self._expected):
            raise FileRefusal(
                460, "checksum-mismatch", "the body is not what its checksum says; send it again"
            )


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Return what the body is to be compared with.

    Raises:
        FileRefusal: 400, it is malformed or by an algorithm that is not offered.
    """
    text = headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise FileRefusal(
            400, "checksum-algorithm", f"Upload-Checksum is by one of {', '.join(ALGORITHMS)}"
        )
    try:
        digest = base64.b64decode(value, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise FileRefusal(
            400, "invalid-header", f"Upload-Checksum must be the {algorithm} in Base64"
        )
    return Checksum(algorithm, digest)


def describing(upload: Upload, url_of: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that tell of an upload.

    Args:
        url_of: the URL of each of its parts.
    """
    told = {"Upload-Offset": str(upload.offset), "Cache-Control": "no-store"}
    if upload.length is None:
        told["Upload-Defer-Length"] = "1"
    else:
        told["Upload-Length"] = str(upload.length)
    if upload.metadata:
        told["Upload-Metadata"] = upload.metadata
    if upload.kind is Kind.PARTIAL:
        told["Upload-Concat"] = "partial"
    elif upload.kind is Kind.FINAL:
        told["Upload-Concat"] = f"final;{' '.join(url_of[part] for part in upload.parts)}"
    return told


def expiring(upload: Upload) -> dict[str, str]:
    """Return the header that says when an unfinished upload ends (RFC 9110, 5.6.7)."""
    return {"Upload-Expires": formatdate(upload.expires, usegmt=True)}
