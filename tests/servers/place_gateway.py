"""The gateway on a place of the settings, whatever its URL: `backupgw rest serve` with a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .gateway import Gateway


class PlaceGateway(Gateway):
    """`backupgw rest serve` on `[places.x]`, without users.

    Args:
        folder: for the settings and the state.
        place: what `[places.x]` says: the URL and the options; a mapping is an inline table, as
            `{"env": "KEY"}`. Secrets do not reach a command line.
        arguments: as `RestServer` takes them.
    """

    def __init__(self, folder: Path, place: Mapping[str, object], **arguments: object) -> None:
        super().__init__(folder, **arguments)  # type: ignore[arg-type]
        self.settings = self.folder / "backupgw.toml"
        options = "".join(f"{name} = {_toml(value)}\n" for name, value in place.items())
        self.settings.write_text(
            f"[state]\nfolder = {json.dumps(str(self.folder / 'state'))}\n\n"
            f'[rest]\nplace = "x"\nno_auth = true\n\n[places.x]\n{options}'
        )
        self.settings.chmod(0o600)

    def _arguments(self) -> list[str]:
        return ["--config", str(self.settings), "--listen", self._address]


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)
