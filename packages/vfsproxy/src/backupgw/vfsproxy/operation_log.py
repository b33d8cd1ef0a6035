"""A record of what is done with folders: `vfolder_id`, `backend` and `operation` in each.

What failed for the gateway's or the storage's sake, a limit that is reached among it, is always
told; what succeeded or was refused, every upload and download, where `[vfs] operation_log` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .api.exchange import Exchange
from .api.operation import Operation
from .problems import Problem

log = logging.getLogger(__name__)

ABANDONED = 499
"""The status of a request whose client left."""


class OperationLog:
    """Called when a request has ended, on the event loop.

    Args:
        backend_of: the type of a folder's volume, where it is known.
        everything: tell of what did not fail, too.
    """

    def __init__(self, backend_of: Callable[[str], str | None], *, everything: bool) -> None:
        self._backend_of = backend_of
        self._everything = everything

    def __call__(
        self,
        exchange: Exchange,
        operation: Operation | None,
        problem: Problem | None,
        seconds: float,
    ) -> None:
        """Tell of one."""
        folder, status = exchange.folder, exchange.status or ABANDONED
        failed = status >= 500
        if folder is None or operation is None or not (failed or self._everything):
            return
        log.log(
            logging.WARNING if failed else logging.INFO,
            operation.summary,
            extra={
                "vfolder_id": folder,
                "backend": self._backend_of(folder),
                "operation": operation.name,
                "user": exchange.scope.get("state", {}).get("user"),
                "status": status,
                "error_code": None if problem is None else problem.code,
                "seconds": round(seconds, 6),
            },
        )
