"""`backupgw store` as an administrator uses it: looking, items, bad input."""

from __future__ import annotations

import hashlib
import io
import json
import os
import select
import signal
import subprocess
import sys
from ctypes import CDLL, get_errno
from pathlib import Path

import pytest

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.runtime import cli
from backupgw.runtime.command import UsageError
from backupgw.runtime.commands.store.location import parse
from tests.ctrl_c import at_every_step
from tests.runtime.store_site import PATIENCE, Site

TRASH = '{ layer = "trash", keep = "30 days" }'


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


# -- where something is


@pytest.mark.parametrize(
    ("text", "place", "path"),
    [
        ("main", "main", ""),
        ("main:", "main", ""),
        ("main:a/b", "main", "a/b"),
        ("main:a/", "main", "a"),
        ("main:a:b::c", "main", "a:b::c"),
        ("file:///srv/b", "file:///srv/b", ""),
        ("file:///srv/b::a/c", "file:///srv/b", "a/c"),
        ("file:///srv/b::a::c", "file:///srv/b", "a::c"),
        ("http://[::1]:8000/", "http://[::1]:8000/", ""),
        ("http://[::1]:8000/::a", "http://[::1]:8000/", "a"),
        ("http://u:secret@h/x?token=secret::a", "http://***@h/x?***", "a"),
        # A place that has the name of a scheme.
        ("file", "file", ""),
        ("file:a", "file", "a"),
        ("file:/srv/b", "file:/srv/b", ""),
        ("memory:x", "memory:x", ""),
    ],
)
def test_a_location_has_one_meaning(text: str, place: str, path: str) -> None:
    location = parse(text, {"main", "file"})
    assert (location.place, location.path) == (place, path)
    assert "secret" not in str(location)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no place"),
        ("mian:a", "did you mean 'main'"),
        ("/srv/b", "is written file:///srv/b"),
        ("main:../etc", "'..'"),
        ("main:/a", "empty"),
        ("main:a//b", "empty"),
        ("main:.backupgw-trash/x", "belong to the kernel"),
        ("file:///srv/b::../x", "'..'"),
        ("nosuch://user:secret@host/x", "is no place"),
        ("main:\udcff", "not valid Unicode"),
    ],
)
def test_what_can_be_no_location_is_told_in_a_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as told:
        parse(text, {"main"})
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


# -- looking


def test_ls_lists_folders_trees_and_places(site: Site) -> None:
    site.write("main/a/b/one", b"1")
    site.write("main/a/two", b"22")
    assert sorted(site.run("ls", "main:a")[1].splitlines()) == ["b/", "two"]
    assert sorted(site.run("ls", "-R", "main")[1].splitlines()) == [
        "a/",
        "a/b/",
        "a/b/one",
        "a/two",
    ]
    assert site.run("ls", "-l", "main:a/two")[1].split()[0] == "2"
    assert f"file://{site.folder}/main" in site.run("ls")[1]
    records = {record["name"]: record for record in site.records("ls", "-R", "--json", "main")}
    assert records["a/two"]["size"] == 2
    assert records["a/b"]["type"] == "folder"


def test_a_name_with_a_line_break_cannot_look_like_two(site: Site) -> None:
    site.write("main/a\nb\x1b[31m", b"1")
    assert site.run("ls", "main")[1] == "a?b?[31m\n"
    assert site.records("ls", "--json", "main")[0]["name"] == "a\nb\x1b[31m"


def test_du_adds_up(site: Site) -> None:
    site.write("main/a/b/one", b"x" * 1000)
    site.write("main/a/two", b"x" * 100)
    site.write("main/three", b"x" * 10)
    sums = {r["name"]: (r["bytes"], r["items"]) for r in site.records("du", "--json", "main")}
    assert sums == {"a": (1100, 2), "": (1110, 3)}
    deep = {r["name"]: r["bytes"] for r in site.records("du", "--json", "--depth", "2", "main")}
    assert deep == {"a": 1100, "a/b": 1000, "": 1110}
    assert site.records("du", "--json", "main:a/two") == [{"name": "", "bytes": 100, "items": 1}]


