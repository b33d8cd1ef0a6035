"""What the server tells as events, by what is in its log."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.restserver.client import Client
from tests.restserver.test_rules import Site, until
from tests.servers.gateway import Gateway

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.errors import BackendConnectionError
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.ledger import Alarm, Measure
from backupgw.restserver.access import Access
from backupgw.restserver.announcements import QUIET, Announcer
from backupgw.restserver.app import RestApp
from backupgw.runtime.events import (
    Event,
    PlaceFailed,
    PlaceRecovered,
    QuotaCleared,
    QuotaReached,
    Severity,
)
from backupgw.runtime.threads import Threads


def told(server: Gateway, kind: str) -> list[str]:
    return [line for line in server.process.lines if kind in line]


def test_a_snapshot_that_is_sent_twice_is_told_once(tmp_path: Path) -> None:
    """A client whose reply was lost sends it again; nobody wants to hear of it twice."""
    with Gateway(tmp_path / "data") as server:
        client = Client(server)
        for _ in range(2):
            assert client.save("repo", "snapshots", b"snapshot")[0] == 200
        assert client.save("repo", "snapshots", b"another")[0] == 200
        _, path = client.save("repo", "snapshots", b"another")
        for _ in range(2):
            assert client.status("DELETE", path) == 200
        until(lambda: bool(told(server, "snapshot.deleted")), "nothing was told")
    assert len(told(server, "snapshot.written")) == 2
    assert len(told(server, "snapshot.deleted")) == 1


@pytest.mark.parametrize("verify", [True, False])
def test_damage_that_an_upload_shows_is_told(tmp_path: Path, verify: bool) -> None:
    content = b"value"
    name = hashlib.sha256(content).hexdigest()
    stored = tmp_path / "data/repo/data" / name[:2] / name
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"vaXue")
    flags = [] if verify else ["--no-verify-upload"]
    with Gateway(tmp_path / "data", flags=flags) as server:
        status, _ = Client(server).save("repo", "data", content)
        assert status == (200 if verify else 403)
        until(lambda: bool(told(server, "damage.found")), "nothing was told")
    (line,) = told(server, "damage.found")
    assert name in line
    assert ("warning" if verify else "error") in line.lower()


def test_a_flood_of_wrong_passwords_is_told_once(tmp_path: Path) -> None:
    with Site(tmp_path, "") as site:
        guess = Client(site.server, "ann", "wrong")
        statuses = [guess.status("GET", "/team/config") for _ in range(12)]
        assert set(statuses) == {401, 429}
        until(lambda: bool(told(site.server, "login.throttled")), "nothing was told")
    (line,) = told(site.server, "login.throttled")
    assert "127.0.0.1" in line


def test_each_network_is_told_once_in_a_while() -> None:
    events: list[Event] = []
    now = [1000.0]
    announcer = Announcer(events.append, clock=lambda: now[0])
    for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"):
        announcer.throttled(address)
    assert [event.data()["address"] for event in events] == [
        "192.0.2.1",
        "2001:db8::1",
        "192.0.2.2",
    ]
    now[0] += QUIET
    announcer.throttled("192.0.2.1")
    assert len(events) == 4


def test_a_place_that_is_away_is_told_and_so_is_its_return() -> None:
    """By the requests that need it; not by those that are refused before they do."""

    class Away(Memory):
        away = False

        def info(self, name: str) -> ItemInfo:
            if self.away:
                raise BackendConnectionError("https://user:hunter2@host/ does not answer")
            return super().info(name)

    async def ask(path: str) -> int:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "HEAD", "headers": [], "query_string": b""}
        await app({**scope, "raw_path": path.encode()}, receive, send)
        return statuses[0]

    async def play() -> list[int]:
        found = []
        for place.away, path in (
            (True, "/r/config"),
            (True, "/r/config"),
            (False, "/nonsense"),
            (False, "/r/config"),
            (False, "/r/config"),
        ):
            found.append(await ask(path))
        return found

    events: list[Event] = []
    place = Away()
    place.create()
    threads = Threads(2, "test")
    app = RestApp(place, Access(None), threads, None, Announcer(events.append), verify=True)
    with place:
        place.store("r/config", b"x")
        assert asyncio.run(play()) == [503, 503, 404, 200, 200]
    threads.close()
    failed, recovered = events
    assert isinstance(failed, PlaceFailed)
    assert "hunter2" not in failed.reason
    assert isinstance(recovered, PlaceRecovered)


def test_alarms_become_events() -> None:
    events: list[Event] = []
    announcer = Announcer(events.append)
    announcer.alarm(Alarm("user:ann", Measure.BYTES, 1.0, 100, 100))
    announcer.alarm(Alarm("user:ann", Measure.OBJECTS, None, 8, 3, cleared=True))
    reached, cleared = events
    assert isinstance(reached, QuotaReached)
    assert reached.weight is Severity.ERROR
    assert reached.data() == {
        "scope": "user:ann",
        "measure": "bytes",
        "level": 1.0,
        "limit": 100,
        "used": 100,
    }
    assert isinstance(cleared, QuotaCleared)


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ('url = { file = "/nowhere/url" }', "/nowhere/url"),
        ('command = ["true"]\nsecret = "x"', "are for a url"),
        ('command = ["true"]\ntypes = "login.throtled"', "did you mean 'login.throttled'"),
    ],
)
def test_a_wrong_hook_keeps_the_server_from_starting(tmp_path: Path, hook: str, said: str) -> None:
    from tests.restserver.test_start import refused

    (tmp_path / "backupgw.toml").write_text(
        f'[state]\nfolder = "{tmp_path}"\n[[events.hook]]\nname = "h"\n{hook}\n'
    )
    assert said in refused(tmp_path, "--listen", "127.0.0.1:0")


@pytest.mark.parametrize("hidden", ['secret = "abc"', 'headers = { Authorization = "abc" }'])
def test_a_hooks_secret_that_others_can_read_is_warned_about(tmp_path: Path, hidden: str) -> None:
    config = tmp_path / "backupgw.toml"
    config.write_text(
        '[[events.hook]]\nname = "h"\nurl = { file = "/etc/url" }\ntypes = "login.*"\n' + hidden
    )
    config.chmod(0o644)
    checked = subprocess.run(
        [Gateway.program()[0], "config", "check", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0
    assert "holds secrets and others can read it" in checked.stderr
    assert "abc" not in checked.stdout + checked.stderr


def hook(target: Path, name: str = "told") -> str:
    return (
        f'[[events.hook]]\nname = "{name}"\ntypes = ["snapshot.*"]\n'
        f'command = ["sh", "-c", "cat >> \'{target}\'"]\n'
    )


def test_hooks_change_without_a_restart(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with Site(tmp_path, "", "--workers", "2") as site:
        ann = site.user("ann")

        def told(repository: str, file: Path) -> bool:
            return file.exists() and f'"{repository}"' in file.read_text()

        def create(repository: str) -> None:
            # By a new connection each time: either worker has to tell.
            assert ann.save(repository, "snapshots")[0] == 200

        create("nobody-listens")
        site.write(hook(first))  # the first one of all
        site.reload("1 hooks in effect")
        until(lambda: ready(site, "1 hooks in effect", 2), "a worker took no hooks")
        for number in range(6):
            create(f"a{number}")
        until(lambda: all(told(f"a{n}", first) for n in range(6)), "the first hook was not told")

        site.write(hook(second) + hook(first, "Told") + "nonsense = 1\n")
        site.reload("everything stays as it was")
        create("still")
        until(lambda: told("still", first), "a mistake ended the hooks")

        site.write(hook(second))
        site.reload("1 hooks in effect")
        until(lambda: ready(site, "1 hooks in effect", 4), "a worker kept the old hooks")
        create("b")
        until(lambda: told("b", second), "the second hook was not told")

        site.write("")
        site.reload("0 hooks in effect")
        until(lambda: ready(site, "0 hooks in effect", 2), "a worker kept its hooks")
        create("c")
    assert not told("b", first)
    assert not told("c", second)
    assert "nobody-listens" not in first.read_text()


def ready(site: Site, says: str, times: int) -> bool:
    return len([line for line in site.server.process.lines if says in line]) >= times
