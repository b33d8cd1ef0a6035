"""A restore's swap: whole or not at all, whatever fails and whenever it dies; nothing elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backupgw.wingsadapter import staging, staging_swap
from backupgw.wingsadapter.staging import Staging, StagingFailed, recover, unfinished
from backupgw.wingsadapter.staging_swap import AREA

from .node_site import tree

_STEPS = ("rename", "mkdir", "fsync", "unlink", "rmdir", "write")


class Crash(BaseException):
    """The process dies here: nothing that it would still have done happens."""


class Faulty:
    """The module os, of which a call of that number raises."""

    def __init__(self, module: Any, number: int, error: BaseException) -> None:
        self._module = module
        self.number = number
        self._error = error
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name not in _STEPS and name != "rmtree":
            return found

        def step(*arguments: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self.number:
                raise self._error
            return found(*arguments, **more)

        return step


def old_files(root: Path) -> None:
    (root / "world/region").mkdir(parents=True)
    (root / "world/region/a").write_text("old a")
    (root / "world/old").write_text("old")
    (root / "config").write_text("old config")
    (root / "kind").write_text("a file")
    (root / "turned").mkdir()
    (root / "turned/x").write_text("in a folder")
    (root / "link").symlink_to("config")


def new_files(target: Path) -> None:
    (target / "world/region").mkdir(parents=True)
    (target / "world/region/a").write_text("new a")
    (target / "world/region/b").write_text("new b")
    (target / "config").write_text("new config")
    (target / "kind").mkdir()
    (target / "kind/y").write_text("in a folder")
    (target / "turned").write_text("a file")
    (target / "link").symlink_to("world")


def names(root: Path) -> dict[str, Any]:
    """What is there but for times and modes."""
    return {
        name: entry[2] if entry[0] == "file" else entry[:1] + entry[1:2] * (entry[0] == "link")
        for name, entry in tree(root).items()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "server"
    found.mkdir()
    old_files(found)
    return found


@pytest.fixture
def results(tmp_path: Path) -> Callable[[bool], dict[str, Any]]:
    """What is to be there after a restore that succeeds."""

    def expected(whole: bool) -> dict[str, Any]:
        folder = tmp_path / f"expected-{whole}"
        folder.mkdir()
        if not whole:
            old_files(folder)
            shutil.rmtree(folder / "turned")
            for name in ("kind", "link"):
                (folder / name).unlink()
        new = tmp_path / f"new-{whole}"
        new.mkdir()
        new_files(new)
        shutil.copytree(new, folder, symlinks=True, dirs_exist_ok=True)
        return names(folder)

    return expected


def restore(root: Path, *, whole: bool) -> None:
    with Staging(str(root), "job-1") as area:
        new_files(Path(area.target))
        area.swap(whole=whole)
        area.discard()


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_new_takes_its_place(
    root: Path, results: Callable[[bool], dict[str, Any]], whole: bool
) -> None:
    inode = root.stat().st_ino
    restore(root, whole=whole)
    assert names(root) == results(whole)
    assert root.stat().st_ino == inode
    assert not unfinished(str(root))


@pytest.mark.parametrize("whole", [True, False])
def test_whatever_fails_all_is_as_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    before = tree(root)
    failed = 0
    number = 0
    while True:
        number += 1
        faulty = Faulty(os, number, OSError(28, "No space left on device"))
        with Staging(str(root)) as area:
            new_files(Path(area.target))
            with monkeypatch.context() as patch:
                for module in (staging, staging_swap):
                    patch.setattr(module, "os", faulty)
                try:
                    area.swap(whole=whole)
                except StagingFailed:
                    failed += 1
                else:
                    break
        assert tree(root) == before, f"step {number}"
    assert failed > 10
    assert number < 200


@pytest.mark.parametrize("whole", [True, False])
def test_whenever_it_dies_it_is_whole_afterwards(
    tmp_path: Path,
    results: Callable[[bool], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,
) -> None:
    """At every step of the restore, and again at some step of putting it in order."""
    expected = results(whole)
    seen = set()
    number = 0
    finished = False
    while not finished:
        number += 1
        root = tmp_path / f"server-{number}"
        root.mkdir()
        old_files(root)
        before = names(root)
        finished = not _dies(lambda: restore(root, whole=whole), number, monkeypatch)  # noqa: B023
        inner = number % 5 + 1
        while _dies(lambda: recover(str(root)), inner, monkeypatch):  # noqa: B023
            inner += 3
        recover(str(root))
        after = names(root)
        assert after in (before, expected), f"step {number}"
        assert not unfinished(str(root))
        seen.add(after == expected)
        shutil.rmtree(root)
    assert seen == {True, False}
    assert number > 25


def _dies(call: Callable[[], object], number: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether a call came to its step of that number, and died there."""
    # The same count for both modules: they are one disk.
    faulty = Faulty(os, number, Crash())
    removing = Faulty(shutil, -1, Crash())

    def rmtree(*arguments: Any, **more: Any) -> None:
        faulty.calls += 1
        if faulty.calls == faulty.number:
            raise Crash
        shutil.rmtree(*arguments, **more)

    removing.rmtree = rmtree  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        for module in (staging, staging_swap):
            patch.setattr(module, "os", faulty)
        patch.setattr(staging, "shutil", removing)
        try:
            call()
        except Crash:
            return True
    return False


