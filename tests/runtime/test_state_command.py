"""The state goes out whole, and comes back whole or not at all, into either database."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import Amount
from backupgw.runtime.cli import main
from backupgw.runtime.database import connect, open_database, sqlite_url
from backupgw.runtime.database.tables.all import metadata
from backupgw.runtime.database.transfer import export_state, exported_tables
from backupgw.runtime.ledger import PostgresLedger
from tests.servers.postgres import PASSWORD, QUOTED_PASSWORD


@dataclass
class Gateway:
    """A gateway's settings with a database of its own."""

    config: Path
    url: str
    capsys: pytest.CaptureFixture[str] = field(repr=False)
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: object) -> int:
        status = main([*map(str, arguments), "--config", str(self.config)])
        self.out, self.err = self.capsys.readouterr()
        return status

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return what the database holds."""
        with open_database(self.url) as database, database.read() as connection:
            return {
                table.name: [
                    dict(row)
                    for row in connection.execute(
                        select(table).order_by(*table.primary_key)
                    ).mappings()
                ]
                for table in exported_tables()
            }

    def fill(self) -> dict[str, list[dict[str, Any]]]:
        """Put a row with something in every column into every table."""
        with open_database(self.url) as database, database.begin() as connection:
            for index, table in enumerate(exported_tables()):
                row = {
                    column.name: _sample(column.type.python_type, index) for column in table.columns
                } | _CHECKED.get(table.name, {})
                for key in table.foreign_keys:
                    row[key.parent.name] = connection.execute(select(key.column)).scalar_one()
                connection.execute(table.insert().values(row))
        return self.rows()


_CHECKED: dict[str, dict[str, object]] = {"jobs": {"state": "running"}}
"""Columns that take only certain values."""


def _sample(kind: type, index: int) -> object:
    samples: dict[type, object] = {
        str: f'"\\ü\n☃{index}',
        int: 7 + index,
        float: 1795185598.5028741 + index,
        bool: True,
        bytes: bytes(range(256)),
    }
    return samples[kind]


Make = Callable[[str], Gateway]


@pytest.fixture
def gateway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Make:
    """Make a gateway on `sqlite` or on `postgresql`, migrated."""

    def make(kind: str) -> Gateway:
        number = len(list(tmp_path.glob("*.toml")))
        folder = tmp_path / f"state{number}"
        lines = ["[state]", f'folder = "{folder}"']
        url = sqlite_url(folder / "state.sqlite3")
        if kind == "postgresql":
            template = request.getfixturevalue("migrated_template")
            url = request.getfixturevalue("postgres").new_database(template)
            lines.append(f'database = "{url.replace(f":{QUOTED_PASSWORD}@", "@")}"')
            lines.append(f'database_password = "{PASSWORD}"')
        config = tmp_path / f"{number}.toml"
        config.write_text("\n".join(lines))
        config.chmod(0o600)
        made = Gateway(config, url, capsys)
        assert made("config", "migrate") == 0, made.err
        return made

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def full(gateway: Make, request: pytest.FixtureRequest) -> Gateway:
    made = gateway(request.param)
    made.fill()
    return made


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_state_moves_to_the_letter(
    full: Gateway, gateway: Make, kind: str, tmp_path: Path
) -> None:
    before = full.rows()
    assert all(len(rows) == 1 for rows in before.values())
    file = tmp_path / "state.jsonl"
    assert full("state", "export", file, "--json") == 0
    assert json.loads(full.out)["rows"] == dict.fromkeys(before, 1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = gateway(kind)
    assert other("state", "import", file, "--json") == 0, other.err
    assert json.loads(other.out)["rows"] == dict.fromkeys(before, 1)
    assert other.rows() == before


def test_numbers_go_on_after_the_highest(full: Gateway, gateway: Make, tmp_path: Path) -> None:
    """Else the first job after a move would collide with one that was moved."""
    file = tmp_path / "state.jsonl"
    assert full("state", "export", file) == 0
    other = gateway("postgresql")
    assert other("state", "import", file) == 0
    numbered = [table for table in exported_tables() if table.autoincrement_column is not None]
    assert numbered, "nothing here has numbers"
    with open_database(other.url) as database, database.begin() as connection:
        for table in numbered:
            column = table.autoincrement_column
            assert column is not None
            (row,) = connection.execute(select(table)).mappings()
            values = {name: value for name, value in row.items() if name != column.name}
            unique = {"id": "another", "key": "another"} if "id" in values else {}
            new = connection.execute(table.insert().values(values | unique).returning(column))
            assert new.scalar_one() == row[column.name] + 1


def test_what_is_there_is_not_replaced_unasked(full: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    assert full("state", "export", file) == 0
    assert full("token", "create", "--user", "ann", "--allow", "read", "--on", "*:**") == 0
    before = full.rows()
    assert full("state", "import", file) == 1
    assert "tokens 2" in full.err
    assert "--replace" in full.err
    assert full("state", "import", file, "--replace", "--dry-run") == 0
    assert full.rows() == before
    assert full("state", "import", file, "--replace") == 0
    assert len(full.rows()["tokens"]) == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_ledger_that_a_state_is_brought_beside_counts_anew(
    gateway: Make, kind: str, tmp_path: Path
) -> None:
    """Others may have written to its places while it was left aside."""
    file = tmp_path / "state.jsonl"
    source = gateway(kind)
    source.fill()
    assert source("state", "export", file) == 0
    target = gateway("postgresql")
    item = ItemInfo("a", exists=True, size=100, directory=False)

    def count(ledger: PostgresLedger, *items: ItemInfo) -> None:
        ledger.reconcile("place", lambda _folder: items, lambda _name: ("server",))

    with open_database(target.url) as database:
        with PostgresLedger(database) as ledger:
            count(ledger, item)
            assert not ledger.needs_reconcile("place")
        assert target("state", "import", file, "--dry-run") == 0, target.err
        with PostgresLedger(database) as ledger:
            assert not ledger.needs_reconcile("place"), "a trial changed it"
        assert target("state", "import", file) == 0, target.err
        with PostgresLedger(database) as ledger:
            assert ledger.needs_reconcile("place")
            # Until it has counted it says what it knew, and limits hold by that.
            assert ledger.usage("server").used == Amount(100, 1)
            count(ledger, item, item._replace(name="b"))
            assert ledger.usage("server").used == Amount(200, 2)


def test_running_gateways_notice_that_tokens_were_replaced(gateway: Make, tmp_path: Path) -> None:
    from backupgw.runtime.tokens import DatabaseTokens

    made = gateway("sqlite")
    file = tmp_path / "state.jsonl"
    assert made("state", "export", file) == 0
    assert made("token", "create", "--user", "ann", "--allow", "read", "--on", "*:**") == 0
    store = DatabaseTokens.at(made.url)
    before = store.generation()
    assert made("state", "import", file, "--replace") == 0
    assert store.generation() > before
    assert store.tokens() == []
    store.close()


def test_a_file_is_not_overwritten_unasked(full: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    file.write_text("precious")
    assert full("state", "export", file) == 1
    assert "--force" in full.err
    assert file.read_text() == "precious"
    assert full("state", "export", file, "--force") == 0
    assert file.read_text() != "precious"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_standard_streams_will_do(
    full: Gateway, gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, write_through=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        assert full("state", "export", "-") == 0
    other = gateway("sqlite")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written.getvalue())))
    assert other("state", "import", "-") == 0
    assert other.rows() == full.rows()
    assert full("state", "export", "-", "--json") == 2


def cut(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def cut_in_a_line(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1][:20]]


def without_a_row(lines: list[bytes]) -> list[bytes]:
    return lines[:1] + lines[2:]


def changed(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b"1795185598.50", b"1795185598.51") for line in lines]


def twice(lines: list[bytes]) -> list[bytes]:
    return lines + lines


def newer_format(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"backupgw_state": 1', b'"backupgw_state": 2'), *lines[1:]]


def newer_tables(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"schema": ', b'"schema": 9'), *lines[1:]]


def no_export(lines: list[bytes]) -> list[bytes]:
    return [b'{"some": "thing"}\n', *lines]


def nothing(lines: list[bytes]) -> list[bytes]:
    return []


def binary(lines: list[bytes]) -> list[bytes]:
    return [os.urandom(1000)]


def other_column(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"user_name"', b'"nothing"') for line in lines]


def other_type(lines: list[bytes]) -> list[bytes]:
    return [
        line.replace(b'"actions": ', b'"actions": true, "actions": false, "x": ') for line in lines
    ]


def other_table(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"table": "tokens"', b'"table": "sqlite_master"') for line in lines]


def bad_bytes(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"base64": "', b'"base64": "!') for line in lines]


def a_row_again(lines: list[bytes]) -> list[bytes]:
    row = next(line for line in lines if b'"table": "tokens"' in line)
    end = {"end": True, "rows": len(lines) - 1}
    return sealed([*lines[:-1], row], end)


def sealed(lines: list[bytes], end: dict[str, Any]) -> list[bytes]:
    """Add the last line that fits, as somebody would who edits a file on purpose."""
    end["sha256"] = hashlib.sha256(b"".join(lines)).hexdigest()
    return [*lines, json.dumps(end).encode() + b"\n"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut, "cut off"),
        (cut_in_a_line, "cut off"),
        (without_a_row, "checksum"),
        (changed, "checksum"),
        (twice, "something follows"),
        (newer_format, "format 2"),
        (newer_tables, "run the newer one"),
        (no_export, "not an export"),
        (nothing, "not an export"),
        (binary, "not an export"),
        (other_column, "no column 'nothing'"),
        (other_type, "is not int"),
        (other_table, "no table 'sqlite_master'"),
        (bad_bytes, "not base64"),
        (a_row_again, "contradict"),
    ],
)
def test_a_file_that_is_not_whole_changes_nothing(
    gateway: Make, spoil: Callable[[list[bytes]], list[bytes]], told: str, tmp_path: Path
) -> None:
    refused(gateway("sqlite"), spoil, told, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "told"), [(without_a_row, "checksum"), (a_row_again, "contradict")]
)
def test_nor_does_it_on_postgresql(
    gateway: Make, spoil: Callable[[list[bytes]], list[bytes]], told: str, tmp_path: Path
) -> None:
    refused(gateway("postgresql"), spoil, told, tmp_path)


def refused(
    made: Gateway, spoil: Callable[[list[bytes]], list[bytes]], told: str, tmp_path: Path
) -> None:
    """Import a spoiled export over a state, which stays as it is."""
    made.fill()
    file = tmp_path / "state.jsonl"
    assert made("state", "export", file) == 0
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"".join(spoil(file.read_bytes().splitlines(keepends=True))))
    before = made.rows()
    assert made("state", "import", bad, "--replace") == 1
    assert told in made.err
    assert "bad.jsonl" in made.err
    assert "internal error" not in made.err
    assert made.rows() == before


def test_an_export_of_before_a_column_was_added_is_taken(gateway: Make, tmp_path: Path) -> None:
    made = gateway("sqlite")
    made.fill()
    file = tmp_path / "state.jsonl"
    assert made("state", "export", file) == 0
    lines = file.read_bytes().splitlines(keepends=True)
    old = [line.replace(b', "used": 1795', b', "usec": 1795') for line in lines]
    assert old != lines, "the column is another one now"
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row.get("row", {}).pop("used", None)
    old = [json.dumps(row).encode() + b"\n" for row in rows[:-1]]
    file.write_bytes(b"".join(sealed(old, rows[-1])))
    assert made("state", "import", file, "--replace") == 0, made.err
    assert made.rows()["tokens"][0]["used"] is None


def test_files_that_cannot_be_are_told(full: Gateway, tmp_path: Path) -> None:
    assert full("state", "import", tmp_path / "none") == 1
    assert "No such file" in full.err
    assert full("state", "export", tmp_path / "none" / "file") == 1
    assert "No such file" in full.err
    assert full("state", "import", tmp_path) == 1
    assert "directory" in full.err


def test_an_export_is_of_one_moment(full: Gateway) -> None:
    """What others write while it goes on is not in it, not even in tables that come later."""

    class Busy(io.BytesIO):
        lines = 0

        def write(self, data: Any) -> int:
            self.lines += 1
            if self.lines == 2:  # the first row
                full("token", "create", "--user", "new", "--allow", "read", "--on", "*:**")
            return super().write(data)

    file = Busy()
    with open_database(full.url) as database:
        counts = export_state(database, file)
    assert counts["tokens"] == 1
    assert list(counts).index("tokens") > 0, "tokens came first; look at another table"
    assert len(full.rows()["tokens"]) == 2


def test_config_migrate_says_what_it_does(gateway: Make, postgres_url: str, tmp_path: Path) -> None:
    made = gateway("postgresql")
    assert made("config", "migrate") == 0
    assert "as needed" in made.out
    with connect(made.url) as database, database.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(text(f'DROP TABLE IF EXISTS "{table.name}" CASCADE'))
        connection.execute(text("DROP TABLE schema_version"))
    assert made("token", "list") == 1
    assert "config migrate" in made.err
    assert made("doctor") == 1
    assert "run: backupgw config migrate" in made.out
    assert made("config", "migrate", "--dry-run", "--json") == 0
    document = json.loads(made.out)
    assert document["found"] == 0
    assert document["dry_run"] is True
    assert document["steps"][0]["name"] == "tokens"
    assert made("token", "list") == 1
    assert made("config", "migrate") == 0
    assert "migrated from version 0" in made.out
    assert made("token", "list") == 0
    assert made("doctor") == 0
    assert "as needed" in made.out
    assert PASSWORD not in made.out


def test_a_password_in_the_url_is_refused(gateway: Make) -> None:
    made = gateway("sqlite")
    made.config.write_text('[state]\ndatabase = "postgresql://gw:hunter2@localhost/gw"\n')
    assert made("config", "check") == 1
    assert "database_password" in made.err
    assert "hunter2" not in made.err + made.out
    made.config.write_text('[state]\ndatabase = "mysql://localhost/gw"\n')
    assert made("config", "check") == 1
    assert "postgresql://" in made.err


def test_the_doctor_sees_a_damaged_state(gateway: Make) -> None:
    made = gateway("sqlite")
    path = Path(made.url.removeprefix("sqlite:///"))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    assert made("doctor") == 1
    assert "database" in made.out
    assert "internal error" not in made.err
    path.parent.chmod(0o707)
    assert made("doctor") == 1
    assert "others can write" in made.out


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_service_refuses_to_start_on_a_newer_state(gateway: Make, kind: str) -> None:
    """Before it listens: an old gateway would not understand what a new one has written."""
    made = gateway(kind)
    with open_database(made.url) as database, database.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version_num = '9999'"))
    assert made("rest", "serve", "--no-auth", "--listen", "127.0.0.1:0") == 1
    assert "9999" in made.err
    assert "newer backupgw" in made.err


def test_a_service_refuses_to_start_before_the_migration(gateway: Make) -> None:
    made = gateway("postgresql")
    with connect(made.url) as database, database.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version_num = '0001'"))
    assert made("rest", "serve", "--no-auth", "--listen", "127.0.0.1:0") == 1
    assert "run: backupgw config migrate" in made.err
    assert made("config", "migrate", "--dry-run") == 0
