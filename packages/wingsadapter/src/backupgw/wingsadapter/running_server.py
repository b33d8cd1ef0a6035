"""Whether a game server runs just now: its files must not be replaced under it.

The Wings behind us knows. Where there is none to be asked, a server runs if a process of this
machine, in a container or not, works in its folder: that is what a game server's container does.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Protocol

import httpx

log = logging.getLogger(__name__)

OFFLINE = "offline"
_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


class RunningServers(Protocol):
    """Tells whether a server runs."""

    def why_not(self, server: str, root: str) -> str | None:
        """Return why a server's files cannot be replaced now; None: they can."""


class WorkingProcesses:
    """By looking at the machine's processes."""

    def why_not(self, server: str, root: str) -> str | None:
        """See `RunningServers`. A process that this user may not look at is not seen."""
        del server
        wanted = os.stat(root)
        for name in os.listdir("/proc"):
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                # Another mount namespace has another path, and the same folder.
                found = os.stat(f"/proc/{name}/cwd")
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    with open(f"/proc/{name}/comm") as file:
                        program = file.read().strip()
                    return f"the server is running: {program} (process {name}) is in its folder"
        return None


class AskedWings:
    """By asking Wings; where it does not answer, by looking.

    Args:
        address: of Wings, without a slash at its end.
        token: the node's.
        verify: whether its certificate is looked at.
    """

    def __init__(self, address: str, token: str, *, verify: bool = True) -> None:
        self._address = address
        self._verify = verify
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._look = WorkingProcesses()

    def why_not(self, server: str, root: str) -> str | None:
        """See `RunningServers`."""
        try:
            answer = httpx.get(
                f"{self._address}/api/servers/{server}",
                headers=self._headers,
                timeout=_TIMEOUT,
                verify=self._verify,
                trust_env=False,  # a proxy for the world outside is none for our neighbour
            )
            state = answer.json()["state"] if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("Wings does not say whether %s runs: %s", server, error)
            state = None
        if isinstance(state, str) and state != OFFLINE:
            return f"the server is {state}: stop it first"
        return self._look.why_not(server, root)
