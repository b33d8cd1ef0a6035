"""Limits on what is stored, exact among workers: for the server, each user and each repository.

The accounts lie in a ledger beside the repositories, under a name that no client can reach, unless
the settings name another file (a ledger belongs on a local disk). Every upload reserves its bytes
as they arrive, in all its accounts or in none. Locks always pass: without them nothing could be
pruned.

Where gateways share a database (`[state] database` on PostgreSQL), they share the ledger in it, and
so the limits are exact among all of them, unless the settings name a file. Such a ledger may serve
several places, so place and accounts bear the place's name there: gateways that share one call the
same place by the same name. The ledger beside the repositories serves these alone, whatever the
settings or `--path` call them, and so its accounts bear none.

The ledger knows what is stored over restarts and kills, so the place is counted only when it
cannot: at first, after a power loss, after a time without limits or with another ledger, and when
users and repositories get accounts of their own. With `--max-size` alone it is counted at each
start as with rest-server, since another server may have written there in between.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Alarm, Ledger, Report, SQLiteLedger, Usage
from backupgw.runtime.secrets import redact_url
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_state import StateSettings

from .identification import place_folder
from .limits import SERVER, Limits, all_accounts, repository_of, server_alone
from .settings import RestSettings

_log = logging.getLogger(__name__)

_FOLDER = ".backupgw-ledger"
_FILE = "ledger.sqlite3"
_KEEPER = "keeper"

_TOGETHER, _DIVIDED = "rest", "rest, divided"
"""What the ledger, which other services may use as well, calls the place: another name with other
accounts, since what was counted for the one says nothing about the other."""


@dataclass(frozen=True)
class Naming:
    """What the ledger calls a place and its accounts.

    Attributes:
        place: the place's name in the settings, "" for the one that has a ledger of its own.
    """

    place: str = ""

    def together(self) -> str:
        """Return the place's name where there is one account for all."""
        return f"{_TOGETHER}: {self.place}" if self.place else _TOGETHER

    def divided(self) -> str:
        """Return the place's name where users and repositories have accounts."""
        return f"{_DIVIDED}: {self.place}" if self.place else _DIVIDED

    @property
    def former(self) -> tuple[str, ...]:
        """What ledgers of several places called every place before they told them apart."""
        return (_TOGETHER, _DIVIDED) if self.place else ()

    def scope(self, account: str) -> str:
        """Return the ledger's name of an account; places have no `/` in their names."""
        return f"{self.place}/{account}" if self.place else account

    def account(self, scope: str) -> str | None:
        """Return the account of this place that a scope is, None for another place's."""
        if not self.place:
            return scope
        place, slash, account = scope.partition("/")
        return account if slash and place == self.place else None


def naming(settings: Settings) -> Naming:
    """Return how the settings' ledger names the place."""
    rest = settings.section("rest", RestSettings)
    own = rest.ledger is None and not is_shared(settings)
    return Naming() if own else Naming(rest.place)


def ledger_path(place: Path | None, named: Path | None) -> Path:
    """Return where the ledger lies, its folder made if it is our own.

    Args:
        place: the folder of the repositories, None where they are not on this machine's disks.
        named: what the settings say.

    Raises:
        ValueError: neither is given.
        OSError: the folder cannot be made.
    """
    if named is not None:
        return named
    if place is None:
        raise ValueError("a limit for this place needs a file for its accounts on a local disk")
    folder = place / _FOLDER
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder / _FILE


def is_shared(settings: Settings) -> bool:
    """Whether the ledger is that of several gateways, in their database."""
    database = settings.section("state", StateSettings).database or ""
    named = settings.section("rest", RestSettings).ledger
    return named is None and database.startswith("postgres")


def _shared(settings: Settings, on_alarm: Callable[[Alarm], None] | None) -> Ledger:
    from backupgw.runtime.database.state import open_state
    from backupgw.runtime.ledger import PostgresLedger

    # Closed at once: it was asked whether its tables are there, and the ledger connects by itself.
    with open_state(settings, application="backupgw rest: ledger") as database:
        return PostgresLedger(database, on_alarm=on_alarm)


