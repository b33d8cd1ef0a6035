"""Who makes a repository that several want: one of them, and the others find it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.registry import open_place
from backupgw.runtime.restic import (
    PlaceTurn,
    Repository,
    Restic,
    ResticStopped,
    StopSignal,
    ensure_repository,
    find_program,
)
from tests.conftest import SOAK
from tests.servers import peers

PASSWORD = "correct horse battery"
BOTH = (peers.RESTIC_OLD, peers.RESTIC_NEW)

pytestmark = pytest.mark.peers(*BOTH)


def together(call: Callable[[], object], number: int) -> list[object]:
    """Return what a call returned on several threads that started together."""
    barrier = threading.Barrier(number)
    found: list[object] = []

    def run() -> None:
        barrier.wait()
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("name", BOTH)
def test_several_at_once_make_one_repository_with_one_key(name: str, tmp_path: Path) -> None:
    """Each by a process of its own would be the same: the claim lies in the place."""
    program = find_program(str(peers.get(name).path))
    rounds = 20 if SOAK else 1
    for number in range(rounds):
        path = tmp_path / f"r{number}"
        restic = Restic(program, Repository(str(path), PASSWORD), cache=tmp_path / "cache")
        made = together(
            lambda restic=restic, path=path: ensure_repository(  # type: ignore[misc]
                restic, [PlaceTurn(open_place(f"file://{path}"))]
            ),
            3,
        )
        assert sorted(map(str, made)) == ["False", "False", "True"]
        assert len(os.listdir(path / "keys")) == 1
        assert not list(path.glob("backupgw-init*"))
        assert restic.exists()


def test_a_claim_whose_owner_died_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backupgw.runtime.restic.init.DEAD_AFTER", 0.2)
    monkeypatch.setattr("backupgw.runtime.restic.init._LOOK_EVERY", 0.02)
    place = Memory()
    place.create()
    with place:
        place.store("r/backupgw-init-0000", b"dead")
        place.store("r/backupgw-init-0001", b"dead, too")
    inside = 0
    most = 0
    lock = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with PlaceTurn(place, "r").take(None):
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.05)
            with lock:
                inside -= 1

    enter()
    assert most == 1
    with place:
        assert [item.name for item in place.list("r")] == []


def test_a_place_that_cannot_tell_who_was_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backupgw.runtime.restic.init.DEAD_AFTER", 3.0)
    monkeypatch.setattr("backupgw.runtime.restic.init.SETTLE", 0.3)
    monkeypatch.setattr("backupgw.runtime.restic.init._LOOK_EVERY", 0.02)
    place = Memory()
    place.create()
    with place:
        place.store("r/backupgw-init-by-0dead", b"")
        tree = place.opened_place()
    inside: list[None] = []
    most: list[int] = []

    def enter() -> None:
        mine = Memory(tree)
        mine.capabilities = replace(mine.capabilities, atomic_create=False)
        with PlaceTurn(mine, "r").take(None):
            inside.append(None)
            most.append(len(inside))
            threading.Event().wait(0.02)
            inside.pop()

    made = together(enter, 4)
    assert made == [None] * 4
    assert most == [1] * 4
    with place:
        assert [item.name for item in place.list("r")] == []


def test_whoever_waits_can_be_stopped() -> None:
    place = Memory()
    place.create()
    with place:
        place.store("backupgw-init-0000", b"another")
    with StopSignal() as stop:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(ResticStopped), PlaceTurn(place).take(stop):
            pass
