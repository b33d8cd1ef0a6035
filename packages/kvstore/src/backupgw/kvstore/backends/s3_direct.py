"""The short way to one object: without the library, on connections of our own.

Most of the processor time of a small object went into the library's machinery around the request,
so that a few thousand of them took longer than the line did. What this way does not know, it leaves
to the library, by `NotDirect`: Amazon itself, with its redirections and checksums; proxies; objects
that the service encrypts with our key, or locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus as Http
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import quote, urlsplit

from botocore.exceptions import ClientError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from .body_reader import Body
from .errors import BackendConnectionError, BackendError
from .rest_ahead import Ahead, look_and_do
from .rest_connections import Connections
from .rest_incoming import Answer
from .rest_wire import lines_of
from .s3_dialing import dial_to
from .s3_errors import translate
from .s3_records import Found
from .s3_settings import Settings
from .s3_signature import sign
from .s3_told import NotDirect, error_told, object_told

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from botocore.session import Session
    from types_boto3_s3 import S3Client

_PORTS = {"http": 80, "https": 443}

_SAFE = "/-_.~"
"""What stays as it is in a key's path, as S3's signatures have it."""

_MOST_ERROR = 64 << 10
"""Bytes of an error that are looked at."""

_LIBRARYS = frozenset(
    map(int, (Http.MOVED_PERMANENTLY, Http.FOUND, Http.TEMPORARY_REDIRECT, Http.BAD_REQUEST))
)
"""Answers of which the library may know more: another region, another signature."""


_DONE = frozenset({int(Http.OK), int(Http.NO_CONTENT)})

_CALLS = {
    "GET": "GetObject",
    "HEAD": "HeadObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}
"""What hooks call a request."""

_UNANSWERED = 3
"""Times in a row that the second of two requests at once has no answer, after which no two are."""


class _Unknown(Enum):
    """What there is, where no answer tells."""

    UNKNOWN = auto()


_UNKNOWN = _Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Got:
    """The answer to a request for an object.

    Attributes:
        length: bytes of the body.
        span: its Content-Range, "" where there is none.
    """

    body: Body
    length: int
    span: str
    etag: str


class Sending(Protocol):
    """A request whose body goes out while it comes."""

    sent: int

    def send(self, body: bytearray | bytes, end: int) -> bool:
        """Send the body up to there; False where that is of no use any more."""

    def finish(self, body: bytearray | bytes) -> Answer | None:
        """Send the rest, and return the answer; None where not all of it could be sent."""

    def stop(self) -> None:
        """Break off. Idempotent."""


class Direct:
    """One bucket, by the short way. Safe for threads.

    Args:
        settings: where and how.
        base: URL of the bucket, which a key is put behind.
        credentials: by which requests are signed; they may renew themselves.
        region: for which.
        authorities: file or folder of those that may sign the service's certificate.
    """

    def __init__(
        self,
        settings: Settings,
        base: str,
        credentials: Credentials,
        region: str,
        authorities: str,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._region = region
        parts = urlsplit(base)
        self._path = parts.path
        host, port = parts.hostname or "", parts.port
        self._host = f"[{host}]" if ":" in host else host
        if port not in (None, _PORTS[parts.scheme]):
            self._host += f":{port}"
        self._in_order = True
        """Whether two requests at once are answered one after the other."""
        self._unanswered = 0
        self._connections = Connections(
            settings.server,
            dial_to(settings, base, authorities),
            {"User-Agent": "backupgw"},
            idle=settings.connections,
            tries=0,
            wait=0.0,
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._connections.close()

    def put(
        self,
        key: str,
        data: bytes | bytearray,
        what: str,
        headers: Mapping[str, str],
        *,
        digest: str | None = None,
        sending: Sending | None = None,
    ) -> None:
        """Write an object.

        Args:
            headers: beside those of every request, in lower case.
            digest: SHA-256 of the data in hex, where it is known.
            sending: what was sent of it already.

        Raises:
            NotDirect: nothing was written; the library has to try.
            ClientError: the service's answer is none of success.
            BackendConnectionError: it was asked more than once, and the answer may be to the first.
            OSError: it was not reached.
        """
        answer = self._finished(sending, data, what) if sending is not None else None
        if answer is None:
            answer = self._ask("PUT", key, what, headers, data, digest)
        self._must_be_done(answer, "PutObject", what)

    def send(self, key: str, size: int, digest: str, headers: Mapping[str, str]) -> Sending:
        """Begin to write an object that is still coming.

        Args:
            digest: SHA-256 in hex of all of it: it is signed with that before it is there.

        Raises:
            NotDirect: the library has to, when all of it has come.
        """
        self._tell("PutObject")
        target, lines = self._signed("PUT", key, headers, None, digest)
        lines += f"Content-Length: {size}\r\n"
        return Ahead(self._connections, "PUT", target, lines, self._settings.timeout)

    def _finished(self, sending: Sending, data: bytes | bytearray, what: str) -> Answer | None:
        try:
            return sending.finish(data)
        except OSError as error:
            raise self._unreached(error, what) from error

    def _must_be_done(self, answer: Answer, call: str, what: str) -> None:
        if answer.status not in _DONE:
            self._refuse(answer, call, what)
        answer.release()

    def head(self, key: str, what: str) -> Found | None:
        """Tell about an object, None where there is none.

        Raises:
            NotDirect, ClientError, OSError: as `put`.
        """
        answer = self._ask("HEAD", key, what, {}, None)
        if answer.status == Http.NOT_FOUND:
            answer.release()
            return None
        if answer.status != Http.OK:
            self._refuse(answer, "HeadObject", what)
        found = object_told(key, answer)
        answer.release()
        return found

    def delete(self, key: str, what: str) -> None:
        """Remove an object; some services say so where there is none.

        Raises:
            NotDirect, ClientError, OSError: as `put`.
        """
        self._must_be_done(self._ask("DELETE", key, what, {}, None), "DeleteObject", what)

    def look_and_delete(self, key: str) -> Found | Literal[False] | None:
        """Remove an object, and tell what it was, False for nothing: by one round trip.

        Returns:
            None where neither can be told; it may be gone.

        Raises:
            NotDirect: nothing was asked.
        """
        found, answer = self._look_and_do("DELETE", key, {}, None, None)
        if isinstance(found, Found):
            if answer is None or answer.status not in _DONE:
                if answer is not None:
                    answer.discard()
                return None
            answer.release()
            return found
        if answer is not None:
            answer.discard()  # an error of its own, where the key is a folder's
        return False if found is None else None

    def look_and_put(
        self, key: str, data: bytes | bytearray, headers: Mapping[str, str], digest: str
    ) -> tuple[Found | None, str | None] | None:
        """Write an object, and tell what there was before, None for nothing, and the new one's
        etag, None where it may not be stored: by one round trip.

        Returns:
            None where that cannot be told; it may be written.

        Raises:
            NotDirect: nothing was asked.
        """
        found, answer = self._look_and_do("PUT", key, headers, data, digest)
        etag: str | None = None
        if answer is not None:
            if answer.status in _DONE:
                etag = answer.header("etag") or ""
            answer.release()
        return None if found is _UNKNOWN else (found, etag)

    def _look_and_do(
        self,
        method: str,
        key: str,
        headers: Mapping[str, str],
        data: bytes | bytearray | None,
        digest: str | None,
    ) -> tuple[Found | _Unknown | None, Answer | None]:
        if not self._in_order:
            raise NotDirect
        _, look = self._signed("HEAD", key, {}, None)
        target, lines = self._signed(method, key, headers, data, digest)
        if data is not None:
            lines += f"Content-Length: {len(data)}\r\n"
        for call in ("HEAD", method):
            self._tell(_CALLS[call])
        seen, answer = look_and_do(
            self._connections,
            method,
            target,
            look=look,
            lines=lines,
            body=None if data is None else memoryview(data),
            timeout=self._settings.timeout,
        )
        if answer is None:
            # The connection may have been an old one. Where it was not, this server or what stands
            # before it does not answer two requests in a row.
            self._unanswered += 1
            self._in_order = self._unanswered < _UNANSWERED
        else:
            self._unanswered = 0
        if seen is not None and seen.status == Http.NOT_FOUND:
            return None, answer
        if seen is not None and seen.status == Http.OK:
            return object_told(key, seen), answer
        return _UNKNOWN, answer

    def get(self, key: str, what: str, headers: Mapping[str, str]) -> Got:
        """Read an object.

        Args:
            headers: range, if-match.

        Raises:
            NotDirect, ClientError, OSError: as `put`.
        """
        answer = self._ask("GET", key, what, headers, None)
        if answer.status not in (Http.OK, Http.PARTIAL_CONTENT):
            self._refuse(answer, "GetObject", what)
        etag, length = answer.header("etag"), answer.left
        if etag is None or length is None:
            answer.discard()
            raise NotDirect
        return Got(_Body(answer), length, answer.header("content-range") or "", etag)

    def _signed(
        self,
        method: str,
        key: str,
        headers: Mapping[str, str],
        data: bytes | bytearray | None,
        digest: str | None = None,
    ) -> tuple[str, str]:
        """Return a request's target and its headers' lines."""
        target = self._path + quote(key, safe=_SAFE)
        frozen = self._credentials.get_frozen_credentials()
        if frozen.access_key is None or frozen.secret_key is None:
            raise NotDirect
        sent = sign(
            method,
            self._host,
            target,
            headers,
            data,
            key_id=frozen.access_key,
            secret=frozen.secret_key,
            token=frozen.token,
            region=self._region,
            digest=digest,
        )
        return target, lines_of(sent)

    def _tell(self, call: str) -> None:
        if (told := self._settings.on_call) is not None:
            told(call)

    def _ask(
        self,
        method: str,
        key: str,
        what: str,
        headers: Mapping[str, str],
        data: bytes | bytearray | None,
        digest: str | None = None,
    ) -> Answer:
        target, lines = self._signed(method, key, headers, data, digest)
        self._tell(_CALLS[method])
        try:
            answer = self._connections.request(
                method,
                target,
                lines=lines,
                body=None if data is None else memoryview(data),
                size=0 if data is None else len(data),
                timeout=self._settings.timeout,
            )
        except BackendConnectionError as error:
            if isinstance(cause := error.__cause__, OSError):
                raise self._unreached(cause, what) from cause
            raise
        if answer.repeated:
            self._tell(_CALLS[method])
        return answer

    def _unreached(self, error: OSError, what: str) -> BackendError:
        server = self._settings.server
        if isinstance(error, TimeoutError | BlockingIOError):  # the system says the latter
            return BackendConnectionError(f"{what}: {server} did not answer in time")
        return translate(error, what, server)

    def _refuse(self, answer: Answer, call: str, what: str) -> None:
        """Raise what an answer means that is none of success."""
        said = answer.read_all(_MOST_ERROR)
        if answer.status in _LIBRARYS:
            raise NotDirect
        if answer.repeated and answer.status == Http.PRECONDITION_FAILED:
            raise BackendConnectionError(
                f"{what}: the connection to {self._settings.server} broke, and what was sent may "
                "have arrived"
            )
        retry_after = answer.header("retry-after")
        raise ClientError(
            {
                "Error": error_told(said),
                "ResponseMetadata": {
                    "HTTPStatusCode": answer.status,
                    "HTTPHeaders": {} if retry_after is None else {"retry-after": retry_after},
                    "RequestId": "",
                    "HostId": "",
                    "RetryAttempts": 0,
                },
            },
            call,
        )


class _Body:
    """What `BodyReader` reads."""

    def __init__(self, answer: Answer) -> None:
        self.read = answer.read
        self.read_into = answer.read_into
        self.close = answer.discard


def of_client(settings: Settings, session: Session, client: S3Client) -> Direct | None:
    """Return the short way to a client's bucket, None where only the library knows one."""
    if (
        settings.amazon
        or settings.checksums == "when_supported"
        or settings.sse_customer_key is not None
        or settings.retention is not None
    ):
        return None
    credentials = session.get_credentials()
    if credentials is None:
        return None
    # The library decides where requests name the bucket.
    url = client.generate_presigned_url("get_object", {"Bucket": settings.bucket, "Key": "key"})
    base = url.partition("?")[0].removesuffix("key")
    proxies = get_environ_proxies(base)
    if proxies.get(urlsplit(base).scheme) or proxies.get("all"):
        return None
    configured = session.get_config_variable("ca_bundle")
    authorities = str(settings.cacert or configured or get_cert_path(verify=True))
    return Direct(settings, base, credentials, client.meta.region_name, authorities)