def make_ledger(settings: Settings, on_alarm: Callable[[Alarm], None] | None) -> Ledger:
    """Return the ledger that the settings name, not open.

    Raises:
        SettingsError: there is no place for it.
        CommandError: the gateways' database cannot be used.
    """
    if is_shared(settings):
        return _shared(settings, on_alarm)
    rest = settings.section("rest", RestSettings)
    key = ("rest", "max_size" if rest.max_size else "quota")
    try:
        path = ledger_path(place_folder(settings), rest.ledger)
    except ValueError as error:
        raise settings.mistake(f"{error}; set ledger in [rest]", *key) from error
    except OSError as error:
        raise settings.mistake(
            f"the accounts cannot be kept beside the repositories ({error.strerror}); "
            "set ledger in [rest] to a file elsewhere",
            *key,
        ) from error
    return SQLiteLedger(str(path), on_alarm=on_alarm)


class RepositoryQuota(QuotaLayer):
    """The limits in front of a place. Which pattern an account falls under is looked up when it
    is first written to, so that what may come need not be known beforehand.

    Args:
        inner: the place.
        ledger: opened and closed by whoever made it.
        limits: what the accounts may hold; `limit` changes it.
        names: what the ledger calls place and accounts.
    """

    def __init__(
        self, inner: Backend, ledger: Ledger, limits: Limits, names: Naming = Naming()
    ) -> None:
        accounts = all_accounts if limits.divided else server_alone
        scopes: Callable[[str], Sequence[str]] = accounts
        if names.place:
            scopes = lambda name: [names.scope(account) for account in accounts(name)]  # noqa: E731
        super().__init__(
            inner,
            ledger,
            scopes=scopes,
            place=names.divided() if limits.divided else names.together(),
            exempt=is_lock,
            # What a folder of a repository holds counts as the repository does.
            alike=lambda folder: repository_of(folder) is not None,
            total=names.scope(SERVER),
        )
        self._names = names
        self._limits = limits
        self._divided = limits.divided
        self._known: set[str] = set()

    def before_writing(self, name: str) -> None:
        if not self._known.issuperset(self.scopes_of(name)):
            self._learn(name)

    def copy(self, name: str, new_name: str) -> None:
        self._learn(new_name)
        super().copy(name, new_name)

    def move(self, name: str, new_name: str) -> None:
        self._learn(new_name)
        super().move(name, new_name)

    def _learn(self, name: str) -> None:
        """Set the limits of accounts that this process writes to for the first time."""
        # In this order: what was learnt from limits that are replaced meanwhile is not kept.
        known, limits = self._known, self._limits
        for scope in self.scopes_of(name):
            account = self._names.account(scope)
            if account is not None and scope not in known:
                limit = limits.of(account)
                if self.ledger.usage(scope).limit != limit:
                    self.ledger.set_limit(scope, limit)
                known.add(scope)

    def usages(self) -> Iterator[tuple[str, Usage]]:
        """Yield the accounts of this place, each with its name there."""
        for usage in self.ledger.usages():
            account = self._names.account(usage.scope)
            if account is not None:
                yield account, usage

    def limit(self, limits: Limits) -> None:
        """Use other limits from now on; what is stored beyond them stays.

        Raises:
            ValueError: users or repositories would need accounts that nobody has counted.
            LedgerError: not all of them are in effect.
        """
        if limits.divided and not self._divided:
            raise ValueError("the first limit of users or repositories needs a restart")
        self._limits = limits
        self._known = set()
        self._gates = {}
        for account, usage in self.usages():
            wanted = limits.of(account)
            if usage.limit != wanted:
                self.ledger.set_limit(usage.scope, wanted)

    def prepare(self, *, count: bool) -> Report:
        """Get ledger and place ready before anybody writes; neither is left open.

        Args:
            count: count the place even if the ledger knows what it holds.

        Raises:
            BackendError: the place or the ledger failed.
        """
        self.ledger.open()
        with closing(self.ledger):
            for name in (self._names.together(), self._names.divided(), *self._names.former):
                if name != self.place:
                    self.ledger.forget(name)
            self.limit(self._limits)
            self.ledger.set_limit(self._names.scope(SERVER), self._limits.server)
            with self:
                report = self.reconcile() if count else self.recover()
            self.limit(self._limits)  # accounts that the count has found
            return report


