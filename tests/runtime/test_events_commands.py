"""Commands as hooks: what they are given, what they are kept from, and how they are ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime.events import Events, EventsSettings, QuotaReached, SnapshotWritten, start
from backupgw.runtime.events import hooks as hooks_module
from backupgw.runtime.events.commands import LONGEST_VALUE, CommandCarrier, variables
from backupgw.runtime.events.hooks import Result
from backupgw.runtime.events.journal import Claim, Journal, Letter
from backupgw.runtime.events.records import Event, message
from tests.servers.child import Child

QUOTA = QuotaReached(scope="user:alice", measure="bytes", level=0.8, limit=80, used=81)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "FIRST_PAUSE", 0.02)


class Told:
    """A socket that a command reports to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "told"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(30)

    def command(self, body: str) -> list[str]:
        report = (
            "import json, os, socket, sys\n"
            "def tell(what):\n"
            "    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:\n"
            f"        told.sendto(json.dumps(what).encode(), {str(self.path)!r})\n"
        )
        return [sys.executable, "-c", report + body]

    def next(self) -> Any:
        return json.loads(self.socket.recv(1 << 20))


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.socket.close()


def begin(folder: Path, command: list[str], **more: Any) -> Events:
    hook = {"name": "tell", "command": command, **more}
    journal = folder / "events.sqlite3"
    settings = EventsSettings.model_validate({"hook": [hook], "journal": journal, "gateway": "gw1"})
    return start(settings, environ={"PATH": os.environ["PATH"], "RESTIC_PASSWORD": "hunter2"})


def letter(event: Event) -> Letter:
    told = message(event, "gw1")
    return Letter(1, told.id, event.type, told.time, told.text, 0, 0, "")


def carry(command: list[str], event: Event = QUOTA, limit: float = 30) -> tuple[Result, str]:
    carrier = CommandCarrier(command, limit, os.environ)
    try:
        outcome = carrier.deliver(letter(event))
    finally:
        carrier.close()
    return outcome.result, outcome.reason


def test_a_command_gets_the_event_and_no_secrets(told: Told, tmp_path: Path) -> None:
    body = "tell([sys.stdin.read(), dict(os.environ)])"
    with begin(tmp_path, told.command(body), types="quota.*") as events:
        events.publish(SnapshotWritten(place="p", repository="r", snapshot="s"))
        events.publish(QUOTA)
        given, environ = told.next()
    assert json.loads(given)["data"]["used"] == 81
    assert {k: v for k, v in environ.items() if k.startswith("BACKUPGW_")} == {
        "BACKUPGW_EVENT_ID": json.loads(given)["id"],
        "BACKUPGW_EVENT_TIME": json.loads(given)["time"],
        "BACKUPGW_EVENT_TYPE": "quota.reached",
        "BACKUPGW_EVENT_SEVERITY": "warning",
        "BACKUPGW_EVENT_GATEWAY": "gw1",
        "BACKUPGW_EVENT_SCOPE": "user:alice",
        "BACKUPGW_EVENT_MEASURE": "bytes",
        "BACKUPGW_EVENT_LEVEL": "0.8",
        "BACKUPGW_EVENT_LIMIT": "80",
        "BACKUPGW_EVENT_USED": "81",
    }
    assert "RESTIC_PASSWORD" not in environ
    assert environ["PATH"] == os.environ["PATH"]


