"""The store of tokens: what is kept, what outlasts a restart, what processes agree on."""

import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from backupgw.runtime import state_folder
from backupgw.runtime.authorisation import Scope
from backupgw.runtime.command import CommandError
from backupgw.runtime.database import connect, schema, sqlite_url
from backupgw.runtime.settings import load
from backupgw.runtime.tokens import (
    DatabaseTokens,
    Token,
    TokenRefused,
    TokenStoreError,
    mint,
    open_store,
)
from backupgw.runtime.tokens.records import digest_of
from tests.servers.postgres import QUOTED_PASSWORD, Postgres

NOW = 1_800_000_000.0
SCOPE = Scope.parse(["append"], ["repository:default/{user}/**", "folder:nas/x"])


@pytest.fixture
def store(state_url: str) -> Iterator[DatabaseTokens]:
    store = DatabaseTokens.at(state_url)
    yield store
    store.close()


def add(store: DatabaseTokens, now: float = NOW, expires: float | None = None) -> tuple[str, Token]:
    text, token = mint("ann", SCOPE, now=now, expires=expires, name="laptop")
    store.add(token)
    return text, token


def test_what_was_added_is_found_by_another_process_to_the_letter(
    store: DatabaseTokens, state_url: str
) -> None:
    _, token = add(store, expires=NOW + 60)
    other = DatabaseTokens.at(state_url)
    assert other.find(token.id) == token
    assert other.tokens("ann") == [token]
    assert other.tokens("bob") == []
    assert other.find("0" * 12) is None
    other.close()


def test_the_token_itself_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    store = DatabaseTokens.at(sqlite_url(tmp_path / "state.sqlite3"))
    text, _ = add(store)
    secret = text.split("_", 2)[2]
    files = list(tmp_path.iterdir())
    assert {"state.sqlite3", "state.sqlite3-wal"} <= {file.name for file in files}
    for file in files:
        assert secret.encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()


def test_two_tokens_are_never_alike() -> None:
    made = [mint("ann", SCOPE, now=NOW, expires=None)[0] for _ in range(100)]
    assert len(set(made)) == 100
    assert all(len(text.split("_", 2)[2]) == 43 for text in made)  # 256 bits


def test_a_token_is_good_until_it_ends(store: DatabaseTokens) -> None:
    text, token = add(store, expires=NOW + 60)
    token.check(text, NOW + 59)
    with pytest.raises(TokenRefused, match="expired"):
        token.check(text, NOW + 60)
    changed = text[:-1] + ("A" if text[-1] != "A" else "B")
    with pytest.raises(TokenRefused, match="wrong secret"):
        token.check(changed, NOW)


def test_revoking_is_for_good_and_tells_everybody(store: DatabaseTokens) -> None:
    text, token = add(store)
    before = store.generation()
    revoked = store.revoke(token.id, NOW + 5)
    assert revoked is not None
    assert revoked.revoked == NOW + 5
    assert store.generation() > before
    with pytest.raises(TokenRefused, match="revoked"):
        revoked.check(text, NOW + 6)
    assert store.revoke(token.id, NOW + 50) == revoked
    assert store.revoke("0" * 12, NOW) is None


def test_last_use_only_moves_on(store: DatabaseTokens) -> None:
    _, token = add(store)
    store.note_used({token.id: NOW + 10, "unknown": NOW})
    store.note_used({token.id: NOW + 3})
    found = store.find(token.id)
    assert found is not None
    assert found.used == NOW + 10


def test_tokens_that_ended_long_ago_are_forgotten(store: DatabaseTokens) -> None:
    day = 86_400
    _, expired = add(store, expires=NOW + day)
    _, revoked = add(store, expires=NOW + 1000 * day)
    _, eternal = add(store)
    store.revoke(revoked.id, NOW + day)
    _, new = add(store, now=NOW + 90 * day)
    assert len(store.tokens()) == 4
    _, newer = add(store, now=NOW + 92 * day)
    assert {token.id for token in store.tokens()} == {eternal.id, new.id, newer.id}
    assert expired.id not in {token.id for token in store.tokens()}


@pytest.mark.parametrize(
    ("user", "scope", "expires"),
    [("", SCOPE, None), ("ann", Scope.parse([], ["*:**"]), None), ("ann", SCOPE, NOW)],
)
def test_a_token_for_nobody_or_nothing_is_not_made(
    user: str, scope: Scope, expires: float | None
) -> None:
    with pytest.raises(ValueError, match="a token"):
        mint(user, scope, now=NOW, expires=expires)


def test_an_id_is_spent_until_its_token_has_ended(store: DatabaseTokens) -> None:
    assert store.spend("panel", "x", NOW + 60, NOW)
    assert not store.spend("panel", "x", NOW + 60, NOW + 59)
    assert store.spend("other", "x", NOW + 60, NOW)
    assert store.spend("panel", "x", NOW + 200, NOW + 100)


def _spend(url: str, start: Barrier, won: "multiprocessing.Queue[int]") -> None:
    start.wait(30)
    store = DatabaseTokens.at(url)  # a file is made by whoever comes first
    won.put(sum(store.spend("panel", f"id{n}", NOW + 60, NOW) for n in range(50)))
    store.close()


