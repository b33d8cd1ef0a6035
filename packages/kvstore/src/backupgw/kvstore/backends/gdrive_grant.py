"""A grant of Google's: a refresh token, by the flow for programs on a person's machine (RFC 8252)
with PKCE (RFC 7636).

Google has no page that shows a code: having agreed, the person's browser is sent to an address of
its own machine. Where that is this one, we listen there. Elsewhere the browser says that it cannot
open the page, and its address line holds the code.
(https://developers.google.com/identity/protocols/oauth2/native-app)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from google_auth_oauthlib.flow import Flow
from oauthlib.oauth2 import OAuth2Error

from .errors import BackendConnectionError, BackendURLInvalid, PermissionDenied
from .gdrive_urls import ALL, FILES
from .google_session import TOKEN_URI
from .grants import Grant

for _teller in ("oauthlib", "requests_oauthlib"):
    logging.getLogger(_teller).setLevel(logging.INFO)  # below, they tell codes and secrets

_AUTH_URI = "https://accounts.google.com/o/oauth2/v2/auth"
_NOWHERE = "http://127.0.0.1:53671/"
"""Where the browser is sent while nobody listens; what does cannot use the code (PKCE)."""


def begin(options: Mapping[str, object], redirect: str | None) -> Grant:
    """Ask for it, for the app `client_id`; the answer goes to `redirect`, if anybody listens.

    Raises:
        BackendURLInvalid: an option is missing.
    """
    client_id, client_secret = options.get("client_id"), options.get("client_secret")
    if not client_id or not client_secret:
        raise BackendURLInvalid(
            "gdrive: needs the options client_id and client_secret: those of an OAuth client of "
            "the type 'Desktop app' of yours, from https://console.cloud.google.com/auth/clients"
        )
    scope = str(options.get("scope") or FILES)
    if scope not in (FILES, ALL):
        raise BackendURLInvalid(f'gdrive: scope is "{FILES}" or "{ALL}", not {scope!r}')
    endpoint = str(options.get("endpoint") or "").rstrip("/")
    client = {
        "client_id": str(client_id),
        "client_secret": str(client_secret),
        "auth_uri": f"{endpoint}/o/oauth2/v2/auth" if endpoint else _AUTH_URI,
        "token_uri": f"{endpoint}/token" if endpoint else TOKEN_URI,
    }
    flow = Flow.from_client_config(
        {"installed": client},
        scopes=[f"https://www.googleapis.com/auth/{scope}"],
        redirect_uri=redirect or _NOWHERE,
        autogenerate_code_verifier=True,
    )
    # `consent`: or Google gives no refresh token to who has agreed before.
    visit, state = flow.authorization_url(access_type="offline", prompt="consent")

    def finish(code: str) -> str:
        return _finish(flow, _code_of(code.strip(), state), options.get("cacert"))

    return Grant(
        str(visit),
        "refresh_token",
        finish,
        "the address that your browser then shows (a page of 127.0.0.1, which it cannot open)",
        lambda address: parse_qs(urlsplit(address).query).get("state") == [state],
    )


def _code_of(answer: str, state: str) -> str:
    """Return the code in an address, or what is one already.

    Raises:
        PermissionDenied: the person has refused, or it is of another attempt.
    """
    if "://" not in answer and "code=" not in answer:
        return answer
    query = parse_qs(urlsplit(answer).query or answer)
    if "error" in query:
        raise PermissionDenied(f"Google says: {query['error'][0]}; begin again")
    if "code" not in query or query.get("state", [state])[0] != state:
        raise PermissionDenied("that is not the address of this attempt's answer; begin again")
    return query["code"][0]


def _finish(flow: Any, code: str, cacert: object) -> str:
    try:
        flow.fetch_token(code=code, verify=True if cacert is None else str(cacert))
    except OAuth2Error as error:
        # Not chained: the request that it shows holds the code.
        raise PermissionDenied(
            f"Google does not accept the code ({error.error}): it is wrong, was used before or is "
            "too old; begin again"
        ) from None
    except requests.RequestException as error:
        raise BackendConnectionError(f"Google cannot be reached: {type(error).__name__}") from None
    token = flow.credentials.refresh_token
    if not token:
        raise PermissionDenied("Google gave no grant that lasts; begin again")
    return str(token)
