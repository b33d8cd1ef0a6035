"""Options of places on S3, read and checked."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import read_schedule
from .api_calls import hook
from .errors import BackendURLInvalid
from .s3_settings import (
    CHECKSUMS,
    LEAST_PART,
    LOCK_MODES,
    MEMORY,
    MOST_PART,
    SSES,
    STYLES,
    Settings,
)
from .s3_urls import Location, parse

if TYPE_CHECKING:
    from .s3 import S3

_CUSTOMER_KEY = 32

T = TypeVar("T")


def from_url(
    url: str,
    *,
    profile: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    endpoint: str | None = None,
    region: str | None = None,
    style: str = "auto",
    cacert: str | None = None,
    checksums: str | None = None,
    storage_class: str | None = None,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    sse_customer_key: str | None = None,
    retention: object = None,
    retention_mode: str = "governance",
    part_size: object = LEAST_PART,
    parallel: object = 2,
    memory: object = None,
    connections: object = 32,
    timeout: object = 60,
    connect_timeout: object = 10,
    attempts: object = 5,
    deadline: object = "2 min",
    first_pause: object = "100 ms",
    atomic_create: object = None,
    delete_versions: object = None,
    create_bucket: object = True,
    on_call: object = None,
) -> S3:
    """Make the backend of a URL (`s3_urls`).

    Args:
        profile, access_key_id, secret_access_key, session_token: where the URL has none; without
            any, what boto3 finds: environment, shared files, the machine's role.
        endpoint: the service's URL, where it is not Amazon's and not in the place's.
        region: of the bucket.
        style: of the requests: "path", "virtual", or what fits the service ("auto").
        cacert: file of the authorities that may sign the service's certificate.
        checksums: "when_supported" (at Amazon) or "when_required" (elsewhere): whether CRC sums go
            with requests and are wanted with answers.
        storage_class: of what is written.
        sse: encryption by the service: "AES256", "aws:kms" or "aws:kms:dsse".
        sse_kms_key: which of KMS's keys.
        sse_customer_key: 32 bytes in base64 or hex, which the service encrypts with and forgets.
        retention: seconds for which nobody may remove what is written (object lock).
        retention_mode: "governance" or "compliance".
        part_size: bytes of a part; smaller values go by one request, and so do larger ones of which
            all that has come can be held (`memory`) and sent at once.
        parallel: parts of a value that are under way at a time.
        memory: bytes of values on their way that are held for all writers together.
        connections: that are kept; half as many parts are under way at a time.
        timeout, connect_timeout: seconds without a byte, and until a connection is there.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        atomic_create: whether the service refuses to replace an object when told so; found out
            where not given.
        delete_versions: whether deleting removes the object's version from a bucket that keeps
            versions; by default at Backblaze only.
        create_bucket: whether `create` makes a bucket that is not there.
        on_call: is told of each request (`api_calls`).

    Raises:
        BackendURLInvalid: the URL or an option cannot be.
    """
    from .s3 import S3

    location = parse(url)
    try:
        profile, key_id, secret = _credentials(location, profile, access_key_id, secret_access_key)
        endpoint = _endpoint_of(location, endpoint, region)
        part = options.size("part_size", part_size, least=LEAST_PART)
        at_once = options.count("parallel", parallel, least=1)
        settings = Settings(
            bucket=location.bucket,
            path=location.path,
            profile=profile,
            key_id=key_id,
            secret=secret,
            session_token=session_token,
            endpoint=endpoint,
            region=_region_of(endpoint, region),
            style=_one_of("style", style, STYLES),
            cacert=None if cacert is None else options.readable("cacert", cacert),
            checksums=None if checksums is None else _one_of("checksums", checksums, CHECKSUMS),
            storage_class=storage_class,
            sse=None if sse is None else _one_of("sse", sse, SSES),
            sse_kms_key=sse_kms_key,
            sse_customer_key=None if sse_customer_key is None else _customer_key(sse_customer_key),
            retention=None if retention is None else options.duration("retention", retention),
            lock_mode=_one_of("retention_mode", retention_mode, LOCK_MODES),
            part_size=min(part, MOST_PART),
            parallel=at_once,
            memory=max(MEMORY, (at_once + 1) * part)
            if memory is None
            else options.size("memory", memory, least=part),
            connections=options.count("connections", connections, least=1),
            timeout=options.duration("timeout", timeout, least=1),
            connect_timeout=options.duration("connect_timeout", connect_timeout, least=0.1),
            schedule=read_schedule(attempts, deadline, first_pause),
            atomic_create=None
            if atomic_create is None
            else options.flag("atomic_create", atomic_create),
            delete_versions=location.scheme == "b2"
            if delete_versions is None
            else options.flag("delete_versions", delete_versions),
            create_bucket=options.flag("create_bucket", create_bucket),
            on_call=hook(on_call),
        )
    except OptionInvalid as error:
        raise BackendURLInvalid(f"{location.scheme}: {error}") from error
    return S3(settings)


def _credentials(
    location: Location, profile: str | None, key_id: str | None, secret: str | None
) -> tuple[str | None, str | None, str | None]:
    """Return profile, key id and secret: the URL's, or the options'.

    Raises:
        OptionInvalid: both say something, or half is missing.
    """
    if location.profile or location.key_id:
        if profile or key_id or secret:
            raise OptionInvalid("profile", "the URL has credentials, so no option may have others")
        return location.profile, location.key_id, location.secret
    if profile and (key_id or secret):
        raise OptionInvalid("profile", "a profile and a key exclude each other")
    if bool(key_id) != bool(secret):
        missing = "secret_access_key" if key_id else "access_key_id"
        raise OptionInvalid(missing, "is missing: a key is an id and a secret")
    return profile or None, key_id or None, secret or None


def _customer_key(text: str) -> bytes:
    """Return the 32 bytes of a key for SSE-C: written in base64 or in hex.

    Raises:
        OptionInvalid: it is none; the message does not show it.
    """
    try:
        key = (
            bytes.fromhex(text)
            if len(text) == 2 * _CUSTOMER_KEY
            else base64.b64decode(text, validate=True)
        )
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != _CUSTOMER_KEY:
        raise OptionInvalid("sse_customer_key", "must be 32 bytes in base64 or hex")
    return key


def _endpoint_of(location: Location, endpoint: str | None, region: str | None) -> str | None:
    """Return scheme, host and port of the service, None for Amazon's.

    Raises:
        OptionInvalid: it cannot be told, or is told twice.
    """
    if location.endpoint and endpoint:
        raise OptionInvalid("endpoint", "the URL names one already")
    chosen = location.endpoint or endpoint
    if chosen is not None:
        chosen = options.server("endpoint", chosen)
        if urlsplit(chosen).path:
            raise OptionInvalid("endpoint", "must be http(s)://HOST[:PORT], without a path")
    if chosen is None and location.scheme == "b2":
        if region is None:
            raise OptionInvalid(
                "region",
                "b2: needs the region, the second word of the bucket's endpoint: "
                "us-west-004 of s3.us-west-004.backblazeb2.com",
            )
        return f"https://s3.{region}.backblazeb2.com"
    return chosen


def _region_of(endpoint: str | None, region: str | None) -> str | None:
    """Return the region that requests are signed for; None: what the profile or the environment
    has. Backblaze and Wasabi have it in their hosts' names."""
    if region is None and endpoint is not None:
        match = re.search(
            r"//s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys)\.com(?::\d+)?\Z",
            endpoint,
            re.IGNORECASE,
        )
        return match[1] if match else "us-east-1"
    return region


def _one_of(option: str, value: object, known: Sequence[T]) -> T:
    """Return what `value` means among `known`, whatever its case. Raises OptionInvalid."""
    for each in known:
        if str(value).lower() == str(each).lower():
            return each
    raise OptionInvalid(option, f"{value!r} is none of {', '.join(map(str, known))}")