def test_info_tells_of_items_and_places(site: Site) -> None:
    site.add("kept", TRASH)
    site.write("main/a", b"value")
    item = json.loads(site.run("info", "--hash", "--json", "main:a")[1])
    assert (item["size"], item["sha256"]) == (5, hashlib.sha256(b"value").hexdigest())
    place = json.loads(site.run("info", "--json", "kept")[1])
    assert place["layers"] == ["trash"]
    assert place["capabilities"]["move"] is True
    assert "there is no such item" in site.refused("info", "main:b")


# -- items


def test_put_cat_and_get_move_the_same_bytes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(value)
    monkeypatch.chdir(tmp_path)
    assert site.run("put", "file", "main:in/item")[0] == 0
    assert site.tree("main") == {"in/item": value}
    assert site.run("get", "main:in/item", "fetched")[0] == 0
    assert (tmp_path / "fetched").read_bytes() == value
    assert site.run("get", "main:in/item")[0] == 0
    assert (tmp_path / "item").read_bytes() == value
    assert site.run("put", "file", "main:in")[0] == 0
    assert site.tree("main").keys() == {"in/item", "in/file"}


def test_cat_gives_a_part(site: Site) -> None:
    site.write("main/a", b"0123456789")
    with site.start("cat", "main:a", "--offset", "2", "--size", "3") as process:
        assert process.communicate(timeout=PATIENCE)[0] == "234"
    with site.start("cat", "main:a", "--offset", "-2") as process:
        assert process.communicate(timeout=PATIENCE)[0] == "89"


