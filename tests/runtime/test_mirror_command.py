"""`backupgw mirror` as an administrator uses it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime import cli
from backupgw.runtime.settings import load
from tests.runtime.test_mirror_watch import tree


class Site:
    """A mirror of two folders on disk, `main` and `disk2`, and the command on it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.one, self.two = folder / "one", folder / "two"
        self.config = folder / "gw.toml"
        self._capture = capture
        self.config.write_text(
            f'[state]\nfolder = "{folder}/state"\n[rest]\nplace = "main"\n'
            f'[places.disk2]\nurl = "file://{self.two}"\ndurability = "fast"\n'
            f'[places.main]\nurl = "file://{self.one}"\ndurability = "fast"\n'
            'layers = ["observe", { layer = "mirror", places = ["disk2"], sync = false }]\n'
        )

    def fill(self, **items: bytes) -> None:
        place = load(self.config).open_place("main")
        place.create()
        with place:
            for name, value in items.items():
                place.store(f"a/{name}", value)

    def run(self, *words: str) -> tuple[int, str, str]:
        """Return (exit status, output, complaints)."""
        status = cli.main(["--config", str(self.config), "mirror", *words])
        out, err = self._capture.readouterr()
        return status, out, err

    def json(self, *words: str) -> tuple[int, Any]:
        status, out, _ = self.run(*words, "--json")
        return status, json.loads(out)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    site = Site(tmp_path, capsys)
    site.fill(x=b"x" * 1000, y=b"y" * 2000)
    return site


def test_a_whole_mirror_is_told_as_one(site: Site) -> None:
    status, answer = site.json("status", "main")
    assert status == 0
    assert answer["quorum"] == 1
    assert [(p["name"], p["state"], p["missed"], p["filled"]) for p in answer["places"]] == [
        ("main", "up", 0, True),
        ("disk2", "up", 0, True),
    ]


def test_status_changes_nothing(site: Site) -> None:
    shutil.rmtree(site.two)
    before = tree(site.one)
    assert site.run("status", "main")[0] == 3
    assert tree(site.one) == before
    assert not site.two.exists()


def test_what_a_place_missed_is_counted_and_repaired(site: Site) -> None:
    away = site.two.rename(site.two.with_name("away"))
    place = load(site.config).open_place("main")
    with place:
        place.store("a/z", b"z")
        place.delete("a/x")
    status, answer = site.json("status", "main")
    assert status == 3
    assert (answer["places"][1]["state"], answer["places"][1]["missed"]) == ("down", 3)

    status, out, err = site.run("repair", "main")
    assert status == 3, "a place that is down is not repaired"
    assert "place 2 (disk2) is down and was left out" in err

    away.rename(site.two)
    status, out, _ = site.run("repair", "main", "--dry-run")
    assert "a/z: would be copied" in out
    assert (site.two / "a/x").exists()
    assert not (site.two / "a/z").exists()

    assert site.run("repair", "main")[0] == 0
    assert tree(site.one) == tree(site.two)
    assert sorted(tree(site.two)) == ["a/y", "a/z"]
    assert site.run("status", "main")[0] == 0


def test_a_repair_looks_as_closely_as_it_is_told(site: Site) -> None:
    name = "0a5c2a4d7a5d9f9c94f1d8d8d7b9e8e9b5a7c1d9a1c0cb54e4c2d2aa3f0e1b11"
    (site.two / "a/y").write_bytes(b"Y" * 2000)
    (site.one / f"a/{name}").write_bytes(b"only here")
    status, answer = site.json("repair", "main", "--compare", "size")
    assert (status, answer["copied"]["names"]) == (0, [f"a/{name}"])
    assert (answer["checked"], answer["checked_bytes"]) == (3, 3009)
    status, answer = site.json("repair", "main", "--compare", "content")
    assert (status, answer["whole"]) == (3, False)
    assert answer["undecided"] == {"count": 1, "names": ["a/y"]}
    assert (site.two / "a/y").read_bytes() == b"Y" * 2000, "left to the operator"


