"""What users and groups hold, and may hold."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ..core import Core
from ..folders.administration import Account, Administration
from ..folders.records import Holder, Kind, Limits
from .folder_documents import LimitsDocument, QuotaDocument, quota_document
from .models import Model, SubjectName
from .operation import Call, NoModel, Operation


class HolderParameters(Model):
    """Which user or group."""

    kind: Kind
    name: SubjectName


class AccountDocument(QuotaDocument):
    """What a user or a group holds, and may hold."""

    kind: Kind
    name: str
    own: bool = Field(description="the limits are their own, not the settings'")


def quota_operations(core: Core) -> list[Operation]:
    """Return the operations on the accounts of users and groups."""
    routes = _QuotaRoutes(core)
    quota = "/v1/quotas/{kind}/{name}"
    return [
        Operation(
            "GET",
            quota,
            routes.account,
            "Tell what a user or a group holds, and may hold",
            parameters=HolderParameters,
            answer=AccountDocument,
            tag="quotas",
        ),
        Operation(
            "PUT",
            quota,
            routes.set_limits,
            "Limit what a user or a group may hold",
            parameters=HolderParameters,
            body=LimitsDocument,
            answer=AccountDocument,
            tag="quotas",
        ),
        Operation(
            "DELETE",
            quota,
            routes.unset_limits,
            "Let the settings' usual limits hold for a user or a group",
            parameters=HolderParameters,
            answer=AccountDocument,
            tag="quotas",
        ),
    ]


class _QuotaRoutes:
    def __init__(self, core: Core) -> None:
        self._administration = Administration(core)

    def account(self, call: Call[HolderParameters, NoModel]) -> AccountDocument:
        return _account(self._administration.account(call.who, _holder(call.parameters)))

    def set_limits(self, call: Call[HolderParameters, LimitsDocument]) -> AccountDocument:
        return self._set(call, call.body.limits())

    def unset_limits(self, call: Call[HolderParameters, NoModel]) -> AccountDocument:
        return self._set(call, None)

    def _set(self, call: Call[HolderParameters, Any], limits: Limits | None) -> AccountDocument:
        holder = _holder(call.parameters)
        return _account(self._administration.set_limits(call.who, holder, limits))


def _holder(parameters: HolderParameters) -> Holder:
    return Holder(parameters.kind, parameters.name)


def _account(account: Account) -> AccountDocument:
    return AccountDocument(
        **quota_document(account.usage).model_dump(),
        kind=account.holder.kind,
        name=account.holder.name,
        own=account.own,
    )
