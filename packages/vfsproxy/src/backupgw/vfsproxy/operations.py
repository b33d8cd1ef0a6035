"""Which operations each API has.

Everything but the wire of Backend.AI is on both ports: the manager may do what every user may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backupgw.runtime.threads import Threads

from .api.about import about
from .api.audit_routes import audit_operations
from .api.change_routes import change_operations
from .api.entry_routes import entry_operations
from .api.file_routes import file_operations
from .api.folder_routes import folder_operations
from .api.folder_task_routes import folder_task_operations
from .api.mount_routes import mount_operations
from .api.operation import Operation
from .api.people_routes import people_operations
from .api.quota_routes import quota_operations
from .api.share_routes import share_operations
from .api.snapshot_routes import snapshot_operations
from .api.task_routes import task_operations
from .api.transfer_routes import link_operations, transfer_operations
from .api.upload_routes import upload_operations
from .api.volume_routes import volume_operations
from .core import Core
from .manager.files import manager_file_operations
from .manager.folders import manager_folder_operations
from .manager.scopes import manager_scope_operations
from .manager.volumes import manager_volume_operations

Security = Mapping[str, dict[str, Any]]


def client_operations(core: Core, threads: Threads, security: Security) -> Sequence[Operation]:
    """Return what the API for clients consists of, its own document included."""
    operations = [*_shared(core, threads), *transfer_operations(core, threads)]
    return [*operations, *about(operations, "backupgw: virtual folders", "client-facing", security)]


def manager_operations(core: Core, threads: Threads, security: Security) -> Sequence[Operation]:
    """Return what the API for managers consists of, its own document included."""
    operations = [
        *_shared(core, threads),
        *manager_volume_operations(core),
        *manager_scope_operations(core),
        *manager_folder_operations(core),
        *manager_file_operations(core, threads),
    ]
    title = "backupgw: virtual folders, for managers"
    return [*operations, *about(operations, title, "manager-facing", security)]


def _shared(core: Core, threads: Threads) -> list[Operation]:
    return [
        *folder_operations(core),
        *share_operations(core),
        *people_operations(core),
        *quota_operations(core),
        *audit_operations(core),
        *task_operations(core, threads),
        *folder_task_operations(core),
        *snapshot_operations(core),
        *volume_operations(core),
        *mount_operations(core),
        *link_operations(core),
        *file_operations(core, threads),
        *entry_operations(core, threads),
        *change_operations(core),
        *upload_operations(core, threads),
    ]
