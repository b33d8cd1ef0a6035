"""Signing in to Google, and the HTTP session that all requests of a place go through.

Google's libraries are given this session (`requests` with Google's sign-in on top), so that times,
connections and authorities are set in one place, and nothing is tried again behind our back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from google.auth import exceptions as auth_errors
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession, Request
from requests import Response, Session
from requests.adapters import HTTPAdapter

from .api_calls import OnCall, route
from .errors import BackendURLInvalid, PermissionDenied
from .google_options import Wire

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

for _teller in ("urllib3.connectionpool", "google.auth"):
    # Below, they tell what is asked for tokens, and the addresses of uploads, which need no key.
    logging.getLogger(_teller).setLevel(logging.INFO)

TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
CONNECT_TIMEOUT = 10.0
_UNAUTHORIZED = 401


@dataclass(frozen=True)
class Login:
    """How a place signs in. What is secret is never shown.

    Attributes:
        scopes: what it is to be allowed.
        wire: how requests go out.
        service_account: the key of a service account: JSON, or the path of its file.
        subject: whom the service account acts for, in a domain that lets it.
        refresh_token, client_id, client_secret: a person's grant, and the app that has it.
        token_uri: where access tokens are had for a grant.
        anonymous: no sign-in at all.
        call_name: returns what a request is called, given its method and path.
    """

    scopes: Sequence[str]
    wire: Wire
    service_account: str | None = field(default=None, repr=False)
    subject: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token_uri: str = TOKEN_URI
    anonymous: bool = False
    call_name: Callable[[str, str], str] = field(default=route, repr=False)

    def credentials(self) -> Credentials:
        """Return what Google's libraries sign in with.

        Raises:
            BackendURLInvalid: the key of the service account cannot be read or used.
            PermissionDenied: nothing to sign in with was found on this machine.
        """
        if self.anonymous:
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        if self.refresh_token is not None:
            from google.oauth2.credentials import Credentials as Grant

            return Grant(  # type: ignore[no-untyped-call]
                None,
                refresh_token=self.refresh_token,
                token_uri=self.token_uri,
                client_id=self.client_id,
                client_secret=self.client_secret,
                scopes=[*self.scopes],
            )
        if self.service_account is not None:
            return self._service_account(self.service_account)
        import google.auth

        try:
            found, _ = google.auth.default(scopes=[*self.scopes])
        except auth_errors.GoogleAuthError as error:
            raise PermissionDenied(
                "no credentials for Google: set service_account, run `gcloud auth "
                "application-default login`, or give this machine a service account"
            ) from error
        return found

    def _service_account(self, key: str) -> Credentials:
        from google.oauth2 import service_account

        try:
            if not key.lstrip().startswith("{"):
                with open(key, encoding="utf-8") as file:
                    key = file.read()
            found: Any = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                json.loads(key), scopes=[*self.scopes], subject=self.subject
            )
        except OSError as error:
            raise BackendURLInvalid(
                f"service_account: {error.filename}: {error.strerror}"
            ) from error
        except (ValueError, TypeError, auth_errors.GoogleAuthError):
            # Not chained: the message may hold a part of the key.
            raise BackendURLInvalid(
                "service_account: is not the JSON key of a service account"
            ) from None
        return found  # type: ignore[no-any-return]

    def session(self) -> SignedSession:
        """Return a session that signs its requests, and renews what it signs them with."""
        session = SignedSession(self.credentials(), self._plain(Session()), self.wire.timeout)
        self._plain(session)
        if self.wire.on_call is not None:
            session.request = self._telling(session.request, self.wire.on_call)  # type: ignore[method-assign]
        return session

    def _telling(self, request: Callable[..., Any], on_call: OnCall) -> Callable[..., Any]:
        def told(method: str, url: str, *arguments: Any, **more: Any) -> Any:
            on_call(self.call_name(method, urlsplit(url).path))
            return request(method, url, *arguments, **more)

        return told

    def _plain(self, session: Session) -> Session:
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=self.wire.connections)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        if self.wire.cacert is not None:
            # Not as the session's own, before which REQUESTS_CA_BUNDLE would come.
            session.request = partial(session.request, verify=self.wire.cacert)  # type: ignore[method-assign]
        return session

    @property
    def patience(self) -> tuple[float, float]:
        """Seconds until a connection is there, and without a byte."""
        return (min(CONNECT_TIMEOUT, self.wire.timeout), self.wire.timeout)


class SignedSession(AuthorizedSession):
    """Signs its requests.

    Args:
        credentials: what to sign with.
        sign_in: the session by which that is had and renewed; closed with this one.
        timeout: seconds that this may take.
    """

    def __init__(self, credentials: Credentials, sign_in: Session, timeout: float) -> None:
        super().__init__(credentials, refresh_timeout=timeout, auth_request=Request(sign_in))  # type: ignore[no-untyped-call]
        self._sign_in = sign_in
        sign_in.hooks["response"].append(_refuse_page)
        self.hooks["response"].append(_read_refusal)

    def close(self) -> None:
        """Let go of all connections."""
        super().close()  # type: ignore[no-untyped-call]
        self._sign_in.close()


def _refuse_page(response: Response, *_: object, **__: object) -> None:
    """Refuse a page as an answer to the sign-in, which the library takes for a token, or for
    Google's refusal: it comes from a proxy, or the login to a network. A machine's own metadata may
    have any type."""
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and "Metadata-Flavor" not in response.headers:
        raise auth_errors.RefreshError(response.text, retryable=True)  # type: ignore[no-untyped-call]


def _read_refusal(response: Response, *_: object, **__: object) -> None:
    """Read an answer that makes the library sign in anew: it forgets those that are streamed."""
    if response.status_code == _UNAUTHORIZED:
        response.content  # noqa: B018 - it is kept with the answer
