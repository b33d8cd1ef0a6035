"""What Google's services have in common, from their public documentation: signing in, errors,
resumable uploads, ranges. `GcsDouble` and `DriveDouble` stand on it.

(https://developers.google.com/identity/protocols/oauth2/service-account,
https://cloud.google.com/storage/docs/performing-resumable-uploads)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from .double import Receive, Scope, Send, whole_body

UNIT = 256 << 10
TOKEN_LIFE = 3599
"""Seconds that an access token is good for."""


@dataclass(frozen=True)
class Request:
    """A request, read whole. `path` is as it was sent, `query` has the first value of each name,
    and the names of `headers` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Refused(Exception):
    """An answer other than success, as Google's APIs word it."""

    def __init__(self, status: int, reason: str, message: str = "", **headers: str) -> None:
        super().__init__(message or reason)
        error = {"domain": "global", "reason": reason, "message": message or reason}
        body = {"error": {"code": status, "message": message or reason, "errors": [error]}}
        self.reply = Reply(
            status,
            {"content-type": "application/json"}
            | {name.replace("_", "-"): value for name, value in headers.items()},
            json.dumps(body).encode(),
        )


@dataclass
class Session:
    """A resumable upload: what it is to become, its bytes so far, and the value it became."""

    resource: dict[str, object]
    query: Mapping[str, str]
    data: bytearray = field(default_factory=bytearray)
    done: dict[str, object] | None = None


