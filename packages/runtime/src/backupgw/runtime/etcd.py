"""Keys of an etcd, read over its HTTP gateway (API v3, `/v3/kv/range`; etcd 3.4 and newer).

Several members are tried in the order in which they are named; the first that answers counts.
Nothing is written, and nothing is kept open between two readings.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .secrets import Secret

T = TypeVar("T")

LARGEST_ANSWER = 4 << 20
"""Bytes of an answer; etcd itself gives no value larger than 1.5 MiB."""


class EtcdError(Exception):
    """No member gives an answer; the text says why, for each, and has no secret."""


class Etcd:
    """An etcd, asked anew each time.

    Args:
        urls: of its members, `http://HOST:PORT` or `https://HOST:PORT`.
        user, password: where its authentication is switched on.
        authority: file of the certificates that may have signed its own; default the system's.
        certificate, key: files that are shown to it.
        timeout: seconds for each member.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        user: str | None = None,
        password: Secret | None = None,
        authority: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        timeout: float = 5.0,
    ) -> None:
        self._urls = list(urls)
        self._user = user
        self._password = password
        self._authority = authority
        self._certificate = certificate
        self._key = key
        self._timeout = timeout

    def get(self, key: str) -> str | None:
        """Return a key's value, None where there is no such key.

        Raises:
            EtcdError: nothing answers.
            SecretError: the password cannot be had.
        """
        return dict(self._range({"key": _written(key)})).get(key)

    def below(self, prefix: str) -> Mapping[str, str]:
        """Return all keys that begin with `prefix`, which is not empty, with their values.

        Raises:
            EtcdError: nothing answers, or a key or a value is not UTF-8.
            SecretError: the password cannot be had.
        """
        return dict(
            self._range({"key": _written(prefix), "range_end": _encoded(_after(prefix.encode()))})
        )

    def _range(self, asked: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        # Serializable: whoever answers may be behind by moments, but a cluster without a quorum
        # can still be read.
        answer = self._ask({**asked, "serializable": True})
        try:
            for pair in answer.get("kvs", ()):
                name = base64.b64decode(pair["key"]).decode()
                yield name, base64.b64decode(pair.get("value", "")).decode()
        except (TypeError, KeyError, ValueError) as error:
            raise EtcdError("a key or a value in it is not UTF-8 text") from error

    def _ask(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        reasons = []
        for url in self._urls:
            try:
                with _Member(self, url) as member:
                    headers = {}
                    if self._user is not None:
                        secret = "" if self._password is None else self._password.reveal()
                        who = {"name": self._user, "password": secret}
                        headers["Authorization"] = member.post("/v3/auth/authenticate", who)[
                            "token"
                        ]
                    return member.post("/v3/kv/range", asked, headers)
            except (OSError, HTTPException, ValueError, KeyError, _Refused) as error:
                reasons.append(f"{url}: {_reason(error)}")
        raise EtcdError("; ".join(reasons))

    def connect(self, url: str) -> HTTPConnection:
        """Return a connection to a member, not yet made. Raises _Refused, OSError, ValueError."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 2379
        if parts.scheme == "http":
            return HTTPConnection(host, port, timeout=self._timeout)
        context = ssl.create_default_context()
        if self._authority is not None:
            context = _of_files(
                lambda: ssl.create_default_context(cafile=self._authority), self._authority
            )
        if self._certificate is not None:
            certificate, key = self._certificate, self._key
            _of_files(lambda: context.load_cert_chain(certificate, key), certificate, key)
        return HTTPSConnection(host, port, timeout=self._timeout, context=context)


class _Refused(Exception):
    """An answer other than 200, or a file that is needed to ask and cannot be used."""


def _of_files(load: Callable[[], T], *files: Path | None) -> T:
    """Return what is made of files. Raises _Refused, which names them: the error does not."""
    try:
        return load()
    except OSError as error:
        named = " and ".join(str(file) for file in files if file is not None)
        raise _Refused(f"{named} cannot be used: {error.strerror or error}") from error


class _Member:
    def __init__(self, etcd: Etcd, url: str) -> None:
        self._etcd = etcd
        self._url = url

    def __enter__(self) -> _Member:
        self._connection = self._etcd.connect(self._url)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(
        self, path: str, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        body = json.dumps(document).encode()
        told = {"Content-Type": "application/json", **(headers or {})}
        self._connection.request("POST", path, body, told)
        answer = self._connection.getresponse()
        content = answer.read(LARGEST_ANSWER + 1)
        if len(content) > LARGEST_ANSWER:
            raise _Refused(f"its answer is larger than {LARGEST_ANSWER >> 20} MiB")
        if answer.status != 200:
            raise _Refused(f"HTTP {answer.status}, {_complaint(content)}")
        found = json.loads(content)
        if not isinstance(found, dict) or "header" not in found:
            raise _Refused("its answer is not an etcd's")
        return found


def _complaint(content: bytes) -> str:
    try:
        told = json.loads(content)
        text = str(told.get("message") or told.get("error"))
    except (ValueError, AttributeError):
        return "which is not an etcd's answer"
    return " ".join(text.split())[:200]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, _Refused):
        return str(error)
    return "its answer is not an etcd's"


def _after(prefix: bytes) -> bytes:
    """Return the first key that does not begin with `prefix`; zero is behind all."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"


def _written(text: str) -> str:
    return _encoded(text.encode())


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
