"""The section `[state]`: where the gateway keeps what must outlive it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class StateSettings(BaseModel):
    """Where the gateway keeps its own state.

    Attributes:
        folder: on a local disk, writable by the service; default $STATE_DIRECTORY (systemd),
            $XDG_STATE_HOME/backupgw, ~/.local/state/backupgw, or /var/lib/backupgw for root.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path | None = None