def test_it_says_whose_restore_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Staging(str(root), "wings-restore-7") as area:
        new_files(Path(area.target))
        area.swap(whole=True)
    found = recover(str(root))
    assert found is not None
    assert (found.name, found.restored) == ("wings-restore-7", True)
    assert recover(str(root)) is None


def test_links_lead_nowhere(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    shutil.rmtree(root / "world")
    (root / "world").symlink_to(outside)
    (root / "config").unlink()
    (root / "config").symlink_to(outside / "precious")
    restore(root, whole=False)
    assert names(outside) == names_of("precious")
    assert (outside / "precious").read_text() == "precious"
    assert (root / "world/region/a").read_text() == "new a"
    assert not (root / "config").is_symlink()


def names_of(text: str) -> dict[str, Any]:
    import hashlib

    return {text: hashlib.sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize("kind", ["link", "file", "phase", "pipe"])
def test_an_area_that_a_customer_made_harms_nobody(root: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    (outside / "old").mkdir(parents=True)
    (outside / "precious").write_text("precious")
    (outside / "phase").write_text("out")
    if kind == "link":
        (root / AREA).symlink_to(outside)
    elif kind == "file":
        (root / AREA).write_text("x")
    else:
        (root / AREA).mkdir()
        if kind == "phase":
            (root / AREA / "phase").write_text("nonsense")
        else:
            os.mkfifo(root / AREA / "phase")
    before = names(root) if kind != "pipe" else {}
    with pytest.raises(OSError, match=r".") if kind != "pipe" else _nothing():
        recover(str(root))
    if kind != "pipe":
        with pytest.raises(StagingFailed), Staging(str(root)):
            pass
        assert names(root) == before
    assert (outside / "precious").read_text() == "precious"


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.root
def test_all_is_given_to_the_owner_and_nothing_outside(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    with Staging(str(root)) as area:
        target = Path(area.target)
        new_files(target)
        (target / "away").symlink_to(outside)
        (target / "suid").write_text("x")
        (target / "suid").chmod(0o6755)
        area.own(4321, 4322, lambda: None)
        area.swap(whole=True)
        area.discard()
    owners = {entry[-1] for entry in tree(root, owners=True).values()}
    assert owners == {(4321, 4322)}
    assert outside.stat().st_uid == 0
    assert (root / "suid").stat().st_mode & 0o7777 == 0o755


def test_an_area_inside_a_backup_is_left_out(root: Path) -> None:
    with Staging(str(root)) as area:
        target = Path(area.target)
        new_files(target)
        (target / AREA / "new").mkdir(parents=True)
        (target / AREA / "phase").write_text("done")
        area.swap(whole=True)
        area.discard()
    assert AREA not in os.listdir(root)
