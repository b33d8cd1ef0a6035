"""URLs and options of places on S3: borgstore's forms, others', and mistakes told in one line."""

from __future__ import annotations

from typing import Any

import pytest

from backupgw.kvstore.backends.errors import BackendURLInvalid
from backupgw.kvstore.backends.s3_urls import Location, parse
from backupgw.kvstore.registry import open_place

SECRET = "wJalr/XUtn+FEMI"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3:/bucket/path", ("s3", None, None, None, None, "bucket", "path")),
        ("s3://bucket/a/path/", ("s3", None, None, None, None, "bucket", "a/path")),
        ("s3:/bucket", ("s3", None, None, None, None, "bucket", "")),
        ("s3:profile@/bucket/path", ("s3", "profile", None, None, None, "bucket", "path")),
        (f"s3:AKID:{SECRET}@/bucket/p", ("s3", None, "AKID", SECRET, None, "bucket", "p")),
        (
            f"s3:AKID:{SECRET}@https://host:9000/bucket/p@th",
            ("s3", None, "AKID", SECRET, "https://host:9000", "bucket", "p@th"),
        ),
        (
            "s3:AK%3AID:se%40cret@/bucket/p%20th",
            ("s3", None, "AK:ID", "se@cret", None, "bucket", "p th"),
        ),
        ("S3:https://h.example/b-1/p", ("s3", None, None, None, "https://h.example", "b-1", "p")),
        (
            "s3:http://[::1]:9000/bucket/p",
            ("s3", None, None, None, "http://[::1]:9000", "bucket", "p"),
        ),
        (
            "b2:prof@https://s3.us-west-004.backblazeb2.com/bucket/p",
            ("b2", "prof", None, None, "https://s3.us-west-004.backblazeb2.com", "bucket", "p"),
        ),
    ],
)
def test_forms(url: str, said: tuple[str | None, ...]) -> None:
    assert parse(url) == Location(*said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "s3:",
        "s3:bucket/path",
        "s3:///path",
        "s3:ftp://host/bucket/path",
        "s3:https://host",
        "s3:https://host/",
        "s3:/b/path",
        "s3:/bucket/a//b",
        "s3:/bucket/../b",
        "s3:/bucket/path?region=x",
        f"s3:AKID:{SECRET}@",
        f"s3:AKID:{SECRET}@host/bucket",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(BackendURLInvalid) as caught:
        open_place(url)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"access_key_id": "AKID"}, "secret_access_key: is missing"),
        ({"secret_access_key": SECRET}, "access_key_id: is missing"),
        ({"profile": "p", "access_key_id": "AKID", "secret_access_key": SECRET}, "exclude"),
        ({"style": "paths"}, "'paths' is none of auto, path, virtual"),
        ({"sse": "rot13"}, "sse"),
        ({"sse_customer_key": SECRET}, "32 bytes in base64 or hex"),
        ({"retention_mode": "strict"}, "GOVERNANCE, COMPLIANCE"),
        ({"part_size": "1 MiB"}, "at least 5242880"),
        ({"endpoint": "minio:9000"}, "must be http"),
        ({"retention": "a while"}, "retention"),
        ({"cacert": "/nowhere/ca.pem"}, "no file that can be read"),
        ({"colour": "blue"}, "unknown option 'colour'"),
    ],
)
def test_what_is_no_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendURLInvalid, match=message) as caught:
        open_place("s3:/bucket/path", **options)
    assert SECRET not in str(caught.value)


def test_credentials_are_said_once() -> None:
    with pytest.raises(BackendURLInvalid, match="the URL has credentials"):
        open_place(f"s3:AKID:{SECRET}@/bucket/path", profile="p")
    with pytest.raises(BackendURLInvalid, match="the URL names one already"):
        open_place("s3:https://host/bucket/path", endpoint="https://other")


def test_backblaze_is_found_by_its_region() -> None:
    with pytest.raises(BackendURLInvalid, match="us-west-004"):
        open_place("b2:/bucket/path")
    place = open_place("b2:/bucket/path", region="eu-central-003")
    assert "s3.eu-central-003.backblazeb2.com/bucket/path" in repr(place)


@pytest.mark.parametrize("url", ["s3://ID:hush@bucket/x", "s3:/ID:hush@bucket", "b2://ID:hush@b"])
def test_a_key_in_the_wrong_place_is_not_shown(url: str) -> None:
    with pytest.raises(BackendURLInvalid, match="the key stands before") as caught:
        open_place(url)
    assert "hush" not in str(caught.value)


def test_nothing_secret_is_shown() -> None:
    place = open_place(
        f"s3:AKID:{SECRET}@https://host/bucket/path",
        sse_customer_key="ab" * 32,
        session_token="tok",
    )
    shown = repr(place) + repr(vars(place))
    for secret in ("AKID", SECRET, "tok'", repr(bytes.fromhex("ab" * 32))):
        assert secret not in shown
