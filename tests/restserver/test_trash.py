"""`backupgw rest trash`, and that nobody but the operator reaches what it keeps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.restserver.client import Client
from tests.restserver.hostile_play import Player
from tests.restserver.hostile_site import CANARY, Site
from tests.restserver.hostile_trash import reaching
from tests.servers.gateway import Gateway

from backupgw.kvstore.layers.trash_clock import EARLIEST
from backupgw.restserver.moments import parse_moment
from backupgw.runtime.cli import main
from backupgw.runtime.command import UsageError

ONE, OTHER = b"the config of ann", b"another config, by a thief"


class Operator:
    """A folder served with a trash, and its operator's commands."""

    def __init__(
        self, folder: Path, capture: pytest.CaptureFixture[str], keep: str = "30 days"
    ) -> None:
        self.folder = folder / "data"
        self.folder.mkdir(exist_ok=True)
        self.config = folder / "backupgw.toml"
        self.config.write_text(
            f'[places.path]\nlayers = [{{ layer = "trash", keep = "{keep}" }}]\n'
            f'[state]\nfolder = "{folder / "state"}"\n'
        )
        self._capture = capture

    def server(self, *flags: str, users: dict[str, str] | None = None) -> Gateway:
        return Gateway(self.folder, users=users, flags=["--config", str(self.config), *flags])

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status and what was printed."""
        self._capture.readouterr()
        where = ("--path", str(self.folder), "--config", str(self.config))
        status = main(["rest", "trash", *arguments, *where])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return status, out, err

    def json(self, *arguments: str) -> Any:
        status, out, err = self.run(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)

    def names(self, *arguments: str) -> list[str]:
        return sorted(entry["name"] for entry in self.json("list", *arguments))


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path, capsys)


@pytest.fixture
def client(operator: Operator) -> Iterator[Client]:
    with operator.server() as server:
        yield Client(server)


COARSE = 5
"""CLOCK_REALTIME_COARSE of clock_gettime(2), the clock of files' times."""


def moment() -> str:
    """Return now as an operator can write it, later than all that was written before."""
    now = time.time()
    tick = time.clock_getres(COARSE)  # a file's time may lag behind by so much
    while time.clock_gettime(COARSE) <= now + tick:
        pass
    return datetime.fromtimestamp(now, UTC).isoformat()


def save(client: Client, repo: str, kind: str = "data", content: bytes | None = None) -> str:
    """Upload an object and return its name at the place."""
    content = os.urandom(100) if content is None else content
    status, path = client.save(repo, kind, content)
    assert status == 200
    name = hashlib.sha256(content).hexdigest()
    return f"{repo}/{kind}/{name[:2]}/{name}" if kind == "data" else path[1:]


def delete(client: Client, name: str) -> None:
    """Remove an object by its name at the place."""
    segments = name.split("/")
    if segments[-3:-1] and segments[-3] == "data":
        del segments[-2]
    assert client.status("DELETE", "/" + "/".join(segments)) == 200


def test_what_was_deleted_is_listed_by_whom_and_comes_back(operator: Operator) -> None:
    users = {"ann": "a", "bob": "b"}
    with operator.server(users=users) as server:
        ann, bob = (Client(server, *login) for login in users.items())
        mine, locked = save(ann, "ann/laptop"), save(ann, "ann/laptop", "locks")
        nested, prefixed = save(ann, "ann"), save(bob, "ann/laptop2", "keys")
        for each in (mine, locked, nested):
            delete(ann, each)
        delete(bob, prefixed)

        assert operator.names() == sorted([mine, nested, prefixed]), "locks are not kept"
        assert operator.names("--repo", "ann/laptop") == [mine]
        assert operator.names("--repo", "ann") == [nested]
        assert operator.names("--repo", "ann/*") == sorted([mine, prefixed])
        (entry,) = operator.json("list", "--repo", "ann/laptop2")
        assert (entry["by"], entry["how"], entry["bytes"]) == ("bob", "deleted", 100)
        assert operator.names("--since", moment()) == []
        by = {each["repository"]: each["by"] for each in operator.json("list", "--summary")}
        assert by == {"ann": ["ann"], "ann/laptop": ["ann"], "ann/laptop2": ["bob"]}
        status, table, _ = operator.run("list")
        assert (status, len(table.splitlines())) == (0, 4)
        assert mine in table

        assert operator.json("restore", "--repo", "ann/laptop", "--dry-run")["objects"] == 1
        assert not (operator.folder / mine).exists()
        assert operator.json("restore", "--repo", "ann/laptop")["objects"] == 1
        assert ann.status("GET", f"/ann/laptop/data/{mine[-64:]}") == 200
        assert operator.names() == sorted([nested, prefixed])
        assert operator.json("restore", "--repo", "**")["objects"] == 2
        assert operator.names() == []


