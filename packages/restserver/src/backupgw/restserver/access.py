"""Who a request comes from, and whether it may do what it asks.

Two kinds of rules, and both must let a request pass. rest-server's: without private repositories
every known user may use every repository; with them, a user has what lies below the folder of the
same name; in append-only mode nothing is overwritten or deleted but locks. And the gateway's own,
`[[auth.rule]]` and the limits of tokens. Whoever cannot be told apart from a stranger is a
stranger.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import Scope

from backupgw.runtime import authorisation
from backupgw.runtime.auth import BasicAuthenticator, Throttled
from backupgw.runtime.authorisation import Action, Authoriser, Principal
from backupgw.runtime.http.incoming import header_of
from backupgw.runtime.tokens import TokenAuthenticator, TokenStoreError
from backupgw.runtime.tokens.authenticator import is_token

from .paths import Kind, Target
from .refusals import Refusal

CHALLENGE = (b"www-authenticate", b'Basic realm="backupgw", charset="UTF-8"')
NOBODY = Principal("")
"""A client without a name, where nobody has to show one."""

_ON_OBJECTS = {"HEAD": Action.OPEN, "GET": Action.OPEN, "POST": Action.ADD}
_ON_DATA = {
    "HEAD": Action.LIST,  # tells a size, as a listing does
    "GET": Action.LOAD,
    "POST": Action.ADD,
    "DELETE": Action.DELETE,
}
_ACTIONS = {
    "data": _ON_DATA,
    "locks": {**_ON_OBJECTS, "POST": Action.LOCK, "DELETE": Action.LOCK},
    **{
        kind: {**_ON_OBJECTS, "DELETE": Action.DELETE}
        for kind in ("config", "index", "keys", "snapshots")
    },
}


@dataclass(slots=True)
class Access:
    """The rules of one server.

    Args:
        authenticator: checks passwords; None where there are none to check.
        user_header: name of a trusted proxy's header that carries the user, lower case.
        proxies: networks from which that header is believed; none: whoever connects.
        certificates: the common name of the certificate that a client shows is its user.
        private: each user has only the repositories below their own name.
        append_only: nothing but locks can be deleted.
        tokens: checks tokens, where there is an authenticator; None takes none.
        rules: who may do what; may be given others at any time.
        place: the place's name, by which rules and tokens know it.
        throttled: told the address of a client that tried too many wrong passwords.
    """

    authenticator: BasicAuthenticator | None
    user_header: bytes | None = None
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    certificates: bool = False
    private: bool = False
    append_only: bool = False
    tokens: TokenAuthenticator | None = None
    rules: Authoriser = field(default_factory=Authoriser)
    place: str = "default"
    throttled: Callable[[str], None] = lambda _address: None
    anonymous: bool = field(init=False)

    def __post_init__(self) -> None:
        self.anonymous = (
            self.authenticator is None and self.user_header is None and not self.certificates
        )

    def known(self, scope: Scope) -> Principal | None:
        """Return who asks where that needs no waiting, None where it does.

        Raises:
            Refusal: 401 where a proxy named nobody, or no certificate did.
        """
        if self.anonymous:
            return NOBODY
        if self.user_header is not None:
            return Principal(self._named_by_proxy(scope))
        if self.certificates:
            return Principal(_named_by_certificate(scope))
        if self.authenticator is None:
            return None
        header = header_of(scope, b"authorization")
        user = self.authenticator.authenticate_cached(header)
        if user is not None:
            return Principal(user)
        return None if self.tokens is None else self.tokens.authenticate_cached(header)

    def _named_by_proxy(self, scope: Scope) -> str:
        if self.proxies and not self._is_proxy(scope.get("client")):
            raise Refusal(401, "only a trusted proxy may say who asks")
        # Two headers: the client sent one, and the proxy added its own instead of replacing it.
        names = [value for key, value in scope["headers"] if key == self.user_header]
        try:
            if len(names) == 1 and names[0]:
                return str(names[0], "utf-8")
        except UnicodeDecodeError as error:
            raise Refusal(401, "the proxy named a user in no known encoding") from error
        raise Refusal(401, "the proxy named no user, or several", [CHALLENGE])

    def _is_proxy(self, client: tuple[str, int] | None) -> bool:
        if client is None:
            return True  # a unix socket, whose mode says who may connect
        address = ipaddress.ip_address(client[0])
        return any(address in network for network in self.proxies)

    async def identify(self, scope: Scope) -> Principal:
        """Return who showed a right password or a good token.

        Raises:
            Refusal: 401 without either, 429 after too many wrong passwords, 503 while tokens
                cannot be looked up.
        """
        if self.authenticator is None:
            raise Refusal(401, "authentication is required", [CHALLENGE])
        client = scope.get("client")
        address = client[0] if client else ""
        header = header_of(scope, b"authorization")
        # A token shown as a password must not count as a wrong one.
        token = self.tokens is not None and is_token(header)
        try:
            if self.tokens is not None and token:
                principal = await self.tokens.authenticate(header, address)
            else:
                user = await self.authenticator.authenticate(header, address)
                principal = None if user is None else Principal(user)
        except Throttled as throttled:
            if not token:
                self.throttled(address)
            wait = b"%d" % max(1, round(throttled.retry_after))
            raise Refusal(
                429, "too many failed logins; try again later", [(b"retry-after", wait)]
            ) from throttled
        except TokenStoreError as error:
            raise Refusal(
                503, "tokens cannot be looked up just now; see the server's log"
            ) from error
        if principal is None:
            raise Refusal(401, "unknown user, wrong password or token", [CHALLENGE])
        return principal

    def check(self, who: Principal, method: str, target: Target) -> None:
        """Let the request pass or raise Refusal."""
        if self.private and (target.owner != who.user or not who.user):
            # rest-server's status: a stranger learns nothing about whose repositories exist.
            raise Refusal(401, "this repository belongs to another user")
        if self.append_only and method == "DELETE" and target.type != "locks":
            raise Refusal(403, "this server is append-only: only locks can be deleted")
        removes_all = target.kind is Kind.REPOSITORY and method == "DELETE"
        if self.rules.leaves_alone(who) and not removes_all:
            return
        action = action_of(method, target)
        asked = authorisation.Target.repository(self.place, target.repo)
        if not self.rules.allows(who, action, asked):
            name = who.user or "a client without a name"
            raise Refusal(403, f"{name} is not allowed to {action.word} in {asked}")
        if (
            removes_all
            and (not who.user or target.owner != who.user)
            and not self.rules.allows(who, Action.MANAGE, asked)
        ):
            raise Refusal(403, f"{asked} can be removed by its owner, or who may manage it")

    def may_see_metrics(self, who: Principal) -> bool:
        """Whether the metrics, which name users and repositories, are for this one.

        With private repositories they are for the user `metrics` alone, as rest-server has it.
        """
        if self.private and who.user != "metrics":
            return False
        place = authorisation.Target(authorisation.Kind.PLACE, self.place)
        return self.rules.allows(who, Action.LIST, place)


def _named_by_certificate(scope: Scope) -> str:
    tls = scope.get("extensions", {}).get("tls") or {}
    name = tls.get("client_common_name")
    if not isinstance(name, str) or not name:
        raise Refusal(401, "a certificate with a common name is needed, over TLS")
    return name


def action_of(method: str, target: Target) -> Action:
    """Return what a request that the protocol knows does, in the words of the rules."""
    if target.kind is Kind.LISTING:
        return Action.LIST
    if target.kind is Kind.REPOSITORY:
        return Action.CREATE if method == "POST" else Action.DELETE
    return _ACTIONS[target.type][method]
