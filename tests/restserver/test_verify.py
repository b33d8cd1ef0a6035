"""`backupgw rest verify`: finds what is damaged, nothing else, whatever happens to a run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from pyrage.x25519 import Identity
from tests.restserver.client import Client
from tests.servers.child import Child
from tests.servers.gateway import Gateway

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.backends.memory import Memory, MemoryReader
from backupgw.kvstore.layers.encrypt import from_options as encrypt
from backupgw.kvstore.layers.throttle_rate import Pace, timetable
from backupgw.restserver.verify_command import status as status_of
from backupgw.restserver.verify_findings import Counts, Problem
from backupgw.restserver.verify_objects import Stopped, Verifier
from backupgw.restserver.verify_run import verify
from backupgw.restserver.verify_state import VerifyState
from backupgw.runtime.cli import main
from backupgw.runtime.command import CommandError

KINDS = ("data", "index", "keys", "snapshots")


class Operator:
    """Repositories on disk and the command that verifies them."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder / "data"
        self.folder.mkdir()
        self.config = folder / "backupgw.toml"
        self.config.write_text(f'[state]\nfolder = "{folder / "state"}"\n')
        self._capture = capture

    def arguments(self, *arguments: str) -> list[str]:
        where = ("--path", str(self.folder), "--config", str(self.config))
        return ["rest", "verify", *arguments, *where]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capture.readouterr()
        status = main(self.arguments(*arguments))
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return status, out, err

    def json(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        status, out, _ = self.run(*arguments, "--json")
        return status, json.loads(out)

    def add(self, repo: str, kind: str = "data", content: bytes | None = None) -> Path:
        """Store an object as the server would."""
        content = os.urandom(3000) if content is None else content
        name = hashlib.sha256(content).hexdigest()
        path = self.folder / repo / kind / (name[:2] if kind == "data" else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path, capsys)


def flip(path: Path, at: int = 1234) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0x10
    path.write_bytes(content)


def problems(report: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["problem"] for each in report["problems"]}


def test_what_names_no_repository_was_not_verified(operator: Operator) -> None:
    flip(operator.add("ann/laptop"))
    for arguments in (["ann/laptpo"], ["bob/*"], ["ann/laptop", "bob"]):
        status, out, err = operator.run(*arguments)
        assert (status, out) == (1, "")
        assert f"there is no repository {arguments[-1]}; nothing was verified" in err
        assert "there was no run over" in operator.run(*arguments, "--last")[2]
    assert operator.run("**")[0] == 1


def test_all_kinds_of_damage_are_found_and_nothing_else(operator: Operator) -> None:
    sound = [operator.add(repo, kind) for repo in ("ann/laptop", "bob", "") for kind in KINDS]
    for repo in ("ann/laptop", "bob"):
        (operator.folder / repo / "config").write_bytes(b"its name is no hash")
        locked = operator.folder / repo / "locks" / ("0" * 64)
        locked.parent.mkdir()
        locked.write_bytes(b"locks come and go")
    (operator.folder / ".htpasswd").write_text("ann:x")
    flipped = [operator.add("ann/laptop", kind) for kind in KINDS]
    for each in flipped:
        flip(each)
    cut = operator.add("bob")
    os.truncate(cut, 2000)
    emptied = operator.add("bob", "index")
    os.truncate(emptied, 0)
    twin = operator.add("bob")
    renamed = twin.with_name(twin.name[:2] + "0" * 62)
    renamed.write_bytes(twin.read_bytes())
    lost = operator.add("bob")
    moved = lost.with_name("f" * 64) if lost.name[:2] != "ff" else lost.with_name("e" * 64)
    moved = operator.folder / "bob/data" / moved.name[:2] / moved.name
    moved.parent.mkdir(exist_ok=True)
    lost.rename(moved)
    there = operator.add("bob")
    wrong = operator.folder / "bob/data/zz" / there.name
    wrong.parent.mkdir()
    there.rename(wrong)
    flat = operator.add("ann/laptop")
    flat = flat.rename(operator.folder / "ann/laptop/data" / flat.name)
    at_top = operator.add("ann/laptop")
    at_top = at_top.rename(operator.folder / "ann/laptop" / at_top.name)
    note = operator.folder / "bob/data/00/readme"
    note.parent.mkdir(exist_ok=True)
    note.write_text("no object")

    status, report = operator.json()
    damaged = {operator.name(each) for each in (*flipped, cut, emptied, renamed, moved)}
    misplaced = {operator.name(each) for each in (wrong, flat, at_top)}
    strange = {operator.name(note), operator.name(wrong.parent)}
    assert status == 1
    assert problems(report) == {
        **dict.fromkeys(damaged, "damaged"),
        **dict.fromkeys(misplaced, "misplaced"),
        **dict.fromkeys(strange, "foreign"),
    }
    said = {each["name"]: each for each in report["problems"]}
    assert said[operator.name(emptied)]["what"] == "is empty"
    assert operator.name(twin) in said[operator.name(renamed)]["what"]
    assert said[operator.name(moved)]["found"] == lost.name
    assert operator.name(there) in said[operator.name(wrong)]["what"]
    for name in damaged:
        assert not (operator.folder / name).exists()
        kept = operator.folder / said[name]["kept"]
        assert kept.exists(), "what is damaged is set aside, never deleted"
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == said[name]["found"]
    assert all(path.exists() for path in (*sound, wrong, flat, at_top, note))
    assert (report["damaged"], report["misplaced"], report["unreadable"]) == (8, 3, 0)

    status, again = operator.json()
    assert status == 1, "what is misplaced is still there"
    assert set(problems(again)) == misplaced | strange
    assert operator.run("--last")[0] == 1


def test_a_sound_place_says_so(operator: Operator) -> None:
    for kind in KINDS:
        operator.add("ann", kind)
    (operator.folder / "ann/note").write_text("beside the folders of a repository")
    status, out, _ = operator.run()
    assert (status, out) == (0, "4 files, 11.7 KiB: all hold what their names say\n")
    assert operator.run("--last")[1] == out
    assert operator.json()[1]["problems"] == []


def test_only_what_was_named_is_verified(operator: Operator) -> None:
    first, second = operator.add("ann/laptop"), operator.add("ann/phone")
    flip(first)
    flip(second)
    status, report = operator.json("ann/phone", "--no-quarantine")
    assert (status, set(problems(report))) == (1, {operator.name(second)})
    assert second.exists(), "it was only to be reported"
    assert set(problems(operator.json("ann/*")[1])) == {operator.name(first), operator.name(second)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/",), "not empty"),
        (("--limit", "fast"), "--limit"),
        (("--threads", "0"), "--threads"),
        (("--last",), "no run over all repositories yet; the same command without --last makes"),
        (("--last", "ann/*", "bob/*"), "no run over ann/*, bob/* yet"),
    ],
)
def test_mistakes_are_told(operator: Operator, arguments: tuple[str, ...], said: str) -> None:
    status, _, error = operator.run(*arguments)
    assert status in (1, 2)
    assert said in error


