"""What this package registers: the services `vfs`, for clients, and `vfs_manager`."""

from backupgw.runtime.services import Service

from .settings import ManagerSettings, VfsSettings

service = Service(
    name="vfs",
    settings=VfsSettings,
    app="backupgw.vfsproxy.start:build_clients",
    check="backupgw.vfsproxy.start:check",
    prepare="backupgw.vfsproxy.start:prepare",
    enabled=False,
)

manager_service = Service(
    name="vfs_manager",
    settings=ManagerSettings,
    app="backupgw.vfsproxy.start:build_manager",
    check="backupgw.vfsproxy.start:check_manager",
    enabled=False,
)
