"""What goes wrong with a database: the one family of errors that leaves this package.

The driver's exception is the `__cause__`, unless its text could hold the password.
"""

from __future__ import annotations

from ..command import CommandError


class DatabaseError(CommandError):
    """Base of all; as it is raised, a statement that the database refused: a defect of ours.

    Attributes:
        retryable: the same may succeed later without anybody changing anything.
    """

    retryable: bool = False


class DatabaseSettingsError(DatabaseError):
    """The URL is wrong, or what it needs is not installed or not allowed: the settings' mistake."""


class DatabaseUnavailable(DatabaseError):
    """It cannot be reached, went away, is full or takes too long. Nothing was changed."""

    retryable = True


class DatabaseUncertain(DatabaseUnavailable):
    """It went away during COMMIT: the change was made whole or not at all, nobody knows which."""

    retryable = False


class DatabaseBusy(DatabaseUnavailable):
    """Others' transactions were in the way for too long (a deadlock, a lock, serialization)."""


class DatabaseConflict(DatabaseError):
    """A constraint: there is such a row already, or what a row refers to is not there."""


class DatabaseDamaged(DatabaseError):
    """SQLite's file is no database, or not a whole one."""


class DatabaseSchemaError(DatabaseError):
    """The tables are of another version than this program needs; the message names both."""