def test_a_folder_that_is_not_there_has_no_last_run(operator: Operator) -> None:
    operator.folder.rmdir()
    assert operator.run("--last") == (1, "", f"backupgw: {operator.folder} does not exist\n")


def test_a_run_that_was_killed_is_gone_on_with(operator: Operator) -> None:
    """Nothing that it had found is forgotten, and what it had read is not read again."""
    paths = [operator.add("ann", content=bytes([number]) * 2000) for number in range(200)]
    paths.sort()
    for path in (paths[0], paths[-1]):
        flip(path)
    # At this rate the whole takes 20 s; the first is found at once.
    command = [Gateway.program()[0], *operator.arguments("--limit", "20 kB/s", "--threads", "1")]
    with Child(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "damaged" in process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    status, report = operator.json()
    assert status == 1
    assert report["resumed"]
    assert set(problems(report)) == {operator.name(path) for path in (paths[0], paths[-1])}
    assert report["files"] == 200
    status, report = operator.json()
    assert (status, report["resumed"], report["files"]) == (0, False, 198)


def test_an_interrupt_says_nothing_but_that(operator: Operator) -> None:
    for number in range(50):
        operator.add("ann", content=bytes([number]) * 2000)
    flip(min(operator.folder.rglob("*/data/??/*")))
    command = [Gateway.program()[0], *operator.arguments("--limit", "20 kB/s")]
    with Child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate()[1]
    assert process.returncode not in (0, None)
    _, report = operator.json("--restart")
    assert (report["resumed"], report["files"]) == (False, 49)


def test_two_at_a_time_are_one_too_many(operator: Operator, tmp_path: Path) -> None:
    operator.add("ann")
    assert operator.run()[0] == 0
    url = f"file://{operator.folder}"
    with VerifyState(tmp_path / "state", "path", url, []):
        status, _, said = operator.run()
    assert status == 1
    assert "another verification" in said


class Failing(Memory):
    """A place that delivers some items only in part, or something else each time."""

    broken: str = ""
    unsteady: str = ""

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        if name == self.broken:
            raise BackendError(f"{name}: Input/output error")
        if name == self.unsteady:
            self.store(name, os.urandom(50))
        return super().open_reader(name, offset=offset, size=size)


def memory(place: Backend, count: int) -> list[str]:
    place.create()
    names = []
    with place:
        for number in range(count):
            content = f"object {number}".encode()
            digest = hashlib.sha256(content).hexdigest()
            names.append(f"ann/data/{digest[:2]}/{digest}")
            place.store(names[-1], content)
    return sorted(names)


def verifier(place: Memory) -> Verifier:
    return Verifier(place, place, None, threading.Event())


def test_what_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    place = Failing()
    names = memory(place, 20)
    place.broken, place.unsteady = names[3], names[5]
    with place, VerifyState(tmp_path, "p", "memory:", []) as state:
        state.begin(restart=False)
        verify(verifier(place), state, quarantine=True)
        found = list(state.findings())
        assert place.info(names[5]).exists
    assert {each.name: each.problem for each in found} == {
        names[3]: Problem.UNREADABLE,
        names[5]: Problem.UNREADABLE,
    }
    assert state.record.counts.harmed == 0


def test_what_a_client_stores_anew_meanwhile_stays(tmp_path: Path) -> None:
    """Between the second look and the setting aside a client may have brought the cure."""

    class Cured(Memory):
        def quarantine(self, name: str) -> str:
            self.store(name, cure)
            return super().quarantine(name)

    place = Cured()
    name = memory(place, 1)[0]
    with place, VerifyState(tmp_path, "p", "memory:", []) as state:
        cure = place.load(name)
        place.store(name, b"damage")
        state.begin(restart=False)
        verify(verifier(place), state, quarantine=True)
        assert place.load(name) == cure
        (found,) = state.findings()
    assert found.kept is None
    assert "replaced it meanwhile" in found.what


def test_at_any_stop_nothing_is_forgotten_or_told_twice(tmp_path: Path) -> None:
    """Every run is stopped after a few files; together they find what one would have found."""
    place = Memory()
    names = memory(place, 60)
    damaged = set(names[::7])
    with place:
        for name in damaged:
            place.store(name, b"damage")
        runs = 0
        while True:
            one = verifier(place)
            seen = 0

            def count(_size: int, one: Verifier = one) -> None:
                nonlocal seen
                seen += 1
                if seen == 3:
                    one.stop.set()

            with VerifyState(tmp_path, "p", "memory:", []) as state:
                resumed = state.begin(restart=False)
                assert resumed == (runs > 0)
                runs += 1
                try:
                    verify(one, state, quarantine=True, threads=1, on_file=count)
                    break
                except Stopped:
                    continue
        found = list(state.findings())
    assert runs > 5
    assert sorted(each.name for each in found) == sorted(damaged)
    assert all(each.kept for each in found)
    assert state.record.counts.objects == 60
    assert state.record.counts.damaged == len(damaged)


def test_a_full_disk_of_the_state_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Memory()
    memory(place, 5)

    def full(_self: Path, _text: str) -> None:
        raise OSError(28, "No space left on device")

    with place, VerifyState(tmp_path, "p", "memory:", []) as state:
        state.begin(restart=False)
        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(CommandError, match="No space left"):
            verify(verifier(place), state, quarantine=True)


def test_a_running_server_goes_on_beside_it(operator: Operator) -> None:
    """Limits are accounted: what is set aside frees its room, and a client can bring it again."""
    operator.config.write_text(
        operator.config.read_text() + '[rest.quota.server]\nbytes = "10 kB"\n'
    )
    content = os.urandom(8000)
    with Gateway(operator.folder, flags=["--config", str(operator.config)]) as server:
        client = Client(server)
        status, path = client.save("ann", "data", content)
        assert status == 200
        stored = next(operator.folder.rglob("ann/data/??/*"))
        flip(stored)
        status, report = operator.json()
        assert (status, report["damaged"]) == (1, 1)
        assert client.status("GET", path) == 404
        assert client.status("POST", path, content) == 200
        assert operator.json()[0] == 0


def test_what_could_not_be_read_weighs_less_than_damage() -> None:
    assert status_of(Counts()) == 0
    assert status_of(Counts(foreign=1)) == 0
    assert status_of(Counts(unreadable=1)) == 3
    assert status_of(Counts(unreadable=1, misplaced=1)) == 1
    assert status_of(Counts(unreadable=1, damaged=1)) == 1


def test_all_threads_together_keep_to_the_limit(tmp_path: Path) -> None:
    place = Memory()
    memory(place, 50)
    clock = 0.0
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        nonlocal clock
        with lock:
            clock += seconds

    pace = Pace(timetable("limit", "100"), clock=lambda: clock, sleep=sleep)
    with place, VerifyState(tmp_path, "p", "memory:", []) as state:
        state.begin(restart=False)
        verify(Verifier(place, place, pace, threading.Event()), state, quarantine=True)
    assert clock >= state.record.counts.bytes / 100 - 1


def test_a_terminal_shows_how_far_it_is(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        operator.add("ann", content=bytes([number]) * 100_000)
    monkeypatch.setattr("backupgw.restserver.progress._PAUSE", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    status, out, shown = operator.run()
    assert status == 0
    assert "5 files" in out
    bars = [bar for bar in shown.split("\r") if "[" in bar and "%" in bar]
    assert [bar.partition("]")[2].split("%")[0].strip() for bar in bars] == [
        *("20", "40", "60", "80", "100")
    ]
    assert shown.endswith("\x1b[K"), "the bar is left behind"


def test_what_a_cache_still_has_does_not_hide_damage(operator: Operator, tmp_path: Path) -> None:
    operator.config.write_text(
        operator.config.read_text()
        + f'[places.path]\nlayers = [{{ layer = "cache", folder = "{tmp_path}/cache" }}]\n'
    )
    path = operator.add("ann")
    with Gateway(operator.folder, flags=["--config", str(operator.config)]) as server:
        client = Client(server)
        for _ in range(3):
            assert client.status("GET", f"/ann/data/{path.name}") == 200
        assert any(each.is_file() for each in (tmp_path / "cache").rglob("*")), "nothing is cached"
        flip(path)
        assert problems(operator.json()[1]) == {operator.name(path): "damaged"}


def test_what_cannot_be_decrypted_is_damaged(tmp_path: Path) -> None:
    inner = Memory()
    place = encrypt(inner, key=str(Identity.generate()), names="readable")
    names = memory(place, 5)
    with place, VerifyState(tmp_path, "p", "memory:", []) as state:
        content = bytearray(inner.load(names[1]))
        content[-3] ^= 1
        inner.store(names[1], content)
        state.begin(restart=False)
        verify(Verifier(place, place, None, threading.Event()), state, quarantine=True)
        (found,) = state.findings()
        assert not place.info(names[1]).exists
    assert (found.name, found.problem) == (names[1], Problem.DAMAGED)
    assert "decrypted" in found.what
    assert found.kept
