"""A read-only place is read as before and changed by nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import PermissionDenied
from backupgw.kvstore.names import InvalidName
from backupgw.kvstore.registry import open_place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with open_place(f"file://{tmp_path}/place", durability="fast") as place:
        place.store("folder/item", b"value")
        place.mkdir("empty")
        token = place.open_writer("unfinished").checkpoint()
        (tmp_path / "token").write_text(token)
    return tmp_path / "place"


@pytest.fixture(autouse=True)
def _made(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()


def everything(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


CHANGES: dict[str, Callable[[Backend], object]] = {
    "mkdir": lambda place: place.mkdir("new"),
    "mkdirs": lambda place: place.mkdirs(["new"]),
    "rmdir": lambda place: place.rmdir("empty"),
    "open_writer": lambda place: place.open_writer("new"),
    "store": lambda place: place.store("folder/item", b"other"),
    "delete": lambda place: place.delete("folder/item"),
    "move": lambda place: place.move("folder/item", "new"),
    "move_if_absent": lambda place: place.move_if_absent("folder/item", "new"),
    "copy": lambda place: place.copy("folder/item", "new"),
    "defrag": lambda place: place.defrag([("folder/item", 0, 1)], "new"),
    "quarantine": lambda place: place.quarantine("folder/item"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_refused(folder: Path, change: Callable[[Backend], object]) -> None:
    before = everything(folder)
    with open_place(f"file://{folder}", layers=["readonly"]) as place:
        with pytest.raises(PermissionDenied, match="this place is read-only"):
            change(place)
        assert place.reap(0) == 0
    assert everything(folder) == before


def test_checkpoints_of_others_are_left_alone(folder: Path) -> None:
    token = (folder.parent / "token").read_text()
    with open_place(f"file://{folder}", layers=["readonly"]) as place:
        with pytest.raises(PermissionDenied):
            place.resume_writer(token)
        with pytest.raises(PermissionDenied):
            place.abort_writer(token)
    with open_place(f"file://{folder}", durability="fast") as writable:
        writable.resume_writer(token).commit()
        assert writable.load("unfinished") == b""


def test_the_place_is_neither_made_nor_removed(folder: Path) -> None:
    place = open_place(f"file://{folder}", layers=["readonly"])
    for change in (place.create, place.destroy):
        with pytest.raises(PermissionDenied):
            change()
    assert (folder / "folder" / "item").read_bytes() == b"value"


def test_reading_goes_on(folder: Path) -> None:
    with open_place(f"file://{folder}", layers=["readonly"]) as place:
        assert place.load("folder/item") == b"value"
        assert place.info("folder/item").size == 5
        assert {info.name for info in place.list("")} == {"folder", "empty"}
        assert place.gather([("folder/item", 1, 2)]) == b"al"
        assert place.hash("folder/item").startswith("cd42404d52ad55cc")
        place.sync("folder/item")
        with pytest.raises(InvalidName):
            place.delete("../item")