def test_put_takes_standard_input(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert site.run("put", "-", "main:a")[0] == 0
    assert site.tree("main") == {"a": b"piped"}
    assert "needs the name of an item" in site.refused("put", "-", "main:")


def test_nothing_is_replaced_without_force(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"new")
    site.write("main/a", b"old")
    assert "--force replaces it" in site.refused("put", str(file), "main:a")
    assert site.tree("main") == {"a": b"old"}
    assert "--force replaces it" in site.refused("get", "main:a", str(file))
    assert file.read_bytes() == b"new"
    assert site.run("get", "--force", "main:a", str(file))[0] == 0
    assert file.read_bytes() == b"old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_broken_off_get_leaves_no_file(site: Site, tmp_path: Path) -> None:
    site.add("slow", '{ layer = "throttle", download = "10k" }')
    site.write("slow/a", bytes(5_000_000))
    target = tmp_path / "out"
    target.mkdir()
    with site.start("get", "slow:a", str(target / "a")) as process:
        _wait_for_file(target)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(target.iterdir()) == []


def _wait_for_file(folder: Path) -> None:
    """Wait until something appears in a folder."""
    libc = CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    assert fd >= 0, os.strerror(get_errno())
    try:
        assert libc.inotify_add_watch(fd, os.fsencode(folder), 0x100) >= 0  # IN_CREATE
        if not any(folder.iterdir()):
            ready, _, _ = select.select([fd], [], [], PATIENCE)
            assert ready, "no file appeared"
            assert os.read(fd, 4096)
    finally:
        os.close(fd)


def test_rm_needs_a_word_for_folders_and_never_takes_a_place(site: Site) -> None:
    site.fill("main", 9)
    assert "-r deletes all" in site.refused("rm", "main:d0")
    assert "names the whole place" in site.refused("rm", "-r", "main:")
    assert site.run("rm", "-r", "--dry-run", "main:d0")[1].count("would delete") == 3
    assert len(site.tree("main")) == 9
    assert site.run("rm", "-r", "main:d0", "main:d1/0001")[0] == 0
    assert len(site.tree("main")) == 5
    assert not (site.folder / "main/d0").exists()
    status, _, err = site.run("rm", "main:none", "main:d1/0004")
    assert status == 3
    assert "there is no such item" in err


def test_mv_renames_items_and_folders(site: Site) -> None:
    values = site.fill("main", 9)
    (site.folder / "main/d0/empty").mkdir()
    assert site.run("mv", "main:d0/0000", "main:first")[0] == 0
    assert site.run("mv", "main:d0", "main:moved")[0] == 0
    assert site.run("mv", "main:first", "main:d1")[0] == 0
    tree = site.tree("main")
    assert sorted(tree.values()) == sorted(values.values())
    assert tree["d1/first"] == values["d0/0000"]
    assert tree["moved/0003"] == values["d0/0003"]
    assert (site.folder / "main/moved/empty").is_dir()
    assert not (site.folder / "main/d0").exists()
    assert "--force replaces it" in site.refused("mv", "main:d1/0001", "main:d1/first")
    assert "lies there itself" in site.refused("mv", "main:d1", "main:d1/x")
    assert "store copy --verify" in site.refused("mv", "main:d1", f"file://{site.folder}/x")


# -- undelete


def test_undelete_brings_back_items_and_trees(site: Site) -> None:
    site.add("kept", TRASH)
    values = site.fill("kept", 9)
    assert site.run("rm", "-r", "kept:d0", "kept:d1")[0] == 0
    listed = site.records("undelete", "--list", "--json", "kept")
    assert {r["name"] for r in listed} == {n for n in values if not n.startswith("d2/")}
    assert "would restore 3 items" in site.run("undelete", "-r", "--dry-run", "kept:d0")[1]
    assert "-r brings back what was in it" in site.refused("undelete", "kept:d0")
    assert site.run("undelete", "kept:d1/0001")[0] == 0
    assert site.run("undelete", "-r", "kept:d0")[0] == 0
    restored = {name for name in site.tree("kept") if not name.startswith(".")}
    assert restored == {n for n in values if n[:2] != "d1"} | {"d1/0001"}
    assert site.run("cat", "kept:d9")[0] == 1


def test_undelete_says_where_there_is_no_trash_or_nothing_in_it(site: Site) -> None:
    site.add("kept", TRASH)
    assert "has no trash" in site.refused("undelete", "main:a")
    assert "the trash has nothing of that name" in site.refused("undelete", "kept:a")
    assert "is no time" in site.refused("undelete", "--at", "soon", "kept:a")
    assert "-r brings back all of it" in site.refused("undelete", "kept")


# -- check and bench


def test_check_says_whether_a_place_can_be_trusted(site: Site) -> None:
    status, out, _ = site.run("check", "main", "--only", "operations")
    assert status == 0
    assert "0 failed" in out
    assert site.tree("main") == {}
    document = json.loads(site.run("check", "main", "--only", "ranges", "--json")[1])
    assert document["ok"] is True
    site.add("frozen", '"readonly"')
    assert "read-only" in site.refused("check", "frozen", "--only", "ranges")
    assert "--create makes it" in site.refused("check", f"file://{site.folder}/none")
    assert not (site.folder / "none").exists()
    assert "in a folder of its own" in site.refused("check", "main:a")
    assert "no check has that" in site.refused("check", "main", "--only", "zzz")


def test_check_does_not_blame_a_full_place(site: Site) -> None:
    site.add("small", '{ layer = "quota", limit = 10 }')
    status, out, err = site.run("check", "small", "--only", "ranges")
    assert status == 1
    assert "no room for it" in out
    assert "small has no room for the checks" in err
    assert "trust" not in err


def test_check_reaches_other_processes(site: Site) -> None:
    status, out, _ = site.run("check", "main", "--only", "one_process_creates")
    assert status == 0
    assert "1 ok" in out.replace("2 ok", "1 ok")
    assert "names, won by" in out


def test_bench_measures_and_leaves_nothing(site: Site) -> None:
    words = ("bench", "main", "--sizes", "1k,64k", "--count", "6", "--threads", "2")
    document = json.loads(site.run(*words, "--json")[1])
    assert [(line["operation"], line["size"]) for line in document["lines"]] == [
        (operation, size)
        for size in (1024, 65536)
        for operation in ("write", "info", "read", "list", "delete")
    ]
    assert all(line["calls"] == 6 for line in document["lines"])
    assert site.run(*words)[1].splitlines()[0].split()[:4] == [
        "operation",
        "size",
        "threads",
        "calls",
    ]
    assert list((site.folder / "main").iterdir()) == []
    site.add("frozen", '"readonly"')
    assert "read-only" in site.refused("bench", "frozen")
    assert "no number of bytes" in site.refused("bench", "main", "--sizes", "much")


@pytest.mark.parametrize(
    "words", [("check", "slow", "--only", "streaming"), ("bench", "slow", "--sizes", "1M")]
)
def test_ctrl_c_leaves_nothing_in_the_place(site: Site, words: tuple[str, ...]) -> None:
    site.add("slow", '{ layer = "throttle", upload = "1M" }')
    with site.start(*words) as process:
        _wait_for_file(site.folder / "slow")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list((site.folder / "slow").iterdir()) == []


def test_a_check_leaves_nothing_wherever_it_is_interrupted(site: Site) -> None:
    command = ["--config", str(site.config), "store", "check", "main", "--only"]

    def check(only: str) -> int:
        status = cli.main([*command, only])
        assert list((site.folder / "main").iterdir()) == []
        return status

    at_every_step(lambda: check("operations.gather_joins"), "subject.py", "suite.py")


def test_a_measurement_leaves_nothing_wherever_it_is_interrupted(site: Site) -> None:
    sizes = ["--sizes", "1k", "--count", "2", "--threads", "2"]
    command = ["--config", str(site.config), "store", "bench", "main", *sizes]

    def bench() -> int:
        status = cli.main(command)
        assert list((site.folder / "main").iterdir()) == []
        return status

    at_every_step(bench, "store/bench.py")


# -- bad input and secrets


def test_a_secret_in_a_url_is_warned_of_and_never_shown(site: Site) -> None:
    status, out, err = site.run("ls", "http://user:hidden@127.0.0.1:1/x")
    assert status == 1
    assert "better a place of the settings" in err
    assert "hidden" not in out + err


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "main:none"],
        ["du", "main:none"],
        ["cat", "main:none"],
        ["cat", "main"],
        ["get", "main:none"],
        ["put", "/nonexistent/file", "main:a"],
        ["put", "/etc", "main:a"],
        ["mv", "main:none", "main:b"],
        ["mv", "main", "main:b"],
        ["copy", "main:none", "main:b"],
        ["ls", "file:///nonexistent/place"],
        ["ls", "file://host/place"],
        ["ls", "-l"],
        ["info", "--hash", "main"],
    ],
    ids=" ".join,
)
def test_mistakes_get_one_clear_line(site: Site, words: list[str]) -> None:
    line = site.refused(*words)
    assert line.startswith("backupgw: ")
    assert len(line) > 20
    assert site.tree("main") == {}


