"""Making the places of a mirror the same again: after damage, a crash, a lost disk or journal."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.kvstore.failing_place import gone
from tests.kvstore.mirror_places import Site, opened

from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers import mirror_keeper
from backupgw.kvstore.layers.mirror import MirrorLayer
from backupgw.kvstore.layers.mirror_keeper import Keeper
from backupgw.kvstore.layers.mirror_places import State
from backupgw.kvstore.layers.mirror_repair import Compare, Extras


def named(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def test_the_copy_that_is_what_its_name_says_is_right(tmp_path: Path) -> None:
    value = b"value" * 100_000
    name = f"data/{named(value)}"
    with opened(tmp_path) as site:
        site.mirror.store(name, value)
        (site.folders[0] / name).write_bytes(b"x" + value[1:])
        assert site.mirror.repair().whole, "of the same size: only a look at the content tells"
        report = site.mirror.repair(compare=Compare.CONTENT)
        assert report.replaced.names == [name]
        assert site.same()[name] == value
        kept = [*(site.folders[0] / ".backupgw-quarantine" / "data").iterdir()]
        assert [path.read_bytes()[:1] for path in kept] == [b"x"], "what was damaged is kept aside"


def test_two_of_three_are_right(tmp_path: Path) -> None:
    with opened(tmp_path, 3) as site:
        site.mirror.store("config", b"right")
        (site.folders[1] / "config").write_bytes(b"wrong")
        report = site.mirror.repair(compare=Compare.CONTENT)
        assert report.replaced.names == ["config"]
        assert site.same() == {"config": b"right"}


def test_two_that_differ_are_left_to_the_operator(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("config", b"right")
        (site.folders[0] / "config").write_bytes(b"other")
        before = site.trees()
        report = site.mirror.repair(compare=Compare.CONTENT)
        assert report.undecided.names == ["config"]
        assert not report.whole
        assert site.trees() == before


def test_whatever_one_place_lost_is_copied(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        for number in range(1200):
            site.mirror.store(f"data/{number % 3}/{number:04}", b"%d" % number)
        whole = site.same()
        shutil.rmtree(site.folders[0] / "data" / "1")
        for number in range(0, 1200, 30):
            (site.folders[1] / f"data/{number % 3}/{number:04}").unlink()
        report = site.mirror.repair()
        assert report.copied.count == 400 + 40
        assert report.whole
        assert site.same() == whole
        again = site.mirror.repair()
        assert (again.copied.count, again.checked) == (0, 1200)


def test_an_unmounted_disk_is_not_taken_for_an_empty_place(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.mirror.create()
    with site.mirror:
        site.mirror.store("item", b"value")
    mounted = tmp_path / "mounted"
    site.folders[0].rename(mounted)
    site.folders[0].mkdir()  # the mount point, empty
    with site.mirror:
        assert site.mirror.status()[0].state is State.DOWN
        assert "is its disk mounted?" in site.mirror.status()[0].reason
        assert [info.name for info in site.mirror.list("")] == ["item"]
        site.mirror.store("new", b"new")
        assert [*site.folders[0].iterdir()] == [], "the mount point was written to"
        site.folders[0].rmdir()
        mounted.rename(site.folders[0])
        site.mirror.replay()
        assert site.same() == {"item": b"value", "new": b"new"}


def test_a_replaced_disk_is_filled_when_it_is_adopted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.mirror.create()
    with site.mirror:
        site.mirror.store("folder/item", b"value")
    shutil.rmtree(site.folders[0])
    site.folders[0].mkdir()
    (site.folders[0] / "strange").write_bytes(b"was on the new disk")
    with site.mirror:
        report = site.mirror.adopt(1)
        assert report.extra.names == ["strange"]
        assert [info.name for info in site.mirror.list("")] == ["folder"]
        assert not site.mirror.status()[0].trusted
        assert site.mirror.repair(extras=Extras.REMOVE).removed.names == ["strange"]
        assert site.same() == {"folder": b"<folder>", "folder/item": b"value"}
        assert site.mirror.status()[0].trusted


def test_what_a_new_place_holds_can_be_taken_over(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("item", b"x")
    (tmp_path / "place3").mkdir()
    (tmp_path / "place3" / "extra").write_bytes(b"y")
    grown = Site(tmp_path, 3)
    with grown.mirror:
        copied = grown.mirror.repair(extras=Extras.COPY).copied.names
        assert copied.count("extra") == 2
        assert grown.same() == {"item": b"x", "extra": b"y"}
        assert grown.mirror.load("extra") == b"y"


def test_swapped_places_are_told_apart(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.mirror.create()
    other = Site(tmp_path / "other")
    other.mirror.create()
    shutil.rmtree(site.folders[1])
    other.folders[1].rename(site.folders[1])
    with site.mirror:
        status = site.mirror.status()[1]
        assert status.state is State.DOWN
        assert "marked as place 2 of the mirror" in status.reason
    with pytest.raises(BackendError):
        site.mirror.create()


def test_a_new_place_at_the_end_is_filled_by_itself(tmp_path: Path) -> None:
    with opened(tmp_path, 2) as site:
        site.mirror.store("folder/item", b"value")
    grown = Site(tmp_path, 3)
    with grown.mirror:
        grown.mirror.store("new", b"new")
        grown.mirror.replay()
        grown.mirror.repair()
        assert grown.mirror.status()[2].trusted
        assert len(grown.same()) == 3


def test_a_place_full_of_items_becomes_a_mirror(tmp_path: Path) -> None:
    first = PosixFS(str(tmp_path / "place1"))
    first.create()
    with first:
        first.store("folder/item", b"value")
    site = Site(tmp_path)
    with site.mirror:
        assert site.mirror.load("folder/item") == b"value"
        site.mirror.repair()
        assert site.same() == {"folder": b"<folder>", "folder/item": b"value"}


def test_without_its_journal_nothing_is_lost(tmp_path: Path) -> None:
    """Deleted items may come back then, but none that was stored is missing."""
    with opened(tmp_path) as site:
        site.mirror.store("both", b"x")
        site.places[0].error = gone
        site.mirror.store("missed", b"y")
    for path in site.journal.parent.iterdir():
        path.unlink()
    site.places[0].error = None
    with site.mirror:
        assert site.mirror.load("missed") == b"y"
        site.mirror.repair()
        assert site.same() == {"both": b"x", "missed": b"y"}


def test_a_second_machine_takes_the_mirror_over_and_the_first_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write by journals of their own would each believe what the other has changed."""
    monkeypatch.setattr(mirror_keeper, "INTERVAL", 0.1)
    with opened(tmp_path) as first:
        first.mirror.store("item", b"x")
        second = Site(tmp_path)
        second.mirror = MirrorLayer(
            second.places[0], second.places[1:], str(tmp_path / "elsewhere/mirror.sqlite3")
        )
        with second.mirror:
            first.wait_for(1, State.DOWN)
            first.wait_for(2, State.DOWN)
            assert "taken over by a newer journal" in first.mirror.status()[0].reason
            with pytest.raises(BackendError):
                first.mirror.store("item", b"of the first")
            second.mirror.store("item", b"of the second")
            assert second.same() == {"item": b"of the second"}
    with pytest.raises(BackendError, match="this one's journal is the older, move it away"):
        first.mirror.open()
    for path in first.journal.parent.iterdir():
        path.unlink()
    with first.mirror:
        assert first.mirror.load("item") == b"of the second"


