"""What travels to Drime and its storage, and back: requests and answers, whichever way they take.

`drime_straight` is the way of the kernel's own HTTP, `drime_proxied` httpx's.
"""

from __future__ import annotations

import re
import ssl
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import quote, urljoin, urlsplit

from .errors import BackendError

Pieces = Sequence[bytes | bytearray]

_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})

_NO_URL = "a URL that Drime gave cannot be understood"

_HOST = re.compile(r"[!-~]+\Z")
"""What a host's name is made of; more is not checked."""


class Request(NamedTuple):
    """What is sent: its headers beside those of the connection, and its body in pieces."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Pieces = ()


class Answer(Protocol):
    """An answer of which the head has come; whoever asked reads the rest and releases it.

    Reading raises BackendConnectionError where the connection breaks.
    """

    @property
    def status(self) -> int:
        """HTTP's."""

    def header(self, name: str) -> str | None:
        """Return a header, None where there is none."""

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes of the body, b"" at the end."""

    def read_into(self, buffer: memoryview, /) -> int:
        """Read 1 to len(buffer) bytes into a buffer; return how many, 0 at the end."""

    def read_all(self) -> bytes:
        """Return the rest of the body, and let go of the answer."""

    def release(self) -> None:
        """Let go of the answer. Idempotent."""


class Begun(Protocol):
    """A request whose answer is fetched later."""

    def answer(self) -> Answer:
        """Return the answer. Called once. Raises what `Transport.send` does."""

    def drop(self) -> None:
        """Let the answer go, unless it was fetched. Idempotent."""


class Transport(Protocol):
    """Connections to any number of servers, kept for later. Safe for threads."""

    def begin(self, request: Request) -> Begun:
        """Send a GET, and let whoever asks do something else while it is answered.

        Raises what `send` does; what goes wrong on the way may also be raised with the answer.
        """

    def send(self, request: Request) -> Answer:
        """Send a request; return the answer, whatever its status.

        Raises:
            BackendConnectionError: nobody answers, or the connection broke.
            BackendError: the server's certificate is not trusted, or the URL is none.
            BackendMustBeOpen: it was closed.
        """

    def close(self) -> None:
        """End all connections."""


def onward(request: Request, answer: Answer) -> Request | None:
    """Return the request that a redirection asks for, None where it is none.

    Raises:
        BackendError: it leads nowhere; the answer was let go.
    """
    where = answer.header("Location") if answer.status in _REDIRECTIONS else None
    if not where:
        return None
    try:
        return request._replace(url=urljoin(request.url, where))
    except ValueError as error:
        answer.release()
        raise BackendError(_NO_URL) from error


def not_trusted(url: str, error: BaseException | None) -> BackendError | None:
    """Return the error for a certificate that is not trusted, None where one is not what went
    wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            host, why = origin_of(url).host, error.verify_message
            return BackendError(
                f"the certificate of {host} is not trusted ({why}); "
                "the variable SSL_CERT_FILE can name a file of authorities to trust"
            )
        error = error.__cause__ or error.__context__
    return None


class Origin(NamedTuple):
    """A server that answers."""

    scheme: str
    host: str
    port: int | None


def origin_of(url: str) -> Origin:
    """Return the server that a URL is on. Raises BackendError for what is no URL of one."""
    return parted(url)[0]


def parted(url: str) -> tuple[Origin, str]:
    """Return the server, and the path and query to ask it for."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            target = quote(target, safe=string.punctuation)
    except ValueError as error:
        raise BackendError(_NO_URL) from error
    if parts.scheme not in ("http", "https") or not _HOST.match(host):
        raise BackendError("a URL that Drime gave leads to no server")
    return Origin(parts.scheme, host, port), target
