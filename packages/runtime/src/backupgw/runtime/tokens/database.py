"""Tokens in the gateway's database: SQLite's, or a PostgreSQL that several gateways share."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Self, TypeVar

from .. import state_folder
from ..authorisation.vocabulary import Action, Pattern, Scope
from ..command import CommandError
from ..settings import Settings
from .records import Token
from .store import TokenStoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from ..database import Database

KEPT = 90 * 86_400.0
"""Seconds that a token is listed after it ended."""
SWEPT = 100
"""Single-use ids forgotten at a time: nobody who logs in pays for a whole day's."""
DEADLINE = 10.0
"""Seconds that a change is tried for while the database is away."""

T = TypeVar("T")


class DatabaseTokens:
    """A `TokenStore`.

    Args:
        open_database: called once, when it is first needed; its CommandError is TokenStoreError.
        there: whether there is a database at all; until then, reading finds nothing and makes no
            database.
    """

    def __init__(
        self, open_database: Callable[[], Database], there: Callable[[], bool] = lambda: True
    ) -> None:
        self._open = open_database
        self._there = there
        self._lock = threading.Lock()
        self._opened: Database | None = None

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the store in a database by its URL; SQLite's file is made when it is needed."""

        def opened() -> Database:
            from ..database import open_database

            return open_database(url)

        return cls(opened)

    def add(self, token: Token) -> None:
        from sqlalchemy import func

        from ..database.tables.tokens import tokens

        ended = func.coalesce(tokens.c.revoked, tokens.c.expires)
        expired = func.coalesce(tokens.c.expires, tokens.c.revoked)
        # Whichever came first; min() and least() are not the same function everywhere.
        long_ago = (ended < token.created - KEPT) | (expired < token.created - KEPT)
        values = {
            "id": token.id,
            "digest": token.digest,
            "user_name": token.user,
            "name": token.name,
            "actions": int(token.scope.actions),
            "targets": json.dumps([str(pattern) for pattern in token.scope.on]),
            "created": token.created,
            "expires": token.expires,
            "revoked": token.revoked,
            "used": token.used,
        }

        def work(connection: Connection) -> None:
            connection.execute(tokens.delete().where(long_ago))
            connection.execute(tokens.insert().values(values))
            _grow(connection)

        self._change(work)

    def find(self, token_id: str) -> Token | None:
        from sqlalchemy import select

        from ..database.tables.tokens import tokens

        if not self._exists():
            return None
        statement = select(tokens).where(tokens.c.id == token_id)
        with self._database() as database, database.autocommit() as connection:
            row = connection.execute(statement).one_or_none()
            return None if row is None else _token(row)

    def tokens(self, user: str | None = None) -> list[Token]:
        from sqlalchemy import select

        from ..database.tables.tokens import tokens

        if not self._exists():
            return []
        statement = select(tokens).order_by(tokens.c.created, tokens.c.id)
        if user is not None:
            statement = statement.where(tokens.c.user_name == user)
        with self._database() as database, database.autocommit() as connection:
            return [_token(row) for row in connection.execute(statement)]

    def revoke(self, token_id: str, now: float) -> Token | None:
        from sqlalchemy import select

        from ..database.tables.tokens import tokens

        if not self._exists():
            return None
        this = tokens.c.id == token_id

        def work(connection: Connection) -> Token | None:
            revoked = tokens.update().where(this, tokens.c.revoked.is_(None)).values(revoked=now)
            if connection.execute(revoked).rowcount:
                _grow(connection)
            row = connection.execute(select(tokens).where(this)).one_or_none()
            return None if row is None else _token(row)

        return self._change(work, idempotent=True)

    def note_used(self, times: Mapping[str, float]) -> None:
        from sqlalchemy import bindparam, func

        from ..database.tables.tokens import tokens

        if not times or not self._exists():
            return
        statement = (
            tokens.update()
            .where(
                tokens.c.id == bindparam("this"),
                func.coalesce(tokens.c.used, 0) < bindparam("time"),
            )
            .values(used=bindparam("time"))
        )
        # In one order everywhere: two gateways must not wait for each other's rows.
        rows = [{"this": token_id, "time": times[token_id]} for token_id in sorted(times)]
        self._change(lambda connection: connection.execute(statement, rows), idempotent=True)

    def generation(self) -> int:
        from sqlalchemy import select

        from ..database.tables.tokens import token_changes

        if not self._exists():
            return 0
        with self._database() as database, database.autocommit() as connection:
            return int(connection.execute(select(token_changes.c.number)).scalar_one())

    def spend(self, issuer: str, unique: str, until: float, now: float) -> bool:
        from sqlalchemy import select, tuple_

        from ..database import insert_new
        from ..database.tables.tokens import spent_tokens

        key = (spent_tokens.c.issuer, spent_tokens.c.id)
        old = select(*key).where(spent_tokens.c.until < now).limit(SWEPT)

        def work(connection: Connection) -> bool:
            # Others' sweeps are not waited for.
            rows = connection.execute(old.with_for_update(skip_locked=True)).all()
            if rows:
                connection.execute(spent_tokens.delete().where(tuple_(*key).in_(rows)))
            values = {"issuer": issuer, "id": unique, "until": until}
            return insert_new(connection, spent_tokens, values)

        # Not idempotent: an id that may have been spent counts as spent.
        return self._change(work)

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _exists(self) -> bool:
        return self._opened is not None or self._there()

    def _change(self, work: Callable[[Connection], T], *, idempotent: bool = False) -> T:
        with self._database() as database:
            return database.run(work, idempotent=idempotent, deadline=DEADLINE)

    @contextlib.contextmanager
    def _database(self) -> Iterator[Database]:
        try:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
                database = self._opened
            yield database
        except CommandError as error:
            raise TokenStoreError(f"the tokens: {error}") from error


def open_store(settings: Settings) -> DatabaseTokens:
    """Return the store of the gateway that the settings describe, for a command.

    Raises:
        CommandError: the database cannot be used.
    """
    from ..database.state import open_state

    database = open_state(settings)
    return DatabaseTokens(lambda: database)


def service_store(settings: Settings) -> DatabaseTokens:
    """Return the store as a service sees it: opened when a token is first shown.

    Where nobody ever made a token there is no database, and strangers who show one make none.
    """

    def opened() -> Database:
        from ..database.state import open_state

        return open_state(settings)

    return DatabaseTokens(opened, lambda: state_folder.database_there(settings))


def _grow(connection: Connection) -> None:
    from ..database.tables.tokens import token_changes

    connection.execute(token_changes.update().values(number=token_changes.c.number + 1))


def _token(row: Row[tuple[object, ...]]) -> Token:
    columns = row._mapping
    targets = tuple(Pattern.parse(text) for text in json.loads(columns["targets"]))
    return Token(
        columns["id"],
        bytes(columns["digest"]),
        columns["user_name"],
        columns["name"],
        Scope(Action(columns["actions"]), targets),
        columns["created"],
        columns["expires"],
        columns["revoked"],
        columns["used"],
    )