def limited(
    settings: Settings, backend: Backend, on_alarm: Callable[[Alarm], None] | None = None
) -> RepositoryQuota | None:
    """Return the place with its limits in front of it, not open; None where there are none.

    Args:
        on_alarm: called with each alarm, by whatever thread.

    Raises:
        SettingsError: there is no place for the accounts.
    """
    limits = settings.section("rest", RestSettings).limits()
    if not limits:
        return None
    return RepositoryQuota(backend, make_ledger(settings, on_alarm), limits, naming(settings))


def distrust(settings: Settings) -> None:
    """Let a ledger that is not used know that it no longer knows the place. It keeps what it knew:
    a gateway with limits may be serving the place just now.

    Raises:
        LedgerError: it cannot be written.
        CommandError: the gateways' database cannot be used.
    """
    if is_counted(settings):
        ledger = make_ledger(settings, None)
        ledger.open()
        with closing(ledger):
            names = naming(settings)
            for place in (names.together(), names.divided(), *names.former):
                if not ledger.needs_reconcile(place):
                    _log.info("without limits nobody counts; the next ones will begin with a count")
                    ledger.distrust(place)


def was_kept_elsewhere(settings: Settings) -> bool:
    """Whether another ledger than that of the settings has kept the place's accounts last.

    Each believes that it has seen all that was written, and one that was left aside for a while
    would go on from what it had seen then: with a state that was moved to another database, or
    after a way there and back. The place itself says which it was, where it is a local folder.
    """
    note = _note(settings)
    if note is None:
        return False
    try:
        return note.read_text(encoding="utf-8") != _keeper(settings)
    except FileNotFoundError:
        return False  # nobody said so yet: then the ledger knows whether it has counted
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s: %s", note, error)
        return True


def note_keeper(settings: Settings) -> None:
    """Leave word at the place which ledger keeps its accounts; after it has counted.

    A place that cannot be written says nothing.
    """
    note = _note(settings)
    if note is None:
        return
    keeper = _keeper(settings)
    try:
        if note.exists() and note.read_text(encoding="utf-8") == keeper:
            return
        note.parent.mkdir(mode=0o700, exist_ok=True)
        new = note.with_name(f"{_KEEPER}.{os.getpid()}")
        new.write_text(keeper, encoding="utf-8")
        new.replace(note)
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("no note of who keeps the accounts: %s: %s", note, error)


def _note(settings: Settings) -> Path | None:
    folder = place_folder(settings)
    return None if folder is None else folder / _FOLDER / _KEEPER


def _keeper(settings: Settings) -> str:
    """Return what tells ledgers apart; the one beside the repositories moves with them."""
    if is_shared(settings):
        database = settings.section("state", StateSettings).database or ""
        return f"database {redact_url(database)}"
    named = settings.section("rest", RestSettings).ledger
    return "beside" if named is None else f"file {named}"


def is_counted(settings: Settings) -> bool:
    """Whether there are accounts."""
    if is_shared(settings):
        return True
    folder = place_folder(settings)
    path = settings.section("rest", RestSettings).ledger or (
        None if folder is None else folder / _FOLDER / _FILE
    )
    return path is not None and path.exists()


def is_lock(name: str) -> bool:
    """Whether the item `name` of the place is a repository's lock."""
    segments = name.split("/")
    return len(segments) >= 2 and segments[-2] == "locks"
