"""What this package registers: the service `rest`."""

from backupgw.runtime.services import Service

from .settings import RestSettings

service = Service(
    name="rest",
    settings=RestSettings,
    app="backupgw.restserver.start:build",
    prepare="backupgw.restserver.start:prepare",
)
