"""The errors of the ledger, all of the kernel's family."""

from __future__ import annotations

from ..backends.errors import BackendError, QuotaExceeded, StorageFull
from .records import Measure


class LedgerError(BackendError):
    """The ledger itself failed: its file cannot be opened, read or written."""


class LedgerFull(LedgerError, StorageFull):
    """There is no room left where the ledger's own file lies."""


class ReservationEnded(LedgerError):
    """A reservation is not there: it expired, was given back, or became part of a change."""


class NameLost(LedgerError):
    """A name that was held by `changing` is somebody else's, since this process was taken for dead.

    Nothing was recorded, and nothing of the name may be changed. Trying again begins anew.
    """


class NameBusy(LedgerError):
    """A name was held by somebody else for longer than one was willing to wait; retryable."""


class LimitExceeded(QuotaExceeded):
    """A scope's hard limit refused a reservation; nothing was reserved anywhere.

    Attributes:
        scope: whose limit it is.
        measure: what it counts.
        limit, used, reserved, asked: bytes or objects.
    """

    def __init__(
        self, scope: str, measure: Measure, *, limit: int, used: int, reserved: int, asked: int
    ) -> None:
        self.scope = scope
        self.measure = measure
        self.limit = limit
        self.used = used
        self.reserved = reserved
        self.asked = asked
        super().__init__(
            f"{scope}: the limit of {limit} {measure} would be passed: {used} used, "
            f"{reserved} reserved, {asked} more asked for"
        )
