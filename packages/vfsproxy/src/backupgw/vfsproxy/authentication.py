"""Who asks: by an API key or a signed token on the clients' port, by the manager's token on its.

An API key is a bearer token of the gateway (`backupgw vfs token create`), a signed one a JWT of one
of `[[tokens.key]]`. Programs that know only passwords may send either as the password of HTTP
Basic. A key is also taken from `X-API-Key`.
"""

from __future__ import annotations

import hmac

from backupgw.runtime.auth.throttle import Throttled
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_tokens import TokenSettings
from backupgw.runtime.tokens import TokenAuthenticator, TokenStoreError, service_store
from backupgw.runtime.tokens.authenticator import is_token

from .api.exchange import Exchange
from .identity import MANAGER, Identity
from .problems import Problem

MANAGER_HEADER = b"x-backendai-storage-auth-token"

CLIENT_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of `backupgw vfs token create`, or a signed token (JWT).",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
MANAGER_SECURITY = {
    "manager": {
        "type": "apiKey",
        "in": "header",
        "name": "X-BackendAI-Storage-Auth-Token",
        "description": "The token of `[vfs_manager]`.",
    }
}


class ClientAuthentication:
    """By tokens, on the clients' port."""

    def __init__(self, settings: Settings) -> None:
        self._store = service_store(settings)
        signed = None
        if settings.section("tokens", TokenSettings).key:
            # Imported late: what verifies signatures takes memory.
            from backupgw.runtime.tokens.signed import from_settings

            signed = from_settings(settings, self._store)
        self._tokens = TokenAuthenticator(self._store, signed)

    def known(self, exchange: Exchange) -> Identity | None:
        principal = self._tokens.authenticate_cached(_shown(exchange))
        return None if principal is None else Identity(principal, "token")

    async def identify(self, exchange: Exchange) -> Identity:
        header = _shown(exchange)
        if not is_token(header):
            raise _unauthorised("an API key or a token must be shown")
        client = exchange.scope.get("client")
        try:
            principal = await self._tokens.authenticate(header, client[0] if client else "")
        except Throttled as error:
            raise Problem(429, "too-many", "too many requests with unknown tokens") from error
        except TokenStoreError as error:
            raise Problem(
                503,
                "try-later",
                "tokens cannot be looked up just now",
                headers=[(b"retry-after", b"1")],
            ) from error
        if principal is None:
            raise _unauthorised("the token is not good, or no longer")
        return Identity(principal, "token")

    async def close(self) -> None:
        """Note what was used and let go of the store."""
        await self._tokens.close()
        self._store.close()


class ManagerAuthentication:
    """By the one token that the manager has."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def known(self, exchange: Exchange) -> Identity | None:
        shown = exchange.header(MANAGER_HEADER)
        if shown is None:
            scheme, _, value = (exchange.header(b"authorization") or b"").partition(b" ")
            shown = value.strip() if scheme.lower() == b"bearer" else b""
        return MANAGER if hmac.compare_digest(shown, self._token) else None

    async def identify(self, exchange: Exchange) -> Identity:  # noqa: ARG002 - as the protocol
        # 403, not 401: what managers of Backend.AI expect.
        raise Problem(
            403,
            "manager-only",
            f"the manager's token must be shown in {MANAGER_HEADER.decode()}",
        )


def _shown(exchange: Exchange) -> bytes | None:
    header = exchange.header(b"authorization")
    if header is None and (key := exchange.header(b"x-api-key")) is not None:
        return b"Bearer " + key
    return header


def _unauthorised(detail: str) -> Problem:
    challenge = (b"www-authenticate", b'Bearer realm="backupgw"')
    return Problem(401, "unauthorised", detail, headers=[challenge])
