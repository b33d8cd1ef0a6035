"""`backupgw store copy`: carried on after an interruption, told as it goes, honest at the end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from backupgw.runtime import cli
from backupgw.runtime.commands.store.progress import State, bar_text, left_seconds
from tests.ctrl_c import at_every_lock
from tests.runtime.store_site import PATIENCE, Site
from tests.servers import peers
from tests.servers.restic import Restic

SLOW = '{ layer = "throttle", upload = "200k" }'


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    site = Site(tmp_path, capsys)
    site.add("other")
    return site


def test_everything_is_copied_and_the_last_line_says_so(site: Site) -> None:
    values = site.fill("main")
    (site.folder / "main/empty").mkdir()
    done = site.records("copy", "--verify", "main", "other")[-1]
    assert site.tree("other") == values
    assert (site.folder / "other/empty").is_dir()
    assert (done["event"], done["copied"], done["failed"]) == ("done", len(values), 0)
    assert done["verified"] is True
    again = site.records("copy", "main", "other")[-1]
    assert (again["copied"], again["present"]) == (0, len(values))


def test_between_names_and_urls_folders_and_items(site: Site) -> None:
    values = site.fill("main")
    url = f"file://{site.folder}/new place".replace(" ", "%20")
    assert "--create makes it" in site.refused("copy", "main", url)
    site.records("copy", "--create", "main:d1", f"{url}::in/it")
    expected = {f"in/it{n[2:]}": v for n, v in values.items() if n.startswith("d1/")}
    assert site.tree("new place") == expected
    site.records("copy", "main:d0/0000", "other:")
    site.records("copy", "main:d0/0000", "other:named")
    site.records("copy", "main:d0/0000", "other:folder/")
    assert site.tree("other").keys() == {"0000", "named", "folder/0000"}


def test_a_dry_run_tells_and_changes_nothing(site: Site) -> None:
    values = site.fill("main", 5)
    records = site.records("copy", "--dry-run", "main", "other")
    assert {r["name"] for r in records if r["event"] == "would_copy"} == values.keys()
    assert site.tree("other") == {}
    assert "does not exist" in site.refused(
        "copy", "--dry-run", "--create", "main", f"file://{site.folder}/none"
    )
    assert not (site.folder / "none").exists()


def test_partly_done_is_three_and_none_is_one(site: Site) -> None:
    site.write("main/a", b"x")
    site.write("main/b", b"x")
    (site.folder / "other/a").mkdir()
    records = site.records("copy", "main", "other", status=3)
    [failed] = [r for r in records if r["event"] == "failed"]
    assert failed["name"] == "a"
    assert "is a folder at the target" in failed["error"]
    (site.folder / "main/b").unlink()
    assert site.records("copy", "main", "other", status=1)[-1]["failed"] == 1


def test_a_file_in_the_way_is_not_to_be_created(site: Site) -> None:
    site.write("file", b"")
    said = site.refused("copy", "main", f"file://{site.folder}/file")
    assert "is not a folder" in said
    assert "--create" not in said
    assert "--create makes it" in site.refused("copy", "main", f"file://{site.folder}/none")


def test_a_limit_that_is_passed_ends_it(site: Site) -> None:
    site.add("small", '{ layer = "quota", limit = "10 kB" }')
    site.fill("main", 20, 3000)
    done = site.records("copy", "-j", "1", "main", "small", status=3)[-1]
    assert "no room" in done["gave_up"]
    assert done["copied"] == 3


def test_a_folder_of_this_machine_is_not_copied_into_itself(site: Site) -> None:
    site.fill("main", 3)
    (site.folder / "link").symlink_to(site.folder / "main")
    site.add("inside", '{ layer = "prefix", folder = "deep" }', exists=False)
    for target in (
        "main:d0",
        f"file://{site.folder}/main/d0",
        f"file://{site.folder}/link",
        f"file://{site.folder}",
    ):
        assert "one lies in the other" in site.refused("copy", "main", target)


def test_it_ends_wherever_it_is_interrupted(site: Site) -> None:
    values = site.fill("main", 40, 3)
    words = ["store", "copy", "main", "other", "--jobs", "2", "--config", str(site.config)]
    at_every_lock(lambda: cli.main(words))
    assert site.tree("other") == values


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_copy_is_carried_on(site: Site, how: signal.Signals) -> None:
    values = site.fill("main", 12, 40_000)
    site.add("slow", SLOW)
    with site.start("copy", "-v", "-j", "2", "main", "slow") as process:
        assert process.stdout is not None
        copied = 0
        for line in process.stdout:
            copied += json.loads(line)["event"] == "copied"
            if copied == 3:
                break
        process.send_signal(how)
        status = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}[how]
        assert process.wait(PATIENCE) == status
        assert process.stderr is not None
        assert process.stderr.read() == ""
    here = {n: v for n, v in site.tree("slow").items() if ".backupgw" not in n}
    assert 3 <= len(here) < len(values)
    assert all(values[name] == value for name, value in here.items())
    if how is not signal.SIGKILL:
        assert here == site.tree("slow"), "something half-done stayed"
    url = f"file://{site.folder}/slow"
    done = site.records("copy", "--verify", "main", url)[-1]
    assert done["present"] == len(here)
    assert done["copied"] == len(values) - len(here)
    assert {n: v for n, v in site.tree("slow").items() if ".backupgw" not in n} == values


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left(site: Site) -> None:
    site.fill("main", 6, 40_000)
    site.add("slow", SLOW)
    main, child = pty.openpty()
    try:
        process = site.start("copy", "main", "slow", stdout=child, stderr=child)
    finally:
        os.close(child)
    shown = b""
    with process, os.fdopen(main, "rb", buffering=0) as terminal:
        while True:
            try:
                piece = terminal.read(4096)
            except OSError:
                break  # the other end is closed
            if not piece:
                break
            shown += piece
        assert process.wait(PATIENCE) == 0
    text = shown.decode()
    assert "/s, " in text
    assert " left" in text
    assert text.rstrip().endswith("copied 6 items (234.4 KiB), 0 were there (0 B)")


def test_elsewhere_there_are_json_lines(site: Site) -> None:
    site.fill("main", 3)
    with site.start("copy", "main", "other", stderr=subprocess.DEVNULL) as process:
        out, _ = process.communicate(timeout=PATIENCE)
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "done"


def test_the_bar_fits_its_line_and_never_lies() -> None:
    known = State(bytes=50, items=1, total_bytes=100, total_items=2)
    assert bar_text(known, 10, 200).startswith("[##########..........]  50% 50 B of 100 B, 1/2")
    assert "5s left" in bar_text(known, 10, 200)
    assert "? left" in bar_text(known, 0, 200)
    assert len(bar_text(known, 10, 20)) == 20
    assert "left" not in bar_text(State(50, 1), 10, 200)
    assert left_seconds(State(200, 1, 100, 2), 0) == 0
    assert bar_text(State(0, 0, 0, 0), 0, 200).startswith("[####################] 100%")


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_restic_repository_comes_through_an_encrypted_place_whole(
    site: Site, tmp_path: Path
) -> None:
    restic = Restic(peers.get(peers.RESTIC_NEW), str(site.folder / "main"), tmp_path / "home")
    restic.init(site.folder / "main")
    files = tmp_path / "files"
    files.mkdir()
    (files / "random").write_bytes(os.urandom(5_000_000))
    restic.run("backup", files)
    key = tmp_path / "key"
    key.write_text("correct horse battery staple, and then some")
    layer = f'{{ layer = "encrypt", passphrase = {{ file = "{key}" }} }}'
    site.add("offsite", layer, exists=False)
    assert site.records("copy", "--create", "--verify", "main", "offsite")[-1]["failed"] == 0
    assert site.records("copy", "--verify", "offsite", "other")[-1]["failed"] == 0
    assert site.tree("other") == site.tree("main")
    copy = Restic(peers.get(peers.RESTIC_NEW), str(site.folder / "other"), tmp_path / "home2")
    copy.run("check", "--read-data")
    # What a second backup adds is all that the next copy moves.
    (files / "more").write_bytes(b"more")
    restic.run("backup", files)
    done = site.records("copy", "main", "other")[-1]
    assert 0 < done["copied"] < 10
    copy.run("check", "--read-data")
    assert len(copy.json("snapshots")) == 2