def test_a_command_that_fails_is_run_again(
    told: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flag = tmp_path / "flag"
    body = (
        f"tell(1)\nif not os.path.exists({str(flag)!r}):\n open({str(flag)!r}, 'w').close()\n"
        " print('cannot reach http://u:hunter2@host'); sys.exit(3)"
    )
    with begin(tmp_path, told.command(body)) as events:
        events.publish(QUOTA)
        assert [told.next(), told.next()] == [1, 1]
    assert "the command ended with status 3: cannot reach http://***@host" in caplog.text
    journal = Journal(str(tmp_path / "events.sqlite3"))
    assert journal.pending("tell") == 0
    journal.close()


def test_outcomes() -> None:
    assert carry(["true"]) == (Result.DELIVERED, "")
    assert carry(["sh", "-c", "exit 7"]) == (Result.FAILED, "the command ended with status 7")
    assert carry(["sh", "-c", "kill -9 $$"])[1] == "the command was ended by signal 9"
    assert carry(["/nonexistent/program"])[1].startswith("cannot run /nonexistent/program: No such")


def test_a_command_that_hangs_is_ended_with_its_children(told: Told) -> None:
    body = (
        "import subprocess, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'])\ntell(child.pid)\nsignal.pause()"
    )
    from backupgw.runtime.events import commands

    grace, commands.GRACE = commands.GRACE, 0.1
    try:
        result, reason = carry(told.command(body), limit=2)
    finally:
        commands.GRACE = grace
    assert (result, reason) == (Result.FAILED, "the command took longer than 2 s")
    child = told.next()
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert state == "" or state.startswith("Z"), "the child is gone, or waits to be reaped"


def test_what_a_command_leaves_running_holds_nobody_up(told: Told) -> None:
    body = "import subprocess\ntell(subprocess.Popen(['sleep', '1000']).pid)"
    assert carry(told.command(body))[0] is Result.DELIVERED
    os.kill(told.next(), signal.SIGTERM)


def test_output_without_end_is_not_kept() -> None:
    noisy = "import sys\nfor _ in range(2000): print('x' * 10000)\nprint('the end'); sys.exit(1)"
    result, reason = carry([sys.executable, "-c", noisy])
    assert result is Result.FAILED
    assert len(reason) < 600
    assert reason.endswith("the end")


def test_a_command_that_reads_nothing_is_no_trouble() -> None:
    event = SnapshotWritten(place="p", repository="r" * 60_000, snapshot="s")
    assert carry(["true"], event)[0] is Result.DELIVERED


def test_stopping_ends_a_command_that_takes_long(told: Told, tmp_path: Path) -> None:
    events = begin(
        tmp_path, told.command("import time\ntell(1)\ntime.sleep(1000)"), time_limit=3000
    )
    events.publish(QUOTA)
    assert told.next() == 1
    events.close(timeout=4)
    journal = Journal(str(tmp_path / "events.sqlite3"))
    assert journal.pending("tell") == 1, "run again after the start"
    journal.close()


@pytest.mark.parametrize(
    "name", ["a\0b", "\udcff.txt", "\ud800", "ä" * 10_000, "x" * 40_000, "-rf", "$(id)"]
)
def test_any_name_can_be_handed_over(name: str) -> None:
    event = SnapshotWritten(place="p", repository=name, snapshot="s")
    given = variables(letter(event))["BACKUPGW_EVENT_REPOSITORY"]
    assert "\0" not in given
    assert len(os.fsencode(given)) <= LONGEST_VALUE
    result, _ = carry(["sh", "-c", 'test -n "$BACKUPGW_EVENT_REPOSITORY"'], event)
    assert result is Result.DELIVERED


def claim(journal: Journal, now: float, keep_for: float = 1e9) -> Claim:
    return journal.claim("h", now, lease=60, keep_for=keep_for, pause=300)


def test_a_dead_worker_holds_a_hook_up_for_its_lease_only(tmp_path: Path) -> None:
    path = str(tmp_path / "j" / "events.sqlite3")
    dead, alive = Journal(path), Journal(path)
    dead.add([("h", "id1", "t", 1000.0, "{}")], limit=10)
    first = claim(dead, 1000.0).letter
    assert first is not None
    assert claim(alive, 1059.0) == Claim(None, 1.0)
    second = claim(alive, 1061.0).letter
    assert second is not None
    assert second.id == "id1"
    # The first was only slow: what it says now must not end the second's claim.
    dead.later("h", first, letter_at=0, hook_at=0, counts=True)
    assert claim(dead, 1062.0).letter is None
    dead.add([("h", "id2", "t", 1000.0, "{}")], limit=10)
    dead.done("h", first, answered=True)
    assert claim(dead, 1062.0).letter is None
    alive.done("h", second, answered=True)
    assert alive.pending("h") == 1
    last = claim(dead, 1062.0).letter
    assert last is not None
    assert last.id == "id2"
    dead.close()
    alive.close()


def test_a_clock_set_back_holds_nothing_up(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "events.sqlite3"))
    journal.add([("h", "id1", "t", 5000.0, "{}")], limit=10)
    taken = claim(journal, 5000.0).letter
    assert taken is not None
    journal.later("h", taken, letter_at=5300.0, hook_at=5300.0, counts=True)
    assert claim(journal, 5001.0).letter is None
    assert claim(journal, 1000.0).letter is not None
    journal.close()


def test_the_oldest_make_room_and_the_too_old_go(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "events.sqlite3"))
    lost = journal.add([("h", f"id{n}", "t", 1000.0 + n, "{}") for n in range(25)], limit=10)
    assert lost == {"h": 15}
    found = claim(journal, 2000.0, keep_for=980.5)
    assert found.expired == 5
    assert found.letter is not None
    assert found.letter.id == "id20"
    journal.close()


def test_events_are_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / "events.sqlite3"
    Journal(str(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_pauses_grow_are_bounded_and_differ() -> None:
    hooks_module_first, hooks_module.FIRST_PAUSE = hooks_module.FIRST_PAUSE, 1.0
    try:
        for failures in (1, 2, 9, 100, 10_000):
            longest = min(300.0, 2.0 ** (min(failures, 20) - 1))
            drawn = [hooks_module.pause(failures) for _ in range(100)]
            assert all(longest / 2 <= each <= longest for each in drawn)
            assert len(set(drawn)) > 50
    finally:
        hooks_module.FIRST_PAUSE = hooks_module_first


def test_a_killed_gateway_loses_nothing(told: Told, tmp_path: Path) -> None:
    """SIGKILL with events in the journal; the next start tells them."""
    program = (
        "import sys, time\nfrom backupgw.runtime.events import *\n"
        f"s = EventsSettings.model_validate({{'journal': {str(tmp_path / 'events.sqlite3')!r},"
        " 'hook': [{'name': 'tell', 'command': ['false']}]})\n"
        "events = start(s)\n"
        "for n in range(20): events.publish(RepositoryCreated(place='p', repository=str(n)))\n"
        "hooks = next(s for s in events._sinks if s.name == 'hooks')\n"
        "while hooks._journal.pending('tell') < 20: time.sleep(0.01)\n"
        "print('there', flush=True)\ntime.sleep(1000)\n"
    )
    with Child([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.kill()
    body = "tell(os.environ['BACKUPGW_EVENT_REPOSITORY'])"
    started = time.time() + 400  # past the claim and the pause of the killed one
    hooks_clock = hooks_module.Hooks.__init__.__kwdefaults__
    assert hooks_clock is not None
    original = hooks_clock["clock"]
    hooks_clock["clock"] = lambda: started
    try:
        with begin(tmp_path, told.command(body)):
            assert sorted(int(told.next()) for _ in range(20)) == list(range(20))
    finally:
        hooks_clock["clock"] = original
