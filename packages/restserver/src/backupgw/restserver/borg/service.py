"""What this package registers: the service `borg`."""

from backupgw.runtime.services import Service

from .settings import BorgSettings

service = Service(
    name="borg",
    settings=BorgSettings,
    app="backupgw.restserver.borg.start:build",
    prepare="backupgw.restserver.borg.start:prepare",
    enabled=False,
)
