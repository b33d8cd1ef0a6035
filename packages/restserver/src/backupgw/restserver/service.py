"""What this package registers: the service `rest`."""

from backupgw.runtime.services import Service

from . import event_records  # noqa: F401 - hooks may name its types
from .settings import RestSettings

service = Service(
    name="rest",
    settings=RestSettings,
    app="backupgw.restserver.start:build",
    check="backupgw.restserver.start:check",
    prepare="backupgw.restserver.start:prepare",
    options="backupgw.restserver.workers:options",
    modules=(
        "backupgw.restserver.counters",
        "backupgw.restserver.operator_metrics",
        "backupgw.restserver.repository_metrics",
    ),
)
