"""Permissions are borgstore's, letter by letter; the real borgstore is asked as well."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from borgstore.backends import errors as borgstore_errors  # type: ignore[import-untyped]
from borgstore.backends.posixfs import PosixFS as BorgPosixFS  # type: ignore[import-untyped]

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound, PermissionDenied
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.permissions import PRESETS, PermissionsLayer
from backupgw.kvstore.layers.stack import LayerInvalid
from backupgw.kvstore.registry import open_place

LETTERS = ["".join(some) for n in range(6) for some in itertools.combinations("lrwWD", n)]
RULES: list[dict[str, str]] = [
    *({"": letters} for letters in LETTERS),
    {"": "l", "dir": "lrw", "dir/file": "r"},
    {"": "lrwWD", "dir": ""},
    {"dir": "lrwWD"},
    {"": "r", "dir/file": "lwD"},
    {"dir/file": "lrwWD", "new": "w"},
]
OPERATIONS: dict[str, Callable[[Any], object]] = {
    "list root": lambda place: [*place.list("")],
    "list dir": lambda place: [*place.list("dir")],
    "info": lambda place: place.info("dir/file"),
    "info of nothing": lambda place: place.info("dir/nothing"),
    "load": lambda place: place.load("dir/file"),
    "load at the root": lambda place: place.load("top"),
    "store new": lambda place: place.store("dir/new", b"value"),
    "store new at the root": lambda place: place.store("new", b"value"),
    "replace": lambda place: place.store("dir/file", b"value"),
    "delete": lambda place: place.delete("dir/file"),
    "delete at the root": lambda place: place.delete("top"),
    "move to a new name": lambda place: place.move("dir/file", "dir/new"),
    "move over an item": lambda place: place.move("dir/file", "dir/other"),
    "move out": lambda place: place.move("dir/file", "new"),
    "mkdir": lambda place: place.mkdir("dir/folder"),
    "rmdir": lambda place: place.rmdir("dir/empty"),
    "hash": lambda place: place.hash("dir/file"),
}


def filled(folder: Path) -> str:
    place = PosixFS(str(folder), durability="fast")
    place.create()
    with place:
        for name in ("dir/file", "dir/other", "top"):
            place.store(name, b"content")
        place.mkdir("dir/empty")
    return str(folder)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_is_allowed_as_by_borgstore(tmp_path: Path, operation: str) -> None:
    call = OPERATIONS[operation]
    allowed = 0
    for number, rules in enumerate(RULES):
        theirs: Any = BorgPosixFS(filled(tmp_path / f"theirs{number}"), permissions=rules)
        theirs.open()
        try:
            call(theirs)
            expected = True
        except borgstore_errors.PermissionDenied:
            expected = False
        with PermissionsLayer(PosixFS(filled(tmp_path / f"ours{number}")), rules) as ours:
            try:
                call(ours)
                got = True
            except PermissionDenied:
                got = False
        assert got is expected, f"{operation} with {rules}"
        allowed += got
    assert 0 < allowed < len(RULES)


@pytest.mark.parametrize(
    ("rules", "may_create", "may_destroy"),
    [
        ({"": "w"}, True, False),
        ({"": "W"}, True, False),
        ({"": "D"}, False, True),
        ({}, False, False),
    ],
)
def test_making_and_removing_the_place(
    tmp_path: Path, rules: dict[str, str], may_create: bool, may_destroy: bool
) -> None:
    place = PermissionsLayer(PosixFS(str(tmp_path / "place")), rules)
    attempts = [(place.create, may_create), (place.destroy, may_destroy)]
    if may_destroy:
        (tmp_path / "place").mkdir()
    for attempt, allowed in attempts:
        if allowed:
            attempt()
        else:
            with pytest.raises(PermissionDenied, match="needs permission"):
                attempt()


@pytest.fixture
def only_new(tmp_path: Path) -> Iterator[Backend]:
    with PermissionsLayer(PosixFS(filled(tmp_path / "place")), {"": "lrwD"}) as place:
        yield place


def test_with_w_alone_nothing_is_ever_replaced(only_new: Backend) -> None:
    with pytest.raises(PermissionDenied, match=r"needs permission W to replace 'dir/file'"):
        only_new.store("dir/file", b"mine")
    with pytest.raises(PermissionDenied):
        only_new.copy("top", "dir/file")
    with pytest.raises(PermissionDenied):
        only_new.defrag([("top", 0, 3)], "dir/file")
    with pytest.raises(PermissionDenied):
        only_new.move("top", "dir/file")
    with pytest.raises(ObjectExists):
        only_new.move_if_absent("top", "dir/file")
    with pytest.raises(ObjectExists), only_new.open_writer("dir/file", if_absent=True):
        pass
    assert only_new.load("dir/file") == b"content"
    assert only_new.load("top") == b"content"


def test_an_item_that_came_meanwhile_is_not_replaced_either(only_new: Backend) -> None:
    early, late = only_new.open_writer("new"), only_new.open_writer("new")
    early.write(b"early")
    late.write(b"late")
    early.commit()
    with pytest.raises(PermissionDenied):
        late.commit()
    late.abort()
    assert only_new.load("new") == b"early"


def test_of_many_writers_with_w_alone_one_wins(only_new: Backend) -> None:
    outcomes: list[bool] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            if number % 2:
                only_new.store("new", b"stored")
            else:
                only_new.store(f"mine{number}", b"moved")
                only_new.move(f"mine{number}", "new")
            outcomes.append(True)
        except PermissionDenied:
            outcomes.append(False)

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_a_checkpoint_does_not_widen_what_is_allowed(tmp_path: Path) -> None:
    disk = filled(tmp_path / "place")
    with PermissionsLayer(PosixFS(disk), {"": "lrW"}) as may_replace:
        token = may_replace.open_writer("dir/file").checkpoint()
    with PermissionsLayer(PosixFS(disk), {"": "lrw"}) as may_not:
        with pytest.raises(PermissionDenied, match="begin anew"):
            may_not.resume_writer(token)
        own = may_not.open_writer("dir/file").checkpoint()
        with pytest.raises(PermissionDenied, match="to replace"):
            may_not.resume_writer(own).commit()
        for wrong in ("", "[]", '["../x", true, true, "t"]', "no json"):
            with pytest.raises(ValueError):
                may_not.resume_writer(wrong)
    with PermissionsLayer(PosixFS(disk), {"": "lr"}) as reader, pytest.raises(PermissionDenied):
        reader.abort_writer(own)


def test_all_sources_are_checked_before_any_is_read(tmp_path: Path) -> None:
    rules = {"": "lrwW", "dir/other": "l"}
    with PermissionsLayer(PosixFS(filled(tmp_path / "place")), rules) as place:
        for call in (
            lambda: place.gather([("top", 0, 1), ("dir/other", 0, 1)]),
            lambda: place.defrag([("top", 0, 1), ("dir/other", 0, 1)], "new"),
            lambda: place.copy("dir/other", "new"),
            lambda: place.open_reader_nowait("dir/other"),
        ):
            with pytest.raises(PermissionDenied, match="dir/other"):
                call()
        assert not place.info("new").exists


PACKS: dict[str, Callable[[Backend], object]] = {
    "add": lambda place: place.store("packs/new", b""),
    "replace": lambda place: place.store("packs/new", b"other"),
    "read": lambda place: place.load("packs/new"),
    "delete": lambda place: place.delete("packs/new"),
}
ALLOWED = {
    "borgbackup-all": {"add", "replace", "read", "delete"},
    "borgbackup-no-delete": {"add", "read"},
    "borgbackup-write-only": {"add"},
    "borgbackup-read-only": {"read"},
}


def permitted(call: Callable[[Backend], object], place: Backend) -> bool:
    try:
        call(place)
    except PermissionDenied:
        return False
    except ObjectNotFound:
        return True  # nothing is there, and that was told
    return True


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_let_borg_lock_and_read(tmp_path: Path, preset: str) -> None:
    layers = [{"layer": "permissions", "preset": preset}]
    (tmp_path / "place").mkdir()
    with open_place(f"file://{tmp_path}/place", layers=layers) as place:
        place.store("locks/mine", b"")
        place.delete("locks/mine")
        allowed = {kind for kind, call in PACKS.items() if permitted(call, place)}
    assert allowed == ALLOWED[preset]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "rules: give either"),
        ({"preset": "borgbackup-al"}, "preset: 'borgbackup-al' is none of borgbackup-all"),
        ({"preset": "borgbackup-all", "rules": {"": "l"}}, "preset: give either"),
        ({"rules": "lr"}, "rules: must be a table"),
        ({"rules": {"": "lx"}}, "rules: '' has the letters 'lx'; there are l list"),
        ({"rules": {"../x": "l"}}, "rules: no name can be '../x'"),
        ({"rules": {"x": 7}}, "rules: 'x' has the letters 7"),
    ],
)
def test_wrong_rules_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(LayerInvalid, match=f"layer permissions: {says}"):
        open_place("memory:", layers=[{"layer": "permissions", **options}])
