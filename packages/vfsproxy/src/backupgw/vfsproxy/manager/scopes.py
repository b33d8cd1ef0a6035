"""Quota scopes, for managers of Backend.AI: what users and groups hold, and may hold."""

from __future__ import annotations

from ..api.operation import Call, NoModel, Operation
from ..core import Core
from ..folders.administration import Administration
from ..folders.records import Limits
from .documents import ScopeBody, ScopeOptionsBody, ScopeUsage
from .references import TAG, holder_of, known_scope, volume_named


def manager_scope_operations(core: Core) -> list[Operation]:
    """Return Backend.AI's operations on quota scopes."""
    routes = _ScopeRoutes(core)
    return [
        Operation(
            "POST",
            "/quota-scope",
            routes.set_limit,
            "Make a quota scope, with a limit or without",
            body=ScopeOptionsBody,
            status=204,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/quota-scope",
            routes.usage,
            "Tell what a quota scope holds",
            body=ScopeBody,
            answer=ScopeUsage,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "PATCH",
            "/quota-scope",
            routes.set_limit,
            "Limit a quota scope",
            body=ScopeOptionsBody,
            status=204,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "DELETE",
            "/quota-scope/quota",
            routes.unset_limit,
            "Let a quota scope hold whatever fits",
            body=ScopeBody,
            status=204,
            problems=(404,),
            tag=TAG,
        ),
    ]


class _ScopeRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._administration = Administration(core)

    def set_limit(self, call: Call[NoModel, ScopeOptionsBody]) -> None:
        holder = known_scope(self._core, call.who, call.body)
        options = call.body.options
        if options is None and call.exchange.method == "POST":
            return
        limit = None if options is None else options.limit_bytes
        self._administration.set_limits(call.who, holder, Limits(bytes=limit))

    def unset_limit(self, call: Call[NoModel, ScopeBody]) -> None:
        holder = known_scope(self._core, call.who, call.body)
        self._administration.set_limits(call.who, holder, Limits())

    def usage(self, call: Call[NoModel, ScopeBody]) -> ScopeUsage:
        volume_named(self._core, call.body.volume)
        account = self._administration.account(call.who, holder_of(call.body.qsid))
        return ScopeUsage(
            used_bytes=max(0, account.usage.used.bytes),
            limit_bytes=account.usage.limit.hard_bytes,
        )
