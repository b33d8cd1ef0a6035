"""The audit log: what was changed, by whom, by what right."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ..audit import Entry
from ..core import Core
from ..folders.administration import Administration
from .models import FolderId, Model, SubjectName, moment
from .operation import Call, NoModel, Operation


class ListAudit(Model):
    """Which entries."""

    after: int = Field(0, ge=0, le=2**62, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=1000)
    folder: FolderId | None = None
    actor: SubjectName | None = None
    action: str | None = Field(None, max_length=64, examples=["folder.share"])
    newest_first: bool = False


class AuditEntry(Model):
    """A change: who did what, by what right, to what."""

    number: int
    time: datetime
    actor: str
    via: str
    action: str
    folder: str | None
    subject: str | None
    details: dict[str, Any]


class AuditList(Model):
    """A page of the audit log."""

    items: list[AuditEntry]
    next: int | None


def audit_operations(core: Core) -> list[Operation]:
    """Return the operation on the audit log."""
    routes = _AuditRoutes(core)
    return [
        Operation(
            "GET",
            "/v1/audit",
            routes.audit,
            "Tell what was changed: of a folder, to its owner; of everything, to administrators",
            parameters=ListAudit,
            answer=AuditList,
            problems=(404,),
            tag="audit",
        ),
    ]


class _AuditRoutes:
    def __init__(self, core: Core) -> None:
        self._administration = Administration(core)

    def audit(self, call: Call[ListAudit, NoModel]) -> AuditList:
        wanted = call.parameters
        found = self._administration.audit(
            call.who,
            after=wanted.after,
            limit=wanted.limit,
            folder=wanted.folder,
            actor=wanted.actor,
            action=wanted.action,
            newest_first=wanted.newest_first,
        )
        more = found[-1].number if len(found) == wanted.limit else None
        return AuditList(items=[_entry(entry) for entry in found], next=more)


def _entry(entry: Entry) -> AuditEntry:
    return AuditEntry(
        number=entry.number,
        time=moment(entry.time),
        actor=entry.actor,
        via=entry.via,
        action=entry.action,
        folder=entry.folder,
        subject=entry.subject,
        details=dict(entry.details),
    )
