"""Tokens: what a client shows instead of a password, limited in time, actions and targets.

Bearer tokens are random and known to this gateway's store alone, so they can be revoked; signed
tokens (JWT) carry their limits themselves and are checked with a key. `TokenAuthenticator` takes
both and turns them into a `Principal` for the authoriser.
"""

from .authenticator import TokenAuthenticator
from .database import DatabaseTokens, open_store, service_store
from .records import Token, TokenRefused, mint
from .store import TokenStore, TokenStoreError

__all__ = [
    "DatabaseTokens",
    "Token",
    "TokenAuthenticator",
    "TokenRefused",
    "TokenStore",
    "TokenStoreError",
    "mint",
    "open_store",
    "service_store",
]
