"""What an API says of itself: that it is there, and its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .exchange import JSON
from .openapi import document
from .operation import Auth, Call, Media, Operation

_DESCRIPTION = """\
Virtual folders: storage that belongs to users and groups, with exact limits, on any place that \
backupgw knows. What goes wrong is told as application/problem+json (RFC 9457); `error_code` is \
for programs. Lists come in pages: pass `next` of one answer as `after` of the next request."""


class AboutDocument(BaseModel):
    """What is there. The members are those of Backend.AI's storage proxy."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok"] = "ok"
    type: Literal["client-facing", "manager-facing"]
    storage_proxy: str = Field(alias="storage-proxy", description="version")


def about(
    operations: Sequence[Operation],
    title: str,
    kind: Literal["client-facing", "manager-facing"],
    security: Mapping[str, dict[str, Any]],
) -> list[Operation]:
    """Return the operations that tell of the others."""
    own: list[Operation] = []
    written: list[bytes] = []

    async def tell(_call: Call[Any, Any]) -> AboutDocument:
        return AboutDocument.model_validate(
            {"type": kind, "storage-proxy": version("backupgw-vfsproxy")}
        )

    async def openapi(call: Call[Any, Any]) -> None:
        if not written:
            described = document(
                [*operations, *own], title=title, description=_DESCRIPTION, security=security
            )
            written.append(json.dumps(described).encode())
        await call.exchange.answer(200, [JSON], written[0])

    own += [
        Operation(
            "GET", "/", tell, "Tell what this is", answer=AboutDocument, auth=Auth.OPEN, tag="about"
        ),
        Operation(
            "GET",
            "/openapi.json",
            openapi,
            "This document",
            gives=Media(("application/json",)),
            auth=Auth.OPEN,
            tag="about",
            raw=True,
        ),
    ]
    return own