def test_of_many_processes_and_gateways_one_spends_an_id(state_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start, won = context.Barrier(4), context.Queue()
    arguments = (state_url, start, won)
    processes = [context.Process(target=_spend, args=arguments, daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    assert sum(won.get(timeout=60) for _ in processes) == 50
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def test_a_store_that_is_damaged_or_not_ours_is_an_error_and_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    path.write_bytes(b"no database" * 500)
    with pytest.raises(TokenStoreError, match=re_path(path)):
        DatabaseTokens.at(sqlite_url(path)).find("0" * 12)
    path.unlink()
    DatabaseTokens.at(sqlite_url(path)).generation()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE schema_version SET version_num = '9999'")
    db.close()
    with pytest.raises(TokenStoreError, match="version 9999"):
        DatabaseTokens.at(sqlite_url(path)).find("0" * 12)
    with pytest.raises(TokenStoreError, match="No such file"):
        DatabaseTokens.at(sqlite_url(tmp_path / "none" / "state.sqlite3")).generation()


def re_path(path: Path) -> str:
    return path.name.replace(".", r"\.")


def test_where_the_state_is(tmp_path: Path) -> None:
    config = tmp_path / "gw.toml"
    config.write_text("")
    settings = load(config, environ={})
    find = state_folder.find
    assert find(settings, {"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/backupgw")
    both = {"STATE_DIRECTORY": "/var/lib/x:/var/lib/y", "XDG_STATE_HOME": "/s"}
    assert find(settings, both) == Path("/var/lib/x")
    alone = Path("/var/lib/backupgw") if os.geteuid() == 0 else Path("/h/.local/state/backupgw")
    assert find(settings, {"HOME": "/h"}) == alone
    config.write_text('[state]\nfolder = "/elsewhere"\n')
    assert find(load(config, environ={}), both) == Path("/elsewhere")


def test_the_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = state_folder.prepare(tmp_path / "a" / "state")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(CommandError, match="others can write"):
        state_folder.prepare(folder)
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"\[state\]"):
        state_folder.prepare(tmp_path / "file")


@pytest.mark.root
def test_what_root_makes_belongs_to_the_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    store = DatabaseTokens.at(sqlite_url(tmp_path / "state.sqlite3"))
    add(store)
    assert {file.stat().st_uid for file in tmp_path.iterdir()} == {65534}
    store.close()


def _old_file(folder: Path) -> None:
    """Make what 0.1.0 kept its tokens in: one good token, one revoked, one id spent."""
    with sqlite3.connect(folder / "tokens.sqlite3") as db:
        db.executescript(
            """
            PRAGMA journal_mode = WAL;
            CREATE TABLE tokens (
                id TEXT PRIMARY KEY, digest BLOB NOT NULL, user TEXT NOT NULL, name TEXT NOT NULL,
                actions INTEGER NOT NULL, targets TEXT NOT NULL,
                created REAL NOT NULL, expires REAL, revoked REAL, used REAL
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE spent (
                issuer TEXT NOT NULL, id TEXT NOT NULL, until REAL NOT NULL,
                PRIMARY KEY (issuer, id)
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE generation (number INTEGER NOT NULL) STRICT;
            INSERT INTO generation VALUES (99000000000000);
            PRAGMA user_version = 1;
            """
        )
        row = (digest_of(OLD_TOKEN), "ann", "laptop", 1, '["repository:default/ann"]', NOW)
        new = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, NULL)"
        db.execute(new, ("0123456789ab", *row, None))
        db.execute(new, ("ba9876543210", *row, NOW + 1))
        db.execute("INSERT INTO spent VALUES ('panel', 'x', 9e9)")
    db.close()


OLD_TOKEN = f"bgw_0123456789ab_{'x' * 43}"


def _take_over(config: Path, start: Barrier) -> None:
    start.wait(30)
    store = open_store(load(config, environ={}))
    found = store.find("0123456789ab")
    assert found is not None
    found.check(OLD_TOKEN, NOW + 10)
    store.close()


def test_tokens_of_an_older_gateway_go_on_working(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    _old_file(state)
    config = tmp_path / "gw.toml"
    config.write_text(f'[state]\nfolder = "{state}"\n')
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [
        context.Process(target=_take_over, args=(config, start), daemon=True) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    store = open_store(load(config, environ={}))
    assert store.generation() > 99000000000000
    assert [token.state(NOW + 10) for token in store.tokens()] == ["good", "revoked"]
    assert not store.spend("panel", "x", 9e9, NOW)
    store.revoke("0123456789ab", NOW + 20)
    store.close()
    # Half of it done again, as after a crash before the renaming, brings nothing back.
    (state / "tokens.sqlite3.taken-over").rename(state / "tokens.sqlite3")
    store = open_store(load(config, environ={}))
    assert [token.state(NOW + 30) for token in store.tokens()] == ["revoked", "revoked"]
    store.close()


def test_a_token_file_that_cannot_be_read_is_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / "tokens.sqlite3").write_bytes(b"no database" * 500)
    config = tmp_path / "gw.toml"
    config.write_text(f'[state]\nfolder = "{tmp_path}"\n')
    tmp_path.chmod(0o700)
    with pytest.raises(CommandError, match=r"cannot be taken over.*move it away"):
        open_store(load(config, environ={}))
    assert (tmp_path / "tokens.sqlite3").exists()


def test_a_database_that_is_away_is_no_answer_and_comes_back(
    postgres_programs: None,
) -> None:
    with Postgres() as server:
        url = server.new_database()
        with connect(url) as database:
            schema.migrate(database)
        store = DatabaseTokens.at(url)
        _, token = add(store)
        server.stop("immediate")
        for ask in (store.generation, lambda: store.find(token.id)):
            with pytest.raises(TokenStoreError) as caught:
                ask()
            assert QUOTED_PASSWORD not in str(caught.value)
        server.start()
        assert store.find(token.id) == token
        store.close()