class GoogleService:
    """An ASGI application. Attributes may be changed at any time.

    Attributes:
        client_id, client_secret, refresh_token: of a person's grant.
        revoked: the grant, or the key, is good no more.
        persists: bytes of a piece that an upload takes at most; None for all.
    """

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.client_id = f"{secrets.randbits(40)}.apps.googleusercontent.com"
        self.client_secret = secrets.token_urlsafe(18)
        self.refresh_token = f"1//{secrets.token_urlsafe(40)}"
        self.revoked = False
        self.persists: int | None = None
        self._tokens: dict[str, float] = {}
        self._codes: dict[str, tuple[str, str]] = {}
        self.sessions: dict[str, Session] = {}

    # -- the application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        headers = {
            name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        method, asked = scope["method"], scope["query_string"]
        if (meant := headers.get("x-http-method-override")) is not None:
            # Google's library sends a query of more than 2,048 characters as a form.
            method, asked, body = meant, body, b""
        query = parse_qs(asked.decode(), keep_blank_values=True)
        raw = scope.get("raw_path") or scope["path"].encode()
        host, port = scope["server"]
        request = Request(
            method,
            raw.decode("latin-1").partition("?")[0],
            {name: values[0] for name, values in query.items()},
            headers,
            body,
            f"{scope['scheme']}://{host}:{port}",
        )
        try:
            reply = self._answer(request)
        except Refused as refusal:
            reply = refusal.reply
        sent = {"content-length": str(len(reply.body)), **reply.headers}
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        await send({"type": "http.response.body", "body": reply.body})

    def _answer(self, request: Request) -> Reply:
        if request.path == "/token":
            return self._token(request)
        if request.path == "/o/oauth2/v2/auth":
            return self._agree(request)
        if "upload_id" in request.query and request.method in ("PUT", "DELETE"):
            return self._go_on(request)  # who has the address needs no more
        self._authenticate(request)
        return self.route(request)

    def route(self, request: Request) -> Reply:
        """Answer a request that is signed. Raises Refused."""
        raise NotImplementedError

    def finish(self, session: Session, request: Request) -> dict[str, object]:
        """Make a value of a complete upload; return how it is described. Raises Refused."""
        raise NotImplementedError

    # -- who asks

    def account(self, base: str) -> str:
        """Return the key of a service account, for a service at `base`."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "the-project",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "gateway@the-project.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": f"{base}/token",
            }
        )

    def _agree(self, request: Request) -> Reply:
        """The page on which a person agrees; Google's shows a form and then redirects."""
        query = request.query
        if query.get("client_id") != self.client_id or query.get("response_type") != "code":
            raise Refused(400, "invalid_client")
        if query.get("access_type") != "offline" or query.get("code_challenge_method") != "S256":
            raise Refused(400, "invalid_request")
        code = f"4/{secrets.token_urlsafe(24)}"
        self._codes[code] = (query["code_challenge"], query["redirect_uri"])
        glue = "&" if "?" in query["redirect_uri"] else "?"
        where = f"{query['redirect_uri']}{glue}code={code}&state={query.get('state', '')}"
        return Reply(302, {"location": where})

    def _token(self, request: Request) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        kind, pair = request.headers.get("authorization", "").partition(" ")[::2]
        if kind == "Basic":  # an app may sign in so, too (RFC 6749, 2.3.1)
            form["client_id"], _, form["client_secret"] = (
                base64.b64decode(pair).decode().partition(":")
            )
        more: dict[str, object] = {}
        kind = form.get("grant_type", "")
        if kind == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            good = self._is_ours(form["assertion"])
        elif kind == "authorization_code":
            challenge, redirect = self._codes.pop(form.get("code", ""), ("", ""))
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            good = challenge == base64.urlsafe_b64encode(digest).decode().rstrip("=")
            good = good and redirect == form.get("redirect_uri") and self._is_app(form)
            more = {"refresh_token": self.refresh_token}
        else:
            good = form.get("refresh_token") == self.refresh_token and self._is_app(form)
        if not good or self.revoked:
            body = {
                "error": "invalid_grant",
                "error_description": "Token has been expired or revoked.",
            }
            kinds = {"content-type": "application/json"}
            return Reply(400, kinds, json.dumps(body).encode())
        token = f"ya29.{secrets.token_urlsafe(24)}"
        self._tokens[token] = time.time() + TOKEN_LIFE
        return answer(
            {"access_token": token, "expires_in": TOKEN_LIFE, "token_type": "Bearer", **more}
        )

    def _is_app(self, form: Mapping[str, str]) -> bool:
        return (
            form.get("client_id") == self.client_id
            and form.get("client_secret") == self.client_secret
        )

    def _is_ours(self, assertion: str) -> bool:
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        try:
            jwt.decode(assertion, certs=public.decode())  # type: ignore[no-untyped-call]
        except ValueError:
            return False
        return True

    def expire_tokens(self) -> None:
        """End the life of every access token."""
        self._tokens.clear()

    def _authenticate(self, request: Request) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.revoked or self._tokens.get(token, 0.0) < time.time():
            raise Refused(401, "authError", "Invalid Credentials")

    # -- resumable uploads

    def begin_session(self, request: Request, resource: dict[str, object]) -> Reply:
        """Begin an upload; its address is in the answer."""
        number = secrets.token_urlsafe(60)
        self.sessions[number] = Session(resource, request.query)
        where = f"{request.base}{request.path}?uploadType=resumable&upload_id={number}"
        return Reply(200, {"location": where, "x-guploader-uploadid": number})

    def _go_on(self, request: Request) -> Reply:
        number = request.query["upload_id"]
        session = self.sessions.get(number)
        if session is None:
            raise Refused(404, "notFound", "Upload session not found.")
        if request.method == "DELETE":
            del self.sessions[number]
            return Reply(499)
        if session.done is not None:
            return answer(session.done)
        span = re.fullmatch(
            r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers.get("content-range", "")
        )
        if span is None:
            raise Refused(400, "badRequest", "Invalid Content-Range")
        first, last, total = span.groups()
        if first is not None:
            self._take(session, request, int(first), int(last), total)
        if total == "*" or len(session.data) < int(total):
            more = {"range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
            return Reply(308, more)
        try:
            session.done = self.finish(session, request)
        except Refused:
            del self.sessions[number]
            raise
        session.data = bytearray()
        return answer(session.done)

    def _take(self, session: Session, request: Request, first: int, last: int, total: str) -> None:
        if len(request.body) != last - first + 1 or first != len(session.data):
            raise Refused(400, "badRequest", "The bytes do not follow those that came before")
        body = request.body
        ends = total != "*" and last + 1 == int(total)
        if not ends and len(body) % UNIT:
            raise Refused(400, "badRequest", "Pieces must be multiples of 256 KiB")
        if self.persists is not None and len(body) > self.persists:
            body = body[: self.persists]
        session.data += body


def answer(value: object, **headers: str) -> Reply:
    """Return a reply of JSON."""
    kinds = {"content-type": "application/json; charset=UTF-8"}
    return Reply(200, kinds | headers, json.dumps(value).encode())


def parts_of(request: Request) -> tuple[dict[str, object], bytes]:
    """Return the resource and the bytes of a multipart upload. Raises Refused."""
    found = re.search(r'boundary="?([^";]+)"?', request.headers.get("content-type", ""))
    if found is None:
        raise Refused(400, "badRequest", "no boundary")
    mark = f"--{found[1]}".encode()
    pieces = request.body.split(b"\r\n\r\n", 2)
    if len(pieces) != 3 or not request.body.startswith(mark):
        raise Refused(400, "badRequest", "not a multipart body")
    about, end = pieces[1].split(b"\r\n" + mark, 1)[0], b"\r\n" + mark + b"--"
    data = pieces[2]
    cut = data.rfind(end)
    if cut < 0:
        raise Refused(400, "badRequest", "the body does not end")
    resource: dict[str, object] = json.loads(about)
    return resource, data[:cut]


def ranged(data: bytes, asked: str | None) -> tuple[int, bytes, dict[str, str]]:
    """Return the status, the bytes and the headers for a Range header. Raises Refused."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if match is None or not any(match.groups()):
        return 200, data, {}
    first, last = match.groups()
    size = len(data)
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size or end <= start:
        raise Refused(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
    return 206, data[start:end], {"content-range": f"bytes {start}-{end - 1}/{size}"}
