"""The section `[state]`: where the gateway keeps what must outlive it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .secrets import Secret

SCHEMES = ("postgresql", "postgres", "sqlite")


class StateSettings(BaseModel):
    """Where the gateway keeps its own state.

    Attributes:
        folder: on a local disk, writable by the service; default $STATE_DIRECTORY (systemd),
            $XDG_STATE_HOME/backupgw, ~/.local/state/backupgw, or /var/lib/backupgw for root.
        database: `postgresql://USER@HOST/NAME` for several gateways; default a SQLite file in the
            folder.
        database_password: PostgreSQL's password for that user.
        connections: to the database, for each process, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path | None = None
    database: str | None = None
    database_password: Secret | None = None
    connections: int = Field(default=10, ge=2, le=1000)

    @field_validator("database")
    @classmethod
    def _check_database(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            hidden = parts.password or any(
                name in ("password", "sslpassword") for name, _ in parse_qsl(parts.query)
            )
        except ValueError:
            raise ValueError("is not a URL; write postgresql://USER@HOST/NAME") from None
        if parts.scheme not in SCHEMES:
            raise ValueError("is no database's URL; write postgresql://USER@HOST/NAME")
        if hidden:
            # This value is shown by `config show`, and by whoever asks for help.
            raise ValueError(
                "has a password in it; move it to database_password, such as "
                '{ file = "/etc/backupgw/database-password" }'
            )
        return url

    @model_validator(mode="after")
    def _together(self) -> StateSettings:
        if self.database_password is not None and not (self.database or "").startswith("postgres"):
            raise ValueError("has database_password without a database on PostgreSQL")
        return self
