"""restic as a program that backupgw runs: found, called safely, understood, and stopped in order.

    restic = Restic(find_program(), Repository("/srv/repository", password), cache=folder)
    ensure_repository(restic, [MachineTurn(state_folder, "main")])
    result = restic.backup(["/home"], tags=["nightly"], on_message=show, stop=stop)

Passwords and addresses are never on a command line, in an environment or in a message; what a user
wrote never becomes an option; what restic says comes as records, and how it ends as exceptions of
one family, `ResticError`.
"""

from .commands import BackupResult, Limits, Ran, Restic
from .errors import (
    Holder,
    OutOfSpace,
    RepositoryAway,
    RepositoryDamaged,
    RepositoryLocked,
    RepositoryMissing,
    RepositoryRefused,
    ResticError,
    ResticFailed,
    ResticKilled,
    ResticStopped,
    ResticUnusable,
    SnapshotMissing,
    SourceMissing,
    WrongPassword,
)
from .init import MachineTurn, PlaceTurn, Turn, ensure_repository
from .messages import (
    BackupStatus,
    BackupSummary,
    ForgetGroup,
    ItemError,
    Message,
    Node,
    RestoreStatus,
    RestoreSummary,
    Snapshot,
    Stats,
)
from .own_server import OwnServer, OwnServerFailed
from .program import ResticProgram, find_program
from .repository import Repository
from .stopping import StopSignal

__all__ = [
    "BackupResult",
    "BackupStatus",
    "BackupSummary",
    "ForgetGroup",
    "Holder",
    "ItemError",
    "Limits",
    "MachineTurn",
    "Message",
    "Node",
    "OutOfSpace",
    "OwnServer",
    "OwnServerFailed",
    "PlaceTurn",
    "Ran",
    "Repository",
    "RepositoryAway",
    "RepositoryDamaged",
    "RepositoryLocked",
    "RepositoryMissing",
    "RepositoryRefused",
    "Restic",
    "ResticError",
    "ResticFailed",
    "ResticKilled",
    "ResticProgram",
    "ResticStopped",
    "ResticUnusable",
    "RestoreStatus",
    "RestoreSummary",
    "Snapshot",
    "SnapshotMissing",
    "SourceMissing",
    "Stats",
    "StopSignal",
    "Turn",
    "WrongPassword",
    "ensure_repository",
    "find_program",
]
