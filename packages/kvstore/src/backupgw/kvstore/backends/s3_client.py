"""The library's client, set up for what this kernel needs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from botocore.config import Config
from botocore.session import Session
from botocore.utils import parse_timestamp

from .s3_errors import TRANSLATED, translate
from .s3_settings import Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_QUIET = ("boto3", "botocore", "s3transfer")
"""Their DEBUG records hold signatures, headers and credentials."""

_NO_XML = bytes(
    code if code >= ord(" ") or chr(code) in "\t\n\r" else ord("?") for code in range(256)
)

_REFERENCE = re.compile(
    rb"&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01])|[xX]0*(?:[0-8bcefBCEF]|1[0-9a-fA-F]));"
)
"""The same characters as other services write them; XML does not have them so either."""

_RESULT = re.compile(rb"\s*(?:<\?[^>]*>)?\s*<(?:\w+Result|InitiateMultipartUpload)[\s>]")
"""How an answer begins that says yes; an error is an <Error>, a proxy's page <html>."""


def connect(settings: Settings) -> tuple[S3Client, Session]:
    """Return a client, which threads may share, and the session that it is of. Nothing is sent yet.

    Credentials are the given ones, or what the library finds: the profile, the environment, the
    machine's role. It tries nothing again by itself: who repeats what is decided above, once.

    Raises:
        BackendError: the settings or the machine's own configuration cannot be used.
    """
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.INFO))
    checksums = settings.checksums or ("when_supported" if settings.amazon else "when_required")
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": settings.style},
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.timeout,
        max_pool_connections=settings.connections,
        retries={"mode": "standard", "total_max_attempts": 1},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        tcp_keepalive=True,
        user_agent_extra="backupgw",
    )
    try:
        session = Session()
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_moment)
        # As boto3 does it, which takes a tenth of a second to import what nobody needs here.
        if settings.profile is not None:
            session.set_config_variable("profile", settings.profile)
        if settings.region is not None:
            session.set_config_variable("region", settings.region)
        if settings.key_id is not None and settings.secret is not None:
            session.set_credentials(settings.key_id, settings.secret, settings.session_token)
        made = session.create_client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint,
            verify=settings.cacert,
            config=config,
        )
        client = cast("S3Client", made)
    except (*TRANSLATED, ValueError) as error:
        raise translate(error, settings.label, settings.server) from error
    # Services that are older than CRC checksums want this one for batches.
    client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    client.meta.events.register("before-parse.s3", _without_control_characters)
    if (on_call := settings.on_call) is not None:
        # "before-send.s3.PutObject"
        client.meta.events.register(
            "before-send.s3", lambda event_name, **_: on_call(event_name.rpartition(".")[2])
        )
    return client, session


def _moment(text: Any) -> datetime:
    """Read a time. The library tries all ways to write one, which takes longer than all the rest
    of a listing."""
    if isinstance(text, str) and text.endswith("Z"):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    moment: datetime = parse_timestamp(text)
    return moment


def _add_md5(params: dict[str, Any], **_: object) -> None:
    body = params["body"]
    data = body if isinstance(body, bytes) else body.encode()
    params["headers"]["Content-MD5"] = content_md5(data)


def _without_control_characters(response_dict: dict[str, Any], **_: object) -> None:
    """Make XML of an answer that repeats a key with such characters as it was asked. The keys of
    listings are quoted, and what is read of an object is no such answer.

    The library has looked already, and takes a 200 that is no XML for a 500.
    """
    body = response_dict.get("body")
    if not isinstance(body, bytes):
        return
    clean = clean_xml(body)
    if clean != body:
        response_dict["body"] = clean
        if _RESULT.match(clean):
            response_dict["status_code"] = 200


def clean_xml(body: bytes) -> bytes:
    """Return an answer without the characters that XML does not have."""
    return _REFERENCE.sub(b"?", body.translate(_NO_XML))


def content_md5(data: bytes | bytearray) -> str:
    """Return the value of a Content-MD5 header."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
