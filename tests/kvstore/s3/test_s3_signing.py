"""Requests to S3 are signed as Amazon's own library signs them, over TLS, and no log shows it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.kvstore.s3.places import VALUE, made, write
from tests.servers.s3 import SECRET, Moto, RcloneS3
from tests.servers.tls import Certificate

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import s3_signature
from backupgw.kvstore.backends.errors import BackendError


class TlsRclone(RcloneS3):
    """The same server behind a certificate."""

    def __init__(self, folder: Path, certificate: Certificate) -> None:
        super().__init__(folder)
        self._certificate = certificate

    @property
    def endpoint(self) -> str:
        return super().endpoint.replace("http:", "https:")

    def command(self) -> list[str]:
        shown = self._certificate
        return [*super().command(), "--cert", str(shown.chain), "--key", str(shown.key)]


def test_over_tls(certificate: Certificate, tmp_path: Path) -> None:
    with TlsRclone(tmp_path / "s3", certificate) as server:
        url = server.url("tls/place")
        with made(url, cacert=str(certificate.authority)) as place:
            place.store("small", b"value")
            write(place, "large")
            assert place.load("small") == b"value"
            assert place.load("large") == VALUE
        with pytest.raises(BackendError, match=r"is not trusted.*cacert"):
            open_place(url, attempts=1).open()


@pytest.mark.parametrize("token", [None, "a/token=="])
@pytest.mark.parametrize("path", ["/bucket/key", "/bucket/%C3%A4%20b~_-.x"])
@pytest.mark.parametrize("data", [None, b"", b"content"])
def test_signatures_are_those_of_amazons_library(
    data: bytes | None, path: str, token: str | None
) -> None:
    headers = {"x-amz-meta-note": "two  spaces", "range": "bytes=0-1"}
    signed = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
    method = "GET" if data is None else "PUT"
    theirs = AWSRequest(method, f"http://s3.test:9000{path}", headers=signed, data=data)
    S3SigV4Auth(Credentials("id", "secret", token), "s3", "eu-north-1").add_auth(theirs)
    ours = s3_signature.sign(
        method, "s3.test:9000", path, headers, data,
        key_id="id", secret="secret", token=token, region="eu-north-1",
        now=datetime.strptime(theirs.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
    )  # fmt: skip
    assert ours["authorization"] == theirs.headers["Authorization"]


def test_no_log_shows_a_secret(moto: Moto, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        options = {"sse_customer_key": "ab" * 32, "session_token": "a-token-of-a-session"}
        with made(moto.url("logs/place"), **options) as place:
            place.store("a", b"value")
            place.load("a")
            write(place, "b")
    said = caplog.text
    for secret in (SECRET, "Signature=", "Authorization", "a-token-of-a-session", "ab" * 32):
        assert secret not in said