@pytest.mark.parametrize("words", [["ls", "main", "--nope"], ["copy", "main", "-j", "0", "x:"], []])
def test_wrong_usage_ends_with_two(site: Site, words: list[str]) -> None:
    status, _, err = site.run(*words)
    assert status == 2
    assert "usage:" in err


def test_a_url_that_names_nothing_is_wrong_usage(site: Site) -> None:
    status, _, err = site.run("ls", "file://host/place")
    assert status == 2
    assert "without a host" in err


def test_a_reader_that_goes_away_is_no_error(site: Site) -> None:
    site.fill("main", 3000, 1)
    with site.start("ls", "-R", "main") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) in (0, 141)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_place_that_loses_folders_with_their_last_item_is_emptied(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As object stores do."""
    plain = PosixFS.delete

    def delete(place: PosixFS, name: str) -> None:
        plain(place, name)
        folder = name.rpartition("/")[0]
        if folder and not next(place.list(folder), None):
            place.rmdir(folder)

    monkeypatch.setattr(PosixFS, "delete", delete)
    site.fill("main", 9)
    assert site.run("rm", "-r", "main:d0")[::2] == (0, "")
    assert len(site.tree("main")) == 6


def test_a_place_needs_no_service_that_serves_it(tmp_path: Path) -> None:
    """Only who serves needs [rest] place; a file with nothing but places is enough here."""
    config = tmp_path / "backupgw.toml"
    config.write_text(f'[places.nas]\nurl = "file://{tmp_path}/nas"\n')
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "item").write_bytes(b"value")
    command = [str(Path(sys.executable).parent / "backupgw"), "--config", str(config)]
    listed = subprocess.run([*command, "store", "ls", "nas"], capture_output=True, text=True)
    assert (listed.returncode, listed.stdout.split()) == (0, ["item"])
    served = subprocess.run([*command, "rest", "serve"], capture_output=True, text=True)
    assert served.returncode == 1
    assert "there is no [places.default]" in served.stderr
