"""What a transaction has changed, told to whoever remembers it, once it is committed.

    changed(connection, "user:alice")          # where the rows are written
    database.subscribe(cache.forget)           # told {"user:alice"} after COMMIT

Not before: whoever reads again meanwhile would find, and remember, what was there before. A
transaction that is undone tells nobody; one whose COMMIT was not answered tells, since it may have
happened. A process that ends between COMMIT and the telling tells nobody: what is remembered must
have an end of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

Listener = Callable[[frozenset[str]], None]

_KEY = "backupgw changes"


def changed(connection: Connection, *what: str) -> None:
    """Note what is changed in a transaction."""
    connection.info.setdefault(_KEY, set()).update(what)


def take(connection: Connection) -> frozenset[str]:
    """Return what was noted, and forget it."""
    return frozenset(connection.info.pop(_KEY, ()))
