"""URLs of places on S3, as borgstore writes them, and as others do.

(s3|b2):[profile|(id:secret)@][scheme://host[:port]]/bucket/path
s3://bucket/path
s3:https://host[:port]/bucket/path        restic's way
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from ..names import InvalidName, check_folder
from .errors import BackendURLInvalid

_FORMS = (
    "s3:[PROFILE@]/BUCKET/PATH, s3://BUCKET/PATH or s3:[PROFILE@]https://HOST[:PORT]/BUCKET/PATH"
)

_URL = re.compile(
    r"(?P<scheme>s3|b2):"
    r"(?:(?:(?P<profile>[^@:/]+)|(?P<key_id>[^@:/]+):(?P<secret>[^@]+))@)?"
    r"(?:(?P<endpoint>https?://(?:\[[0-9A-Fa-f:.]+\]|[^@:/\[\]]+)(?::\d{1,5})?)|/(?=/[^/]))?"
    r"/(?P<bucket>[^/]+)(?:/(?P<path>.*))?\Z",
    re.DOTALL | re.IGNORECASE,
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z")


@dataclass(frozen=True, slots=True)
class Location:
    """What a URL says.

    Attributes:
        scheme: "s3" or "b2".
        endpoint: scheme, host and port; None for the one that the region has at Amazon.
        path: below which all keys of the place lie; "" for the whole bucket.
    """

    scheme: str
    profile: str | None
    key_id: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    endpoint: str | None
    bucket: str
    path: str


def parse(url: str) -> Location:
    """Return what a URL says. Key, secret and path are unquoted, as borgstore has it.

    Raises:
        BackendURLInvalid: it is no such URL. The message holds nothing of it that may be secret.
    """
    match = _URL.match(url)
    if match is None:
        raise BackendURLInvalid(f"a place on S3 is written {_FORMS}")
    bucket, path = match["bucket"], (match["path"] or "").rstrip("/")
    if "?" in path or "#" in path:
        raise BackendURLInvalid("a URL of a place on S3 takes no options: they go beside it")
    path = unquote(path)
    if "@" in bucket:
        raise BackendURLInvalid(f"the key stands before the slashes, or beside the URL: {_FORMS}")
    if not _BUCKET.match(bucket):
        raise BackendURLInvalid(
            f"{bucket!r} is no name of a bucket: letters, digits, dots and hyphens"
        )
    try:
        check_folder(path)
    except InvalidName as error:
        raise BackendURLInvalid(f"the path {error}") from error
    return Location(
        match["scheme"].lower(),
        match["profile"],
        None if match["key_id"] is None else unquote(match["key_id"]),
        None if match["secret"] is None else unquote(match["secret"]),
        match["endpoint"],
        bucket,
        path,
    )
