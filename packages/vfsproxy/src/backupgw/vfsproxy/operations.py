"""Which operations each API has.

Everything but the wire of Backend.AI is on both ports: the manager may do what every user may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backupgw.runtime.threads import Threads

from .api.about import about
from .api.folder_routes import folder_operations
from .api.operation import Operation
from .core import Core

Security = Mapping[str, dict[str, Any]]


def client_operations(core: Core, threads: Threads, security: Security) -> Sequence[Operation]:
    """Return what the API for clients consists of, its own document included."""
    operations = _shared(core, threads)
    return [*operations, *about(operations, "backupgw: virtual folders", "client-facing", security)]


def manager_operations(core: Core, threads: Threads, security: Security) -> Sequence[Operation]:
    """Return what the API for managers consists of, its own document included."""
    operations = _shared(core, threads)
    title = "backupgw: virtual folders, for managers"
    return [*operations, *about(operations, title, "manager-facing", security)]


def _shared(core: Core, _threads: Threads) -> list[Operation]:
    return [*folder_operations(core)]