def test_a_dry_run_tells_of_damage_and_leaves_it(site: Site) -> None:
    (site.two / "a/x").write_bytes(b"short")
    (site.two / "a/y").unlink()
    before = tree(site.two)
    status, answer = site.json("repair", "main", "--dry-run")
    assert (answer["copied"]["names"], answer["undecided"]["names"]) == (["a/y"], ["a/x"])
    assert (status, answer["whole"], answer["dry_run"]) == (3, False, True)
    assert tree(site.two) == before


def test_a_replaced_disk_is_adopted(site: Site) -> None:
    shutil.rmtree(site.two)
    status, _, err = site.run("adopt", "main", "disk2")
    assert (status, "is the new disk mounted? --create makes it" in err) == (1, True)
    site.two.mkdir()
    status, out, _ = site.run("status", "main")
    assert "has not got the mirror's mark" in out
    assert site.run("adopt", "main", "disk2", "--dry-run")[0] == 0
    assert tree(site.two) == {}
    status, answer = site.json("adopt", "main", "2")
    assert (status, answer["copied"]["count"]) == (0, 2)
    assert tree(site.two) == tree(site.one)
    assert site.run("status", "main")[0] == 0


def test_a_place_that_is_not_there_is_made_when_told(site: Site) -> None:
    shutil.rmtree(site.two)
    assert site.run("adopt", "main", "2", "--create")[0] == 0
    assert tree(site.two) == tree(site.one)


def test_what_a_disk_held_before_is_not_overwritten_by_an_adoption(site: Site) -> None:
    shutil.rmtree(site.two)
    (site.two / "old").mkdir(parents=True)
    (site.two / "old/item").write_bytes(b"of another time")
    status, answer = site.json("adopt", "main", "2")
    assert (status, answer["extra"]["names"]) == (3, ["old/item"])
    status, answer = site.json("status", "main")
    assert (status, answer["places"][1]["filled"]) == (3, False)
    assert site.run("repair", "main", "--extras", "remove")[0] == 0
    assert tree(site.two) == tree(site.one)
    assert site.run("status", "main")[0] == 0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("adopt", "main", "1"), 1, "carries the mirror's mark already"),
        (("adopt", "main", "3"), 2, "'3' is none of the places of main: 1 (main), 2 (disk2)"),
        (("adopt", "main", "disk9"), 2, "'disk9' is none of the places of main"),
        (("status", "nain"), 2, "there is no [places.nain]; did you mean 'main'?"),
        (("repair", "disk2"), 2, "disk2 is no mirror: it has no layer mirror (mirrors: main)"),
    ],
)
def test_what_cannot_be_is_explained(
    site: Site, words: tuple[str, ...], status: int, says: str
) -> None:
    found, out, err = site.run(*words)
    assert (found, out) == (status, "")
    assert says in err


def test_swapped_disks_are_not_adopted(site: Site) -> None:
    mark = (site.one / ".backupgw-mirror").read_text()
    (site.two / ".backupgw-mirror").write_text(mark)
    status, _, err = site.run("adopt", "main", "2")
    assert status == 1
    assert "is marked as place 1 of the mirror" in err
    assert (site.two / ".backupgw-mirror").read_text() == mark


def test_the_only_whole_place_is_not_filled_from_nothing(site: Site) -> None:
    shutil.rmtree(site.two)
    (site.one / ".backupgw-mirror").unlink()
    status, _, err = site.run("adopt", "main", "1")
    assert status == 1
    assert "no other place of the mirror that holds everything is up" in err
    assert not (site.one / ".backupgw-mirror").exists()


def test_a_dry_run_does_not_begin_a_mirror(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, capsys)
    site.one.mkdir()
    status, _, err = site.run("repair", "main", "--dry-run")
    assert status == 1
    assert "place 1 (main) has never been part of the mirror" in err
    assert os.listdir(site.one) == []
    assert not (tmp_path / "state").exists()
