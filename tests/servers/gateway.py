"""Our own gateway, started as users start it: `backupgw rest serve` with rest-server's flags."""

from __future__ import annotations

import sys
from pathlib import Path

from .rest_server import RestServer


class Gateway(RestServer):
    """`backupgw rest serve`: the same command line and start line as rest-server."""

    name = "backupgw"

    @classmethod
    def program(cls) -> list[str]:
        """The command beside the Python that runs the tests, or else of the same environment."""
        return [str(Path(sys.executable).parent / "backupgw"), "rest", "serve"]
