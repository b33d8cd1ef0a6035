"""What several documents of the API have in common: ids, names, times, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

FolderId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="a folder's id")]
FolderName = Annotated[
    str, Field(min_length=1, max_length=64, description="a folder's name", examples=["documents"])
]
SubjectName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,126}[A-Za-z0-9_])?$",
        description="a user's or group's name",
    ),
]
VolumeName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$")]
Amount = Annotated[int, Field(ge=0, le=2**62)]
Lifetime = Annotated[float, Field(gt=0, le=3_155_760_000, description="seconds")]
Limit = Annotated[int, Field(ge=1, le=1000, description="entries of a page, at most")]
SWITCHED = ("1", "yes", "on", "y", "t", "0", "no", "off", "n", "f")
"""What Backend.AI's clients may write for a boolean in a query besides true and false: its storage
proxy takes them by trafaret's `ToBool`."""
Switch = Annotated[
    bool,
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": list(SWITCHED)}]}),
    SWITCHED,
]
"""A boolean on a wire that is not ours."""


class Model(BaseModel):
    """A document of the API: what it does not name is refused."""

    model_config = ConfigDict(extra="forbid")


class FolderParameters(Model):
    """Which folder."""

    folder: FolderId


class Page(Model):
    """Which part of a list."""

    after: str = Field("", max_length=256, description="`next` of the page before")
    limit: Limit = 100


def moment(seconds: float) -> datetime:
    """Return a time of the database as documents have it."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_none(seconds: float | None) -> datetime | None:
    """Return a time, or none."""
    return None if seconds is None else moment(seconds)
