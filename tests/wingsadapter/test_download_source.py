"""Archives are fetched from where they may be fetched from, and whole."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.double import Double, Fault, Faults, Receive, Scope, Send
from tests.servers.tls import Certificate, make_certificate

from backupgw.wingsadapter import download_source
from backupgw.wingsadapter.download_source import (
    ANYWHERE_PUBLIC,
    AddressRefused,
    Allowed,
    DownloadError,
    fetch,
    host_entries,
    is_public,
)

CONTENT = random.Random(5).randbytes(3_000_000)


class Bucket(Double):
    """Has one object, and can end early."""

    def __init__(self, **options: Any) -> None:
        super().__init__(self._get, **options)
        self.etag = '"one"'
        self.status = 200
        self.cut = 0
        """Bytes after which answers end."""

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        first = 0
        status = self.status
        if b"range" in headers and headers.get(b"if-range") == self.etag.encode():
            first = int(headers[b"range"].removeprefix(b"bytes=").removesuffix(b"-"))
            status = 206
        body = CONTENT[first:]
        found = [(b"content-length", b"%d" % len(body)), (b"etag", self.etag.encode())]
        if status in (301, 307):
            found.append((b"location", b"http://169.254.169.254/latest/meta-data/"))
        await send({"type": "http.response.start", "status": status, "headers": found})
        if self.cut and self.cut < len(body):
            cut, self.cut = self.cut, 0
            await send({"type": "http.response.body", "body": body[:cut], "more_body": True})
            raise RuntimeError("the service dies")
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as bucket:
        yield bucket


def fetched(bucket: Bucket, **options: Any) -> bytes:
    parts: list[bytes] = []
    allowed = Allowed((bucket.url,))
    size = fetch(
        f"{bucket.url}/x?X-Amz-Signature=hush",
        parts.append,
        allowed=allowed,
        pause=lambda _: None,
        **options,
    )
    content = b"".join(parts)
    assert size == len(content)
    return content


def test_an_archive_comes_whole(bucket: Bucket) -> None:
    told: list[tuple[int, int | None]] = []
    assert fetched(bucket, tell=lambda *done: told.append(done)) == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_one_that_breaks_off_is_carried_on(bucket: Bucket) -> None:
    bucket.cut = 1_000_000
    assert fetched(bucket) == CONTENT
    assert len(bucket.calls) == 2


def test_one_that_is_another_meanwhile_is_not_mixed(bucket: Bucket) -> None:
    bucket.cut = 1_000_000

    def change(done: int, _total: int | None) -> None:
        bucket.etag = '"two"'

    with pytest.raises(DownloadError, match="is another one now"):
        fetched(bucket, tell=change)


def test_failures_that_pass_are_waited_for(bucket: Bucket) -> None:
    kinds = [Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.RESET]
    bucket.faults = Faults(rate=1.0, limit=4, kinds=kinds)
    assert fetched(bucket) == CONTENT


def test_a_service_that_stays_away_is_told_without_the_signature(bucket: Bucket) -> None:
    bucket.faults = Faults(rate=1.0, kinds=[Fault.UNAVAILABLE])
    with pytest.raises(DownloadError, match="status 503") as found:
        fetched(bucket)
    assert "hush" not in str(found.value)


@pytest.mark.parametrize("status", [301, 307, 403, 404])
def test_no_redirect_is_followed_and_refusals_are_final(bucket: Bucket, status: int) -> None:
    bucket.status = status
    with pytest.raises(DownloadError, match=r"leads elsewhere|is answered by status"):
        fetched(bucket)
    assert len(bucket.calls) == 1


def test_an_archive_of_too_many_bytes_is_ended(bucket: Bucket) -> None:
    with pytest.raises(DownloadError, match="more than 1000"):
        fetched(bucket, limit=1000)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "gopher://example.com/",
        "http://example.com/x",  # not https
        "https://",
        "https:///x",
        "https://user:password@example.com/x",
        "https://example.com:99999/x",
        "https://example.com:x/",
        "https://exa mple.com/x",
        "https://example.com\\@localhost/",
        "https://example.com/\nHost: x",
        "https://[::1/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f.0.0.1/",
        "https://localhost/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[::ffff:a00:1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://0.0.0.0/x",
        "https://10.0.0.1/x",
        "https://172.16.0.1/x",
        "https://192.168.0.1/x",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/x",
        "https://[fe80::1]/x",
        "https://[fd00::1]/x",
        "https://224.0.0.1/x",
        "https://255.255.255.255/x",
    ],
)
def test_addresses_that_lead_inside_are_refused(url: str) -> None:
    took: list[bytes] = []
    with pytest.raises(AddressRefused):
        fetch(url, took.append, allowed=ANYWHERE_PUBLIC, pause=lambda _: None)
    assert took == []


def test_the_address_that_is_connected_to_is_the_one_that_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is public when it is looked at, and private when it is connected to."""
    asked: list[str] = []
    connected: list[Any] = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address: Any, *_: Any, **__: Any) -> Any:
        connected.append(address)
        raise OSError("nobody is asked in this test")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(download_source, "ATTEMPTS", 1)
    with pytest.raises(DownloadError):
        fetch("https://rebinding.example/x", lambda _: None, pause=lambda _: None)
    assert connected == [("93.184.216.34", 443)]


def test_only_listed_hosts_are_asked_where_there_is_a_list(bucket: Bucket) -> None:
    allowed = host_entries(["s3.example.com", "*.example.org", "http://minio.lan:9000"])
    for url in (
        "https://s3.example.com/x",
        "https://S3.EXAMPLE.COM./x",
        "https://a.example.org/x",
        "http://minio.lan:9000/x",
    ):
        assert allowed.check(url) is False
    for url in (
        "http://s3.example.com/x",
        "https://s3.example.com:8443/x",
        "https://s3.example.com.evil.net/x",
        "https://example.org/x",
        "https://evil.net/?s3.example.com",
        "https://minio.lan:9000/x",
        "http://minio.lan/x",
        bucket.url,
    ):
        with pytest.raises(AddressRefused):
            allowed.check(url)


@pytest.mark.parametrize("entry", ["", "https://", "ftp://x", "a/b", "https://x/y", "u@h", "h:x"])
def test_an_entry_that_is_no_host_is_told(entry: str) -> None:
    with pytest.raises(ValueError):
        host_entries([entry])


def test_a_certificate_is_looked_at(tmp_path_factory: pytest.TempPathFactory) -> None:
    certificate: Certificate = make_certificate(tmp_path_factory.mktemp("tls"))
    with Bucket(certificate=certificate) as bucket:
        url, allowed = f"{bucket.url}/x", Allowed((bucket.url,))
        with pytest.raises(DownloadError, match="ConnectError"):
            fetch(url, lambda _: None, allowed=allowed, pause=lambda _: None)


def test_public_addresses_are_public() -> None:
    assert all(map(is_public, ("1.1.1.1", "93.184.216.34", "2606:4700::1111")))
