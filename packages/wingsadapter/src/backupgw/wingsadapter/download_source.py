"""Fetching an archive from where a restore's `download_url` says, without being made a tool.

Whoever may ask for a restore names an address that this machine then asks: addresses within the
node's own network, of a cloud's metadata service, or of this very machine must not be reached that
way. So it is https, no redirect is followed, and the address that is connected to is looked at
after the name was resolved, just before the connection: a name that resolves differently the second
time gains nothing. What the operator lists is exempt as far as it is listed.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import logging
import random
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore
import httpx

log = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""Seconds without a byte."""
PIECE = 256 << 10
_PORTS = {"https": 443, "http": 80}


class DownloadError(Exception):
    """An archive cannot be had. No message shows the address's query: it is signed."""


class AddressRefused(DownloadError):
    """The address is not one to fetch from."""


@dataclass(frozen=True)
class Allowed:
    """Where archives may be fetched from.

    Attributes:
        hosts: as the operator lists them: "s3.example.com", "*.example.com", or with a scheme and
            port "http://minio.lan:9000". These may have private addresses, and a scheme of http
            where it is written. An empty list: any host on a public address, by https.
    """

    hosts: tuple[str, ...] = ()

    def check(self, url: str) -> bool:
        """Return whether the host's address has to be a public one.

        Raises:
            AddressRefused: the address must not be fetched from.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise AddressRefused("download_url is no address") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise AddressRefused("download_url is no address of the web")
        if parts.username is not None or "\\" in url or any(sign <= " " for sign in url):
            raise AddressRefused("download_url is not written as an address is")
        if any(_listed(entry, parts, port) for entry in self.hosts):
            return False
        if self.hosts:
            raise AddressRefused(f"download_url is at {parts.hostname}, which is not listed")
        if parts.scheme != "https":
            raise AddressRefused("download_url is not https")
        return True


ANYWHERE_PUBLIC = Allowed()


def _listed(entry: str, parts: SplitResult, port: int) -> bool:
    scheme, slashes, rest = entry.rpartition("://")
    wanted = urlsplit(f"//{rest}")
    host = (parts.hostname or "").rstrip(".").lower()
    return (
        parts.scheme == (scheme if slashes else "https")
        and fnmatch.fnmatchcase(host, (wanted.hostname or "").lower())
        and port == (wanted.port or _PORTS.get(parts.scheme, 0))
    )


class _PublicOnly(httpcore.NetworkBackend):
    """Connects to public addresses alone."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        refused = [each for each in addresses if not is_public(each)]
        if refused or not addresses:
            raise _NotPublic(f"download_url leads to {', '.join(refused)}, which is not public")
        for number, address in enumerate(addresses):
            try:
                return self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError:
                if number == len(addresses) - 1:
                    raise
        raise AssertionError("unreachable")

    def connect_unix_socket(self, *_arguments: Any, **_named: Any) -> httpcore.NetworkStream:
        raise _NotPublic("download_url leads to a unix socket")

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _NotPublic(Exception):
    pass


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found.teredo is not None:
            inner = found.teredo[1]
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def fetch(
    url: str,
    write: Callable[[bytes], object],
    *,
    allowed: Allowed = ANYWHERE_PUBLIC,
    tell: Callable[[int, int | None], object] = lambda _done, _total: None,
    limit: int | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Fetch an archive; one that breaks off is carried on where it broke off.

    Args:
        url: where it is.
        write: takes it, piece by piece.
        allowed: where it may be.
        tell: told of the bytes so far, and of how many there are where that is known; what it
            raises ends the work.
        limit: bytes that it may have.
        pause: waits that many seconds.

    Returns:
        Its size in bytes.

    Raises:
        AddressRefused: it is not fetched from there.
        DownloadError: it cannot be had.
    """
    public = allowed.check(url)
    with httpx.Client(transport=_transport(public=public), follow_redirects=False) as client:
        return _Fetching(client, url, write, tell, limit).run(pause)


def _transport(*, public: bool) -> httpx.HTTPTransport:
    transport = httpx.HTTPTransport(trust_env=False)
    if public:
        # httpx has no argument for this; its pool is the one that connects.
        transport._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False), network_backend=_PublicOnly()
        )
    return transport


class _Fetching:
    def __init__(
        self,
        client: httpx.Client,
        url: str,
        write: Callable[[bytes], object],
        tell: Callable[[int, int | None], object],
        limit: int | None,
    ) -> None:
        self._client = client
        self._url = url
        self._write = write
        self._tell = tell
        self._limit = limit
        self._done = 0
        self._total: int | None = None
        self._etag: str | None = None

    def run(self, pause: Callable[[float], object]) -> int:
        wait, left, reason = FIRST_PAUSE, ATTEMPTS, ""
        while left:
            before = self._done
            try:
                if self._attempt():
                    return self._done
                reason = "it ended early"
            except _NotPublic as error:
                raise AddressRefused(str(error)) from None
            except _Again as error:
                reason = str(error)
            except httpx.HTTPError as error:
                reason = type(error).__name__
            left = ATTEMPTS if self._done > before else left - 1
            wait = FIRST_PAUSE if self._done > before else wait
            if left:
                log.info("the archive is fetched on from byte %d: %s", self._done, reason)
                pause(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries
                wait = min(wait * 2, LONGEST_PAUSE)
        raise DownloadError(f"the archive could not be fetched: {reason}")

    def _attempt(self) -> bool:
        """Return whether all of it is there."""
        headers = {"accept-encoding": "identity"}
        if self._done:
            if not self._etag:
                raise DownloadError("the archive broke off, and cannot be carried on")
            headers |= {"range": f"bytes={self._done}-", "if-range": self._etag}
        with self._client.stream("GET", self._url, headers=headers, timeout=TIMEOUT) as answer:
            self._check(answer)
            for piece in answer.iter_raw(PIECE):
                self._done += len(piece)
                if self._limit is not None and self._done > self._limit:
                    raise DownloadError(f"the archive has more than {self._limit} bytes")
                self._write(piece)
                self._tell(self._done, self._total)
        return self._total is None or self._done >= self._total

    def _check(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status >= 500 or status in (408, 429):
            raise _Again(f"status {status}")
        if self._done:
            if status != 206 or answer.headers.get("etag") != self._etag:
                raise DownloadError("the archive broke off, and is another one now")
            return
        if status != 200:
            what = "leads elsewhere" if 300 <= status < 400 else f"is answered by status {status}"
            raise DownloadError(f"download_url {what}")
        length = answer.headers.get("content-length", "")
        self._total = int(length) if length.isascii() and length.isdigit() else None
        etag = answer.headers.get("etag", "")
        self._etag = etag if etag.startswith('"') else None
        if self._limit is not None and (self._total or 0) > self._limit:
            raise DownloadError(f"the archive has {self._total} bytes, more than {self._limit}")


class _Again(Exception):
    pass


def host_entries(entries: Sequence[str]) -> Allowed:
    """Return what an operator's list allows.

    Raises:
        ValueError: an entry is no host.
    """
    for entry in entries:
        scheme, slashes, rest = entry.rpartition("://")
        parts = urlsplit(f"//{rest}")
        usable = not slashes or scheme in _PORTS
        if not usable or not parts.hostname or parts.path or parts.query or "@" in rest:
            raise ValueError(
                f'{entry!r} is no host; write "s3.example.com", "*.example.com" or '
                '"http://minio.lan:9000"'
            )
        _ = parts.port  # ValueError where it is none
    return Allowed(tuple(entries))
