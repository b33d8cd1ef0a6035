"""Which servers are this node's: those that the Panel lists, or those that have a folder here."""

from __future__ import annotations

import json
import logging
import threading
import time

from backupgw.runtime.rounds import Rounds

from .node import Node
from .panel import Panel, PanelError, Server
from .records import Records

log = logging.getLogger(__name__)

_COPY = "servers"
READ_EVERY = 3600.0
"""Seconds between two readings of the Panel's list: servers are removed, too."""
UNKNOWN_FOR = 10.0
"""Seconds that the Panel is not asked again for a server that it does not know."""
_MOST_UNKNOWN = 10_000


class Servers:
    """What is known of them. For any thread.

    Args:
        panel: None: nobody can be asked.
        deny: whether only those count that the Panel lists.
    """

    def __init__(self, node: Node, records: Records, panel: Panel | None, *, deny: bool) -> None:
        self._node = node
        self._records = records
        self._panel = panel
        self._deny = deny and panel is not None
        self._lock = threading.Lock()
        self._known: dict[str, Server] = {}
        self._unknown: dict[str, float] = {}
        self._rounds = Rounds(
            self._round, name="wings-servers", failing="the Panel's servers cannot be read"
        )
        text = records.copy(_COPY)
        if text is not None:
            self._known = {uuid: Server(uuid, limit) for uuid, limit in json.loads(text).items()}

    def start(self) -> None:
        """Read the Panel's list, now and every now and then, on a thread: it may be slow."""
        if self._panel is not None:
            self._rounds.start()

    def close(self) -> None:
        """End the thread."""
        self._rounds.close()

    def _round(self) -> float:
        self.read()
        return READ_EVERY

    def read(self) -> None:
        """Ask the Panel for all of them; where it is away, what was known stays."""
        if self._panel is None:
            return
        try:
            found = {server.uuid: server for server in self._panel.servers()}
        except PanelError as error:
            log.warning("%s; the servers that were known count", error)
            return
        with self._lock:
            self._known = found
            self._unknown.clear()
        self._keep()

    def knows(self, server: str) -> bool:
        """Whether a server is this node's. May ask the Panel, once for each new one."""
        if not self._deny:
            root = self._node.root(server)
            return server in self._known or (root.is_dir() and not root.is_symlink())
        with self._lock:
            if server in self._known:
                return True
            if self._unknown.get(server, 0.0) > time.monotonic():
                return False
        return self._ask(server) is not None

    def disk_limit(self, server: str) -> int | None:
        """Return the bytes that a server's files may take; None: no limit, or nobody knows."""
        if self._panel is not None:
            self._ask(server)
        with self._lock:
            found = self._known.get(server)
        return None if found is None else found.disk_limit

    def _ask(self, server: str) -> Server | None:
        assert self._panel is not None
        try:
            found = self._panel.server(server)
        except PanelError as error:
            log.warning("%s; only servers that were known count", error)
            return None
        with self._lock:
            if found is None:
                self._known.pop(server, None)
                if len(self._unknown) >= _MOST_UNKNOWN:
                    self._unknown.clear()
                self._unknown[server] = time.monotonic() + UNKNOWN_FOR
                return None
            changed = self._known.get(server) != found
            self._known[server] = found
        if changed:
            self._keep()
        return found

    def _keep(self) -> None:
        with self._lock:
            text = json.dumps({each.uuid: each.disk_limit for each in self._known.values()})
        self._records.keep_copy(_COPY, text)
