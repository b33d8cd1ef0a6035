"""The database that the settings name: the gateway's own state."""

from __future__ import annotations

from backupgw.kvstore import spare_room

from .. import state_folder
from ..settings import Settings
from ..settings_state import StateSettings
from . import Database, connect, open_database, sqlite_url
from .errors import DatabaseUnavailable
from .token_file import take_over


def open_state(settings: Settings, *, application: str = "backupgw") -> Database:
    """Return the gateway's database, its tables up to date; the caller closes it.

    A file of tokens that an older backupgw left in the state folder is taken over on the way.

    Args:
        application: what PostgreSQL's pg_stat_activity shows.

    Raises:
        CommandError: the state folder or the password cannot be had, or what `open_database`
            raises.
    """
    state = settings.section("state", StateSettings)
    if state.database is not None:
        return open_database(
            state.database,
            application=application,
            password=_password(state),
            connections=state.connections,
        )
    folder = state_folder.prepare(state_folder.find(settings))
    file = folder / state_folder.DATABASE
    spare_room.give_up_where_full(str(file))
    try:
        database = open_database(sqlite_url(file), connections=state.connections)
    except DatabaseUnavailable:
        # A quota on the folder, perhaps.
        spare_room.give_up(str(file))
        database = open_database(sqlite_url(file), connections=state.connections)
    spare_room.hold(str(file))
    try:
        take_over(database, folder)
    except BaseException:
        database.close()
        raise
    return database


def connect_state(
    settings: Settings, *, application: str = "backupgw", prepare: bool = False
) -> Database:
    """Return the gateway's database whatever its tables are: for `backupgw config migrate`.

    Args:
        prepare: make the state folder where it is needed.

    Raises:
        CommandError: the state folder or the password cannot be had, or what `connect` raises.
    """
    state = settings.section("state", StateSettings)
    url = state.database
    if url is None:
        folder = state_folder.find(settings)
        url = sqlite_url(
            (state_folder.prepare(folder) if prepare else folder) / state_folder.DATABASE
        )
    return connect(
        url, application=application, password=_password(state), connections=state.connections
    )


def require_state(settings: Settings) -> None:
    """Refuse to go on unless the state can be used; called before a service listens.

    SQLite is brought up to date on the way.

    Raises:
        CommandError: what `open_state` raises.
    """
    open_state(settings).close()


def _password(state: StateSettings) -> str | None:
    return None if state.database_password is None else state.database_password.reveal()
