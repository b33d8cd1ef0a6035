"""What the operator of a server has: users, an overview of repositories and limits; and what an
owner has: the removal of a whole repository."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.restserver.client import Client
from tests.restserver.test_quota import accounts, save, stored
from tests.restserver.test_rules import Site, until
from tests.servers.gateway import Gateway

from backupgw.restserver.passwords import PasswordFile, hash_password
from backupgw.runtime.auth import Htpasswd
from backupgw.runtime.cli import main

REST = Gateway.program()[:-1]


def rest(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*REST, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent"},
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def user(file: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = rest("user", *arguments, "--htpasswd-file", str(file), stdin=stdin)
    left = [path.name for path in file.parent.iterdir() if path.name.startswith(".backupgw")]
    assert not left, "a temporary file was left behind"
    return done


def test_users_come_change_and_go(file: Path) -> None:
    cheap = ("--cost", "4")
    assert user(file, "add", "ann", *cheap, stdin="first\n").returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert Htpasswd(file).verify("ann", b"first")
    assert user(file, "add", "bob", *cheap, stdin="b\n").returncode == 0
    assert user(file, "passwd", "ann", *cheap, stdin="second").returncode == 0
    assert Htpasswd(file).verify("ann", b"first") is None
    assert Htpasswd(file).verify("ann", b"second")
    listed = json.loads(user(file, "list", "--json").stdout)
    assert listed == [{"user": name, "hash": "bcrypt, cost 4"} for name in ("ann", "bob")]
    assert "ann" in user(file, "list").stdout
    assert user(file, "remove", "ann", "zoe").returncode == 3
    assert list(Htpasswd(file).users) == ["bob"]
    gone = user(file, "remove", "bob")
    assert gone.returncode == 0
    assert "no user" in gone.stderr


def test_what_is_not_touched_stays_as_it_is(file: Path) -> None:
    sha = "old:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="
    real = file.parent / "real"
    real.write_text(f"# ours\n{sha}:a comment\n\nann:{{SHA}}qUqP5cyxm6YcTAhz05Hph5gvu9M=")
    real.chmod(0o640)
    file.symlink_to(real)
    assert user(file, "passwd", "ann", "--cost", "4", stdin="x\n").returncode == 0
    lines = real.read_text().splitlines()
    assert lines[:3] == ["# ours", f"{sha}:a comment", ""]
    assert lines[3].startswith("ann:$2b$04$")
    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.root
def test_a_link_that_another_user_made_is_not_followed(file: Path) -> None:
    """Or whoever owns the folder of the repositories could have root write any file."""
    real = file.parent / "real"
    real.write_text("root:x:0:0\n")
    file.symlink_to(real)
    os.lchown(file, 12345, 12345)
    done = user(file, "add", "ann", "--cost", "4", stdin="x\n")
    assert done.returncode == 1
    assert "another user made" in done.stderr
    assert real.read_text() == "root:x:0:0\n"
    real.unlink()
    assert user(file, "add", "ann", "--cost", "4", stdin="x\n").returncode == 1
    assert not real.exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("add", "ann"), "x", "already"),
        (("passwd", "zoe"), "x", "is not in"),
        (("add", "a:b"), "x", "no ':'"),
        (("add", "a/b"), "x", "other characters"),
        (("add", ".."), "x", "folder's name"),
        (("add", "a\nb"), "x", "name"),
        (("add", "zoe"), "", "empty"),
        (("add", "zoe"), "x" * 73, "72"),
        (("add", "zoe"), "a\0b", "NUL"),
        (("add", "zoe", "--cost", "3"), "x", "4 to 18"),
        (("remove", "zoe"), "", "is not in"),
    ],
)
def test_a_mistake_changes_nothing(
    file: Path,
    arguments: tuple[str, ...],
    stdin: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file.write_text("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
    before = file.read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    assert main(["rest", "user", *arguments, "--htpasswd-file", str(file)]) in (1, 2)
    assert said in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_dry_run_changes_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
    before = file.read_bytes()
    for arguments in (("add", "zoe"), ("passwd", "ann"), ("remove", "ann")):
        assert main(["rest", "user", *arguments, "--dry-run", "--htpasswd-file", str(file)]) == 0
        assert "would" in capsys.readouterr().out
    assert file.read_bytes() == before


def test_many_who_add_at_once_lose_nobody(file: Path) -> None:
    """And a server that reads the file meanwhile never finds it broken."""
    names = [f"u{'abcdefgh'[number]}" for number in range(8)]
    file.write_text("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")

    def add(name: str) -> None:
        digest = hash_password("x", 4)
        with PasswordFile(file).changing() as lines:
            lines.put(name, digest)

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert "ann" in Htpasswd(file).users
    assert sorted(Htpasswd(file).users) == ["ann", *names]


def test_a_running_server_knows_new_users(tmp_path: Path) -> None:
    with Site(tmp_path, "") as site:
        assert Client(site.server, "zoe", "z").status("GET", "/zoe/config") == 401
        user(site.server.htpasswd, "add", "zoe", "--cost", "4", stdin="z\n")
        assert Client(site.server, "zoe", "z").status("GET", "/zoe/config") == 404
        user(site.server.htpasswd, "passwd", "zoe", "--cost", "4", stdin="y\n")
        until(
            lambda: Client(site.server, "zoe", "z").status("GET", "/zoe/config") != 404,
            "the old password works on",
        )


def test_repositories_are_listed_with_what_they_hold(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Gateway(folder) as server:
        client = Client(server)
        for path in ("ann/laptop", "ann", "bob"):
            assert client.status("POST", f"/{path}/?create=true") == 200
        assert client.status("POST", "/ann/laptop/config", b"config") == 200
        for number in range(3):
            assert save(client, "ann/laptop", 1000 + number)[0] == 200
        assert save(client, "ann/laptop", 200, "snapshots")[0] == 200
        assert save(client, "ann/laptop", 100, "locks")[0] == 200
    # None of these is a repository, or an object of one.
    (folder / "notes").mkdir()
    (folder / "bob/data/00/readme").write_text("not an object")
    (folder / ".htpasswd").write_text("")
    os.utime(next((folder / "ann/laptop/locks").iterdir()), (0, time.time() - 7300))

    found = json.loads(rest("repos", "--path", str(folder), "--json").stdout)
    assert [each["repository"] for each in found] == ["ann", "ann/laptop", "bob"]
    laptop = found[1]
    assert laptop["owner"] == "ann"
    assert laptop["types"]["data"] == {"objects": 3, "bytes": 3003}
    assert laptop["types"]["config"] == {"objects": 1, "bytes": 6}
    assert (laptop["objects"], laptop["bytes"]) == (6, 3003 + 6 + 200 + 100)
    assert laptop["last_write"] >= laptop["last_snapshot"] > laptop["oldest_lock"]
    assert found[2]["objects"] == 0
    assert found[2]["last_write"] is None
    table = rest("repos", "--path", str(folder), "ann/*").stdout.splitlines()
    assert len(table) == 2
    assert table[1].endswith("ann/laptop")
    assert "2 h" in table[1]
    assert json.loads(rest("repos", "--path", str(folder), "--json", "none").stdout) == []


def test_a_repository_is_listed_without_a_look_more_than_it_takes(tmp_path: Path) -> None:
    """One stat for each object: twice as many would take hours on a slow disk."""
    from backupgw.kvstore.backends.memory import Memory
    from backupgw.restserver import survey

    looks = {"info": 0, "list": 0}

    class Watched(Memory):
        def info(self, name: str):  # type: ignore[no-untyped-def]
            looks["info"] += 1
            return super().info(name)

        def list(self, name: str):  # type: ignore[no-untyped-def]
            looks["list"] += 1
            return super().list(name)

    place = Watched()
    place.create()
    with place:
        for number in range(50):
            place.store(f"ann/data/{number:02x}/{number:02x}{'0' * 62}", b"x")
        assert [survey.count(place, path).total.objects for path in survey.find(place)] == [50]
    assert looks["info"] == 0
    # The root, the repository, its five folders, and those of the packs.
    assert looks["list"] <= 7 + 50


QUOTA = '[[rest.quota.user]]\nwho = "*"\nbytes = "100 kB"\n'


def test_limits_and_use_are_listed_and_counted_anew(tmp_path: Path) -> None:
    with Site(tmp_path, QUOTA) as site:
        folder = str(tmp_path / "data")

        def quota(*arguments: str) -> subprocess.CompletedProcess[str]:
            return rest("quota", "--config", str(site.config), "--path", folder, *arguments)

        assert save(site.user("ann"), "ann/laptop", 40_000)[0] == 200
        foreign = tmp_path / "data/ann/laptop/data/ab" / f"ab{'0' * 62}"
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_bytes(bytes(50_000))
        used = {each["account"]: each for each in json.loads(quota("--json").stdout)}
        assert used["user:ann"]["bytes"] == 40_000
        assert used["user:ann"]["limit_bytes"] == 100_000
        assert used["server"]["limit_bytes"] is None
        counted = quota("--count")
        assert "user:ann: corrected from 40000 bytes" in counted.stderr
        assert "90000" in counted.stdout
        assert save(site.user("ann"), "ann/laptop", 20_000)[0] == 507
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")


def test_without_limits_there_is_nothing_to_list(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = rest("quota", "--path", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "there are no limits" in done.stderr


REMOVABLE = f"""
[[auth.rule]]
who = ["fay"]
allow = ["admin"]
on = ["repository:*/**"]
[[auth.rule]]
who = ["*"]
allow = ["append"]
on = ["repository:*/vault/**"]
[[auth.rule]]
who = ["*"]
allow = ["full"]
on = ["repository:*/**"]
[rest]
removable_repos = true
{QUOTA}
"""


def test_an_owner_can_remove_a_whole_repository(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Site(tmp_path, REMOVABLE, "--workers", "2") as site:
        ann = site.user("ann")
        for path in ("ann/laptop", "ann/other", "vault", "ann"):
            assert ann.status("POST", f"/{path}/?create=true") == 200
            assert ann.status("POST", f"/{path}/config", b"config") == 200
            for _ in range(120 if path == "ann/laptop" else 1):
                assert save(ann, path, 10)[0] == 200
        lock = save(ann, "ann/laptop", 10, "locks")[2]

        remove = "/ann/laptop/?delete=true"
        refused = ann.call("DELETE", remove)
        assert (refused.status, "is locked" in refused.text) == (409, True)
        assert ann.status("DELETE", lock) == 200
        assert ann.status("DELETE", "/ann/laptop/") == 400
        # It is not bob's, though he might empty it object by object.
        assert site.user("bob").status("DELETE", remove) == 403
        assert ann.status("DELETE", "/vault/?delete=true") == 403
        assert ann.status("GET", "/ann/laptop/config") == 200

        assert ann.status("DELETE", remove) == 200
        assert not (folder / "ann/laptop").exists()
        assert ann.status("DELETE", remove) == 404
        assert ann.status("GET", "/ann/other/config") == 200
        # A folder with another repository in it stays, and so does that.
        assert ann.status("DELETE", "/ann/?delete=true") == 200
        assert ann.status("GET", "/ann/config") == 404
        assert ann.status("GET", "/ann/other/config") == 200
        assert site.user("fay").status("DELETE", "/vault/?delete=true") == 200
        until(
            lambda: len([x for x in site.server.process.lines if "repository.deleted" in x]) == 3,
            "nobody was told",
        )
    assert accounts(folder) == stored(folder)
    assert not list(folder.glob("vault*"))


def test_where_it_was_not_switched_on_repositories_cannot_be_removed(tmp_path: Path) -> None:
    with Site(tmp_path, "") as site:
        ann = site.user("ann")
        assert ann.status("POST", "/ann/?create=true") == 200
        refused = ann.call("DELETE", "/ann/?delete=true")
        assert refused.status == 405
        assert refused.headers["allow"] == "POST"
    second = tmp_path / "second"
    second.mkdir()
    with Site(second, "[rest]\nremovable_repos = true\n", "--append-only") as site:
        assert site.user("ann").status("POST", "/ann/?create=true") == 200
        assert site.user("ann").status("DELETE", "/ann/?delete=true") == 403