def test_a_repository_goes_back_to_any_moment_and_forth_again(
    operator: Operator, client: Client
) -> None:
    """The config is the one object whose name does not say what it holds."""
    config = operator.folder / "ann/config"
    assert client.status("POST", "/ann/config", ONE) == 200
    old = save(client, "ann")
    first = moment()
    new = save(client, "ann")
    delete(client, old)
    assert client.status("DELETE", "/ann/config") == 200
    assert client.status("POST", "/ann/config", OTHER) == 200
    second = moment()
    delete(client, new)
    assert client.status("DELETE", "/ann/config") == 200

    def restore(since: str, wanted: bytes, *more: str) -> dict[str, Any]:
        where = ("--repo", "ann", "--since", since, *more)
        promised = operator.json("restore", *where, "--dry-run")
        found: dict[str, Any] = operator.json("restore", *where)
        assert found == {**promised, "dry_run": False}
        assert config.read_bytes() == wanted
        return found

    assert restore(second, OTHER)["objects"] == 2
    assert (operator.folder / new).exists()
    assert not (operator.folder / old).exists(), "deleted before that moment"
    assert restore(first, ONE)["replaced"] == 1
    assert (operator.folder / old).exists()
    assert (operator.folder / new).exists(), "what was written since stays"
    assert restore(first, ONE)["objects"] == 0, "done again, it changes nothing"
    lock = save(client, "ann", "locks")
    exactly = restore(first, ONE, "--exact")
    assert (exactly["objects"], exactly["removed"]) == (0, 1)
    assert not (operator.folder / new).exists()
    assert (operator.folder / lock).exists(), "somebody's lock is gone for good"
    # Its config was replaced; it comes back, as does what the exact restore took away.
    assert restore(second, OTHER)["objects"] == 2
    assert (operator.folder / new).exists()
    assert restore(first, ONE)["objects"] == 1


def test_a_repository_on_another_disk_comes_back_too(operator: Operator) -> None:
    """What lies behind a followed link is copied to the trash, with another time."""
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        assert other.stat().st_dev != operator.folder.stat().st_dev
        (operator.folder / "ann").symlink_to(other)
        operator.config.write_text(
            operator.config.read_text().replace(
                "[places.path]\n", f'[places.path]\nfollow = ["{other}"]\n'
            )
        )
        with operator.server() as server:
            client = Client(server)
            name = save(client, "ann")
            since = moment()
            delete(client, name)
        where = ("--repo", "ann", "--since", since)
        status, _, said = operator.run("restore", *where, "--exact")
        assert (status, "another file system" in said) == (1, True)
        assert operator.json("restore", *where)["objects"] == 1
        assert (operator.folder / name).exists()
    finally:
        shutil.rmtree(other)


def test_without_a_moment_nothing_is_replaced(operator: Operator, client: Client) -> None:
    assert client.status("POST", "/ann/config", ONE) == 200
    assert client.status("DELETE", "/ann/config") == 200
    assert client.status("POST", "/ann/config", OTHER) == 200
    found = operator.json("restore", "--repo", "ann")
    assert (found["objects"], found["present"]) == (0, 1)
    assert (operator.folder / "ann/config").read_bytes() == OTHER


def test_a_repository_at_the_root_is_not_all_of_them(operator: Operator, client: Client) -> None:
    name = hashlib.sha256(ONE).hexdigest()
    assert client.status("POST", f"/data/{name}", ONE) == 200
    other = save(client, "ann")
    delete(client, other)
    assert client.status("DELETE", f"/data/{name}") == 200
    assert operator.names("--repo", "/") == [f"data/{name[:2]}/{name}"]
    assert operator.json("restore", "--repo", "/")["objects"] == 1
    assert operator.names() == [other]


