"""What this package registers: the service `wings`."""

from backupgw.runtime.services import Service

from .settings import WingsSettings

service = Service(
    name="wings",
    settings=WingsSettings,
    app="backupgw.wingsadapter.start:build",
    check="backupgw.wingsadapter.start:check",
    prepare="backupgw.wingsadapter.start:prepare",
    enabled=False,
)
