"""Gateways that are killed while one place comes and goes: nothing acknowledged is lost, nothing
deleted returns, and the places end the same."""

from __future__ import annotations

import multiprocessing
import os
import random
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore.failing_place import FailingPlace, gone
from tests.kvstore.mirror_places import tree

from backupgw.kvstore.backends.errors import BackendConnectionError
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.mirror import MirrorLayer
from backupgw.kvstore.layers.mirror_repair import Compare

NAMES = [f"folder{number % 3}/item{number}" for number in range(25)]


def _mirror(folder: str, bad: int | None, seed: int) -> MirrorLayer:
    places: list[Any] = [PosixFS(f"{folder}/place{n}", durability="fast") for n in (1, 2)]
    if bad is not None:
        dice = random.Random(seed)
        places[bad] = FailingPlace(places[bad])
        meet = places[bad]._meet

        def sometimes(what: str) -> None:
            """Be away for a while, now and then."""
            if dice.random() < 0.03:
                places[bad].error = None if places[bad].error else gone
            meet(what)

        places[bad]._meet = sometimes
    return MirrorLayer(places[0], places[1:], f"{folder}/state/journal", sync=False, patience=10)


def _work(folder: str, bad: int, seed: int, told: Connection) -> None:
    """Change things until killed; tell what begins and what was acknowledged."""
    dice = random.Random(seed)
    mirror = _mirror(folder, bad, seed)
    mirror.open()
    told.send(None)
    while True:
        name = dice.choice(NAMES)
        size = dice.choice([0, 10, 3000, 200_000])
        value = None if dice.random() < 0.3 else dice.randbytes(4) * (size // 4)
        told.send(("begins", name, value))
        try:
            if value is not None:
                mirror.store(name, value)
            elif mirror.info(name).exists:
                mirror.delete(name)
        except BackendConnectionError:
            continue  # the one place that is up has missed this name, and was not put right yet
        told.send(("done", name, value))


def _run(folder: str, seed: int, held: dict[str, set[bytes | None]]) -> int:
    """Let a gateway work, kill it, and write into `held` what each name may hold now."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(folder, seed % 2, seed, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.recv()
    left = random.Random(seed).randrange(5, 120)
    done = 0
    try:
        while left:
            left -= 1
            done += _note(ours.recv(), held)
        assert process.pid is not None
        os.kill(process.pid, 9)
        while True:
            done += _note(ours.recv(), held)
    except (EOFError, OSError):  # the last message may be cut off
        pass
    finally:
        process.join(60)
    assert process.exitcode == -9, "the gateway ended by itself"
    return done


def _note(message: Any, held: dict[str, set[bytes | None]]) -> int:
    what, name, value = message
    if what == "begins":
        held.setdefault(name, {None}).add(value)
        return 0
    held[name] = {value}
    return 1


def _rounds(tmp_path: Path, rounds: int) -> None:
    folder = str(tmp_path)
    _mirror(folder, None, 0).create()
    held: dict[str, set[bytes | None]] = {}
    done = 0
    for seed in range(rounds):
        done += _run(folder, seed, held)
        with _mirror(folder, None, seed) as mirror:
            for name in NAMES:
                found = mirror.load(name) if mirror.info(name).exists else None
                assert found in held.get(name, {None}), f"round {seed}: {name}"
                held[name] = {found}
            if seed % 3 == 2:
                mirror.repair(compare=Compare.CONTENT)
                places = [tree(tmp_path / f"place{number}") for number in (1, 2)]
                assert places[0] == places[1], f"round {seed}"
                items = {n: v for n, v in places[0].items() if v != b"<folder>"}
                assert items == {n: v for n, (v,) in held.items() if v is not None}
    assert done > rounds


def test_killed_gateways_lose_nothing(tmp_path: Path) -> None:
    _rounds(tmp_path, 3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_gateways_lose_nothing_often(tmp_path: Path) -> None:
    _rounds(tmp_path, 60)
