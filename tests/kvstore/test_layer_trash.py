"""What is deleted or replaced stays in the place, and nobody but the operator reaches it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupgw.kvstore.backends.base import Backend, Capabilities, Writer
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.layers.trash import TrashLayer, from_options, on_behalf_of
from backupgw.kvstore.layers.trash_contents import Trash
from backupgw.kvstore.layers.trash_names import MOST_NAME_BYTES, How, path_for, read_path
from backupgw.kvstore.names import InvalidName

MONTH = 30 * 86_400.0


class Plain(Layer):
    """A place whose writers keep nothing by themselves, and that moves by copying."""

    moves = False
    broken = ""
    """An operation that fails, once."""

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # as Layer's
        return dataclasses.replace(super().capabilities, move=self.moves)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        return PlainWriter(writer, self)

    def move_if_absent(self, name: str, new_name: str) -> None:
        if self.broken == "move" and not new_name.startswith(".backupgw"):
            self.broken = ""
            raise BackendConnectionError("the line broke")
        Backend.move_if_absent(self, name, new_name)


class PlainWriter(Writer):
    def __init__(self, writer: Writer, place: Plain) -> None:
        self._writer = writer
        self._place = place
        self._commits = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)

    def check(self) -> None:
        self._writer.check()

    def commit(self) -> None:
        self._commits += 1
        if self._place.broken == "commit" and self._commits == 2:
            raise BackendConnectionError("the line broke")
        self._writer.commit()

    def abort(self) -> None:
        self._writer.abort()


def _disk(folder: Path) -> Backend:
    return PosixFS(str(folder / "store"), durability="fast")


def _memory(_: Path) -> Backend:
    return Memory()


def _plain(folder: Path) -> Backend:
    return Plain(_disk(folder))


def _plain_moving(folder: Path) -> Backend:
    place = Plain(_disk(folder))
    place.moves = True
    return place


@pytest.fixture(params=[_disk, _memory, _plain, _plain_moving])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrashLayer]:
    place = TrashLayer(request.param(tmp_path), MONTH)
    place.create()
    with place:
        yield place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[TrashLayer]:
    place = TrashLayer(_disk(tmp_path), MONTH)
    place.create()
    with place:
        yield place


def kept(place: TrashLayer, prefix: str = "") -> list[tuple[str, str, bytes]]:
    """Return (name, how, value) of all that is in the trash, in the order of time."""
    entries = sorted(Trash(place).entries(prefix), key=lambda entry: entry.when)
    return [(entry.name, entry.how, place.inner.load(entry.path)) for entry in entries]


class TestKeeping:
    def test_what_is_deleted_can_be_had_back(self, place: TrashLayer) -> None:
        place.store("repo/data/a", b"value")
        with on_behalf_of("alice@example.org"):
            place.delete("repo/data/a")
        assert not place.info("repo/data/a").exists
        assert list(place.list("repo/data")) == []
        (entry,) = Trash(place).entries()
        assert (entry.name, entry.size, entry.how) == ("repo/data/a", 5, How.DELETED)
        assert entry.who == "alice@example.org"
        assert MONTH <= entry.until - entry.when <= MONTH + 86_400 + 1
        Trash(place).restore(entry)
        assert place.load("repo/data/a") == b"value"
        assert list(Trash(place).entries()) == []

    def test_what_is_written_over_is_kept(self, place: TrashLayer) -> None:
        for value in (b"one", b"two", b"three"):
            place.store("item", value)
        assert place.load("item") == b"three"
        assert kept(place) == [("item", "r", b"one"), ("item", "r", b"two")]

    def test_what_is_moved_over_is_kept(self, place: TrashLayer) -> None:
        place.store("old", b"old")
        place.store("new", b"new")
        place.move("new", "old")
        assert place.load("old") == b"new"
        assert not place.info("new").exists
        assert kept(place) == [("old", "r", b"old")]

    def test_what_is_copied_or_defragmented_over_is_kept(self, place: TrashLayer) -> None:
        place.store("old", b"old")
        place.store("new", b"new")
        place.copy("new", "old")
        place.defrag([("new", 0, 2)], "old")
        assert place.load("old") == b"ne"
        assert kept(place) == [("old", "r", b"old"), ("old", "r", b"new")]

    def test_a_refused_or_aborted_write_leaves_all_as_it_was(self, place: TrashLayer) -> None:
        place.store("item", b"value")
        with pytest.raises(ObjectExists), place.open_writer("item", if_absent=True) as writer:
            writer.write(b"other")
        place.open_writer("item").abort()
        assert place.load("item") == b"value"
        assert kept(place) == []

    def test_a_resumed_write_keeps_what_it_replaces(self, disk: TrashLayer) -> None:
        disk.store("item", b"old")
        writer = disk.open_writer("item")
        writer.write(b"ne")
        with disk.resume_writer(writer.checkpoint()) as writer:
            writer.write(b"w")
        assert disk.load("item") == b"new"
        assert kept(disk) == [("item", "r", b"old")]
        writer = disk.open_writer("repo/locks/lock")
        with disk.resume_writer(writer.checkpoint()) as writer:
            writer.write(b"lock")
        with pytest.raises(ValueError, match="not a token"):
            disk.resume_writer('["no", "token"]')

    def test_readers_never_miss_an_item_that_is_written_over(self, disk: TrashLayer) -> None:
        disk.store("item", b"0")
        ended = threading.Event()
        missed: list[BaseException] = []

        def read() -> None:
            while not ended.is_set():
                try:
                    disk.load("item")
                except BackendError as error:
                    missed.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(300):
            disk.store("item", str(number).encode())
        ended.set()
        reader.join()
        assert missed == []
        assert len(kept(disk)) == 300

    def test_of_many_who_write_over_one_item_no_value_is_lost(self, place: TrashLayer) -> None:
        values = {f"{thread}-{number}".encode() for thread in range(4) for number in range(20)}

        def write(thread: int) -> None:
            for number in range(20):
                place.store("item", f"{thread}-{number}".encode())

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        found = [value for _, _, value in kept(place)] + [place.load("item")]
        assert set(found) == values

    @pytest.mark.parametrize("half", ["commit", "move"])
    def test_a_place_that_fails_half_way_has_the_old_value(self, tmp_path: Path, half: str) -> None:
        inner = Plain(_disk(tmp_path))
        place = TrashLayer(inner, MONTH)
        place.create()
        with place:
            place.store("item", b"old")
            place.store("other", b"other")
            if half == "commit":
                inner.broken = half
                with pytest.raises(BackendConnectionError):
                    place.store("item", b"new")
            else:
                place._take("item", path_for("item", when=0, until=9, how=How.DELETED, who=""))
                place.store("item", b"old")
                Trash(place).empty(force=True)
                inner.broken = half
                with pytest.raises(BackendConnectionError):
                    place.move("other", "item")
            inner.broken = ""
            assert place.load("item") == b"old"
            assert place.load("other") == b"other"

    def test_folders_come_and_go_as_without_a_trash(self, place: TrashLayer) -> None:
        place.store("folder/item", b"value")
        with pytest.raises(BackendError, match="empty"):
            place.rmdir("folder")
        place.delete("folder/item")
        place.rmdir("folder")
        with pytest.raises(ObjectNotFound):
            place.delete("folder")
        Trash(place).restore_name("folder/item")
        assert place.load("folder/item") == b"value"


class TestLimitsOfClients:
    def test_no_name_leads_into_the_trash(self, place: TrashLayer) -> None:
        place.store("item", b"value")
        place.delete("item")
        (entry,) = Trash(place).entries()
        path = str(entry.path)
        place.store("other", b"other")
        for name in (path, ".backupgw-trash", ".backupgw-trash/clock", f"{path}/x"):
            for call in (
                lambda name=name: place.delete(name),
                lambda name=name: place.load(name),
                lambda name=name: place.move(name, "mine"),
                lambda name=name: place.move("other", name),
                lambda name=name: place.move_if_absent(name, "mine"),
                lambda name=name: place.copy(name, "mine"),
                lambda name=name: place.store(name, b"x"),
                lambda name=name: place.rmdir(name),
                lambda name=name: next(place.list(name), None),
                lambda name=name: place.info(name),
                lambda name=name: place.quarantine(name),
            ):
                with pytest.raises(InvalidName):
                    call()
        assert [info.name for info in place.list("")] == ["other"]
        assert kept(place) == [("item", "d", b"value")]

    def test_locks_bypass_it_and_offer_no_way_around_it(self, place: TrashLayer) -> None:
        place.store("repo/locks/lock", b"lock")
        place.store("repo/locks/lock", b"lock again")
        place.delete("repo/locks/lock")
        place.store("repo/data/pack", b"pack")
        for move in (place.move, place.move_if_absent):
            with pytest.raises(PermissionDenied, match="would not keep it"):
                move("repo/data/pack", "repo/locks/pack")
        assert kept(place) == []
        assert place.load("repo/data/pack") == b"pack"

    def test_destroying_the_place_needs_leave(self, tmp_path: Path) -> None:
        place = TrashLayer(_disk(tmp_path), MONTH)
        place.create()
        with pytest.raises(PermissionDenied, match="may_destroy"):
            place.destroy()
        TrashLayer(_disk(tmp_path), MONTH, may_destroy=True).destroy()
        assert not (tmp_path / "store").exists()

    def test_an_item_set_aside_as_damaged_stays_where_that_puts_it(self, disk: TrashLayer) -> None:
        disk.store("item", b"damaged")
        assert "quarantine" in disk.quarantine("item")
        assert kept(disk) == []


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "n" * 255,
            "é" * 127 + "x",
            f"{'d' * 255}/{'n' * 255}",
            "a~1795184185820029~d5a931dac9bce2001~who",
            "~",
            "folder~/~1~d0000000000000000~/~",
            "new\nline",
            "日本語",
            "/".join(["d"] * 800),
        ],
    )
    def test_every_name_comes_back(self, place: TrashLayer, name: str) -> None:
        place.store(name, b"value")
        place.delete(name)
        assert kept(place) == [(name, "d", b"value")]
        assert Trash(place).restore_name(name).name == name
        assert place.load(name) == b"value"

    @pytest.mark.parametrize("who", ["", "a/b~c%", "日本語" * 30, "x" * 200, "\udc80", "~~"])
    def test_whoever_it_was_fits_into_the_name(self, place: TrashLayer, who: str) -> None:
        place.store("item", b"value")
        with on_behalf_of(who):
            place.delete("item")
        (entry,) = Trash(place).entries()
        assert entry.name == "item"
        assert who.startswith(entry.who) or entry.who == "?"

    def test_a_name_too_long_to_be_kept_is_refused_when_it_is_written(
        self, disk: TrashLayer
    ) -> None:
        longest = "/".join(["d" * 250] * 16)[:MOST_NAME_BYTES]
        disk.store(longest, b"value")
        disk.delete(longest)
        assert kept(disk) == [(longest, "d", b"value")]
        disk.store("item", b"value")
        with pytest.raises(BackendError, match=f"at most {MOST_NAME_BYTES} bytes"):
            disk.store(longest + "xx", b"value")
        with pytest.raises(BackendError, match=f"at most {MOST_NAME_BYTES} bytes"):
            disk.move("item", longest + "xx")

    @given(
        name=st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60)
        ),
        who=st.text(),
        when=st.integers(0, 4_000_000_000),
    )
    def test_what_was_written_into_a_name_is_read_from_it(
        self, name: list[str], who: str, when: int
    ) -> None:
        path = "/".join(["repo", *name])
        kept = path_for(path, when=when, until=when + 0.5, how=How.DELETED, who=who)
        found = read_path(kept)
        assert found is not None
        assert (found.name, found.when, found.until) == (path, when, when + 1)
        assert all(len(segment.encode()) <= 255 for segment in kept.split("/"))
        assert len(kept.encode()) - len(path.encode()) <= 120

    def test_only_what_the_trash_wrote_is_read_as_its_own(self) -> None:
        path = path_for("a/b", when=1.5, until=86_400, how=How.REPLACED, who="me")
        found = read_path(path)
        assert found is not None
        assert (found.name, found.when, found.until, found.who) == ("a/b", 1.5, 86_400, "me")
        for strange in ("", "a", ".backupgw-trash/clock", ".backupgw-trash/19700102T000000Z/a/b"):
            assert read_path(strange) is None
        assert read_path(path.replace("Z/", "X/")) is None
        assert read_path(path.replace("-trash", "-quarantine")) is None


class TestSettings:
    def test_options_are_read_as_people_write_them(self) -> None:
        place = from_options(Memory(), keep="2 weeks", bypass=["tmp/*"], may_destroy="true")
        place.create()
        with place:
            place.store("tmp/a/b", b"x")
            place.delete("tmp/a/b")
            place.store("locks/a", b"x")
            place.delete("locks/a")
            assert [entry.name for entry in Trash(place).entries()] == ["locks/a"]
        assert place.keep == 14 * 86_400
        place.destroy()

    @pytest.mark.parametrize(
        ("option", "value"), [("keep", "0"), ("keep", "soon"), ("bypass", [1]), ("bypass", 7)]
    )
    def test_a_wrong_option_is_named(self, option: str, value: object) -> None:
        with pytest.raises(OptionInvalid, match=option):
            from_options(Memory(), **{option: value})

    def test_a_place_without_a_trash_says_so(self) -> None:
        with pytest.raises(UnsupportedOperation, match="no trash"):
            Trash(Memory())
