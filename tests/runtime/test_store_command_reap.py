"""`backupgw store reap`: what dead writers left is cleared away, and nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from backupgw.kvstore import open_place
from tests.runtime.store_site import Site

DAY = 24 * 3600


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    site = Site(tmp_path, capsys)
    site.add("other")
    return site


def leave(site: Site, place: str, age: float) -> None:
    """Begin to write an item, keep a checkpoint, and never come back."""
    before = {*site.tree(place)}
    with open_place(f"file://{site.folder}/{place}") as backend:
        writer = backend.open_writer("folder/item")
        writer.write(b"a part")
        writer.checkpoint()
    then = time.time() - age
    for name in {*site.tree(place)} - before:
        os.utime(site.folder / place / name, (then, then))


def test_all_places_of_the_settings(site: Site) -> None:
    for place in ("main", "other"):
        site.write(f"{place}/folder/kept", b"value")
        leave(site, place, 15 * DAY)
        assert len(site.tree(place)) == 2, "something was left"
    status, out, _ = site.run("reap")
    assert (status, out) == (0, "main: 1 removed\nother: 1 removed\n")
    for place in ("main", "other"):
        assert site.tree(place) == {"folder/kept": b"value"}


def test_writers_at_work_are_left_alone(site: Site) -> None:
    leave(site, "main", 15 * DAY)
    leave(site, "main", 13 * DAY)
    assert site.run("reap", "main", "--older-than", "20 days")[1] == "main: 0 removed\n"
    assert site.run("reap", "main", "--older-than", "1 h")[1] == "main: 1 removed\n"
    assert len(site.tree("main")) == 1
    assert "3600" in site.refused("reap", "main", "--older-than", "5 min")


def test_a_place_that_fails_stops_no_other(site: Site) -> None:
    site.add("gone", exists=False)
    leave(site, "other", 15 * DAY)
    status, out, err = site.run("reap")
    assert status == 3
    assert out == "main: 0 removed\nother: 1 removed\n"
    assert "gone" in err
    status, out, _ = site.run("reap", "--json", "gone", "main")
    told = json.loads(out)
    assert (status, told["removed"], [*told["failed"]]) == (3, {"main": 0}, ["gone"])
    assert site.run("reap", "gone")[0] == 1


def test_what_is_in_a_place_is_none(site: Site) -> None:
    assert "name the place alone" in site.refused("reap", "main:folder")