@pytest.mark.parametrize("marked", [0, 1, 2])
def test_a_takeover_that_was_broken_off_is_carried_on(tmp_path: Path, marked: int) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("item", b"x")
    for path in site.journal.parent.iterdir():
        path.unlink()
    for place in site.places[marked:]:
        place.before_commit = _broken_off
    with pytest.raises(RuntimeError) if marked < 2 else contextlib.nullcontext():
        site.mirror.open()
    if marked == 2:
        site.mirror.close()
    for place in site.places:
        place.before_commit = lambda name: None
    with site.mirror:
        assert all(status.state is State.UP for status in site.mirror.status())
        assert site.mirror.load("item") == b"x"


def _broken_off(name: str) -> None:
    raise RuntimeError("the process ends here")


def test_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("item", b"x")
    for path in site.journal.parent.iterdir():
        path.write_bytes(b"no database" * 1000)
    with pytest.raises(BackendError, match="moved away, all places are compared"):
        site.mirror.open()


def test_it_opens_with_one_place_gone_and_not_with_both(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.mirror.create()
    site.places[0].error = gone
    with site.mirror:
        site.mirror.store("item", b"x")
        site.places[0].error = None
        site.mirror.replay()
        assert site.same() == {"item": b"x"}
    for place in site.places:
        place.error = gone
    with pytest.raises(BackendConnectionError):
        site.mirror.open()
    for place in site.places:
        place.error = None
    with site.mirror:
        assert site.mirror.load("item") == b"x"


def _write_and_die(folder: str, dying: int) -> None:
    site = Site(Path(folder))
    site.places[dying].before_commit = lambda name: os._exit(9) if name == "victim" else None
    site.mirror.open()
    site.mirror.store("victim", b"new" * 1000)


@pytest.mark.parametrize("dying", [0, 1])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_killed_writer_leaves_the_places_the_same(
    tmp_path: Path, dying: int, old: bytes | None
) -> None:
    """Killed while one place had it and the other not yet: both end with one of the two."""
    site = Site(tmp_path)
    site.mirror.create()
    with site.mirror:
        if old is not None:
            site.mirror.store("victim", old)
    process = multiprocessing.get_context("spawn").Process(
        target=_write_and_die, args=(str(tmp_path), dying), daemon=True
    )
    process.start()
    process.join(60)
    assert process.exitcode == 9
    with site.mirror:
        site.mirror.repair(compare=Compare.CONTENT)
        found = site.same().get("victim")
        assert found in (old, b"new" * 1000)
        assert site.mirror.info("victim").exists is (found is not None)


def _write_many(folder: str, number: int) -> None:
    with Site(Path(folder)).mirror as mirror:
        for turn in range(40):
            mirror.store(f"shared/{turn % 10}", b"%d" % number * (number + 1) * 1000)
            mirror.store(f"own{number}/{turn}", b"x")


def test_several_processes_share_a_mirror(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.mirror.create()
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write_many, args=(str(tmp_path), n), daemon=True) for n in range(3)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join(120)
        assert process.exitcode == 0
    with site.mirror:
        found = site.same()
        assert len([name for name in found if name.startswith("own")]) == 3 * 41
        assert site.missed() == [0, 0]


def test_the_end_that_comes_just_before_a_round_is_not_missed() -> None:
    nothing: Any = SimpleNamespace(
        places=[], stopped=False, resolve_intents=lambda: None, unsure=lambda: False
    )
    keeper = Keeper(nothing, nothing, lambda: None)

    class Early(threading.Event):
        """Whoever clears it is overtaken by who sets it."""

        def clear(self) -> None:
            keeper._stop.set()
            self.set()
            super().clear()

    keeper._wake = Early()
    keeper.start()
    keeper._thread.join(10)
    assert not keeper._thread.is_alive()
