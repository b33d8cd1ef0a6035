"""The section [borg] of the settings: borgstore's options and the listener's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.permissions import PRESETS, PermissionsLayer
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.secrets import Secret


def _permissions(value: Any) -> Any:
    """Understand a preset's name, a table, or borgstore's JSON object of letters by name."""
    if value is None or (isinstance(value, str) and value in PRESETS):
        return value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - pydantic reports ValueError only
            f'is none of {", ".join(PRESETS)}, and no table of letters such as {{ "" = "lr" }}'
        )
    PermissionsLayer(Memory(), value)  # says what is wrong with a name or its letters
    return dict(value)


class BorgSettings(HttpOptions):
    """Settings of the server of borgstore's protocol.

    Attributes:
        place: name of the place that is the store.
        htpasswd_file: users and password hashes.
        username, password: the one user there is, instead of a password file.
        no_auth: serve everybody who can connect.
        permissions: a preset (borgbackup-all, -no-delete, -write-only, -read-only), or letters by
            name.
        quota: bytes that the store may take; 0 sets no limit.
        ledger: file of the accounts that quota needs, on a local disk; default
            `.backupgw-ledger/ledger.sqlite3` in the place's folder.
        threads: blocking storage calls at a time in each worker.
    """

    listen: list[str] = Field(default=["127.0.0.1:5618"])
    place: str = "borg"
    htpasswd_file: Path | None = None
    username: str | None = Field(None, min_length=1, pattern=r"^[^:]+$")
    password: Secret | None = None
    no_auth: bool = False
    permissions: Annotated[str | dict[str, str] | None, BeforeValidator(_permissions)] = None
    quota: int = Field(0, ge=0)
    ledger: Path | None = None
    threads: int = Field(24, ge=2, le=512)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together; set both or neither")
        if self.username is not None and self.htpasswd_file is not None:
            raise ValueError("set either username and password, or htpasswd_file")
        return self
