"""Who a request comes from, and whether it may do what it asks: rest-server's rules.

Without private repositories every known user may use every repository; with them, a user has what
lies below the folder of the same name. In append-only mode nothing is overwritten or deleted but
locks. Whoever cannot be told apart from a stranger is a stranger.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.types import Scope

from backupgw.runtime.auth import BasicAuthenticator, Throttled

from .paths import Target

CHALLENGE = (b"www-authenticate", b'Basic realm="backupgw", charset="UTF-8"')


class Refused(Exception):
    """The request must not proceed."""

    def __init__(
        self, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or []


@dataclass(slots=True)
class Access:
    """The rules of one server.

    Args:
        authenticator: checks credentials; None where there are none to check.
        user_header: name of a trusted proxy's header that carries the user, lower case.
        private: each user has only the repositories below their own name.
        append_only: nothing but locks can be deleted.
    """

    authenticator: BasicAuthenticator | None
    user_header: bytes | None = None
    private: bool = False
    append_only: bool = False
    anonymous: bool = field(init=False)

    def __post_init__(self) -> None:
        self.anonymous = self.authenticator is None and self.user_header is None

    def known_user(self, scope: Scope) -> str | None:
        """Return the user where that needs no waiting, None where it does; "" is nobody."""
        if self.anonymous:
            return ""
        if self.user_header is not None:
            return self._named_by_proxy(scope)
        if self.authenticator is None:
            return None
        return self.authenticator.authenticate_cached(_header(scope, b"authorization"))

    def _named_by_proxy(self, scope: Scope) -> str:
        # Two headers: the client sent one, and the proxy added its own instead of replacing it.
        names = [value for key, value in scope["headers"] if key == self.user_header]
        try:
            if len(names) == 1 and names[0]:
                return str(names[0], "utf-8")
        except UnicodeDecodeError as error:
            raise Refused(401, "the proxy named a user in no known encoding") from error
        raise Refused(401, "the proxy named no user, or several", [CHALLENGE])

    async def identify(self, scope: Scope) -> str:
        """Return the user whose password was given.

        Raises:
            Refused: 401 without a right one, 429 after too many wrong ones.
        """
        if self.authenticator is None:
            raise Refused(401, "authentication is required", [CHALLENGE])
        client = scope.get("client")
        try:
            user = await self.authenticator.authenticate(
                _header(scope, b"authorization"), client[0] if client else ""
            )
        except Throttled as throttled:
            wait = b"%d" % max(1, round(throttled.retry_after))
            raise Refused(
                429, "too many failed logins; try again later", [(b"retry-after", wait)]
            ) from throttled
        if user is None:
            raise Refused(401, "unknown user or wrong password", [CHALLENGE])
        return user

    def check(self, user: str, method: str, target: Target) -> None:
        """Let the request pass or raise Refused."""
        if self.private and (target.owner != user or not user):
            # rest-server's status: a stranger learns nothing about whose repositories exist.
            raise Refused(401, "this repository belongs to another user")
        if self.append_only and method == "DELETE" and target.type != "locks":
            raise Refused(403, "this server is append-only: only locks can be deleted")


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