def test_a_removed_repository_comes_back_as_a_whole(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.config.write_text(operator.config.read_text() + "[rest]\nremovable_repos = true\n")
    with operator.server() as server:
        client = Client(server)
        assert client.status("POST", "/ann/?create=true") == 200
        assert client.status("POST", "/ann/config", ONE) == 200
        names = [save(client, "ann", kind) for kind in ("data", "keys", "index", "snapshots")]
        assert client.status("DELETE", "/ann/?delete=true") == 200
        assert not (operator.folder / "ann").exists()
        assert operator.json("restore", "--repo", "ann")["objects"] == 5
        assert client.status("GET", "/ann/config") == 200
        assert all((operator.folder / name).exists() for name in names)
    assert capsys.readouterr().err == ""


def test_only_what_was_kept_long_enough_is_let_go(operator: Operator, client: Client) -> None:
    names = [save(client, repo) for repo in ("ann", "ann/data-base", "bob")]
    assert client.status("POST", "/ann/config", ONE) == 200
    configs = save(client, "ann/configs", "keys")
    for name in [*names, configs]:
        delete(client, name)
    assert client.status("DELETE", "/ann/config") == 200
    assert operator.json("empty")["objects"] == 0
    assert len(operator.names()) == 5
    assert operator.json("empty", "--repo", "ann", "--force", "--dry-run")["objects"] == 2
    assert len(operator.names()) == 5
    assert operator.json("empty", "--repo", "ann", "--force")["objects"] == 2
    assert operator.names() == sorted([*names[1:], configs])
    assert operator.json("empty", "--repo", "**", "--force")["objects"] == 3
    assert operator.names() == []


def test_a_clock_that_jumped_needs_the_operators_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(tmp_path, capsys, keep="1 s")
    with operator.server() as server:
        client = Client(server)
        delete(client, save(client, "ann"))
    # As if the trash had last been used in the year's first minute.
    (operator.folder / ".backupgw-trash/clock").write_text(json.dumps({"latest": EARLIEST}))
    (entry,) = operator.json("list")
    until = datetime.fromisoformat(entry["kept_until"]).timestamp()
    while time.time() < until:
        time.sleep(max(0.0, until - time.time()))
    status, _, said = operator.run("empty")
    assert status == 1
    assert "--clock-is-right" in said
    assert len(operator.names()) == 1
    assert operator.json("empty", "--clock-is-right", "--dry-run")["objects"] == 1
    assert operator.json("empty", "--clock-is-right")["objects"] == 1
    assert operator.names() == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("restore",), 2, "name a repository"),
        (("empty", "--force"), 2, "name a repository"),
        (("restore", "--repo", "ann", "--exact"), 2, "--since"),
        (("empty", "--repo", "ann"), 2, "needs --force"),
        (("list", "--repo", ""), 2, "not empty"),
        (("list", "--since", "yesterday"), 2, "is no moment"),
        (("list", "--since", "2999-01-01"), 2, "in the future"),
    ],
)
def test_mistakes_are_told(
    operator: Operator, arguments: tuple[str, ...], status: int, said: str
) -> None:
    found, _, error = operator.run(*arguments)
    assert (found, said in error) == (status, True), error


def test_a_place_without_a_trash_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rest", "trash", "list", "--path", str(tmp_path)]) == 1
    assert "has no trash" in capsys.readouterr().err


@pytest.mark.root
def test_root_makes_nothing_that_the_server_could_not_use(operator: Operator) -> None:
    os.chown(operator.folder, 65534, 65534)
    status, _, said = operator.run("restore", "--repo", "**")
    assert status == 1
    assert "sudo -u nobody" in said


def test_moments_are_read_as_people_write_them() -> None:
    now = 1_800_000_000.0
    assert parse_moment("36 h", now) == now - 36 * 3600
    assert parse_moment("2026-11-20T03:00Z", now) == 1_795_143_600.0
    assert parse_moment("2026-11-20T03:00+01:00", now) == 1_795_140_000.0
    for wrong in ("", "5", "soon", "2026-13-01", "36 fortnights"):
        with pytest.raises(UsageError):
            parse_moment(wrong, now)


def test_no_request_reaches_the_trash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What lies there holds the canary; each request of the corpus gets a refusal without it."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    operator = Operator(tmp_path, capsys)
    operator.folder = site.root
    with operator.server() as server:
        client = Client(server)
        for kind in ("data", "keys", "snapshots"):
            delete(client, save(client, "ann/laptop", kind, CANARY))
        trash = site.root / ".backupgw-trash"
        kept = sorted(trash.rglob("*"))
        contents = {path: path.read_bytes() for path in kept if path.is_file()}
        attacks = list(reaching(site.root, kept))
        assert len({attack.payload for attack in attacks}) > 1500
        problems = Player(("127.0.0.1", server.port)).play_all(attacks)
        assert not problems, "\n".join(problems[:40])
        assert sorted(trash.rglob("*")) == kept
        assert {path: path.read_bytes() for path in contents} == contents
    site.check_outside()
