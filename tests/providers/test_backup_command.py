"""`backupgw backup`: what a user types, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.webhook import WebhookReceiver

from .backup_site import BackupSite

OLD = pytest.mark.peers(peers.RESTIC_OLD)
NEW = pytest.mark.peers(peers.RESTIC_NEW)


@pytest.fixture
def site(tmp_path: Path) -> BackupSite:
    return BackupSite(tmp_path)


@NEW
def test_restic_on_a_provider_that_encrypts(site: BackupSite, tmp_path: Path) -> None:
    """Made, changed, made again, verified, lost, brought back in its place."""
    site.add_local("local")
    site.providers.set(
        "local", {"encryption_enabled": True, "encryption_key": "a passphrase of its own"}
    )
    tree.build_small(site.home / "files")
    wanted = tree.describe(site.home)
    first = site.run("create", "-i", site.home)
    assert "Keep a copy away from this machine" in first.stderr
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    [done] = [each for each in lines if each["event"] == "backup"]
    assert done["result"] == "done"
    stored = (tmp_path / "local" / "restic" / "config").read_bytes()
    assert stored.startswith(b"age-encryption.org/v1")

    (site.home / "new").write_bytes(random.Random(1).randbytes(100_000))
    [again] = site.records("create", "-i", site.home)
    assert 90_000 < again["added"] < done["added"] / 4, "only what is new"
    [verified] = site.records("verify", "--full")
    assert verified["ok"], verified
    assert verified["checked"] == ["the restic repository"]

    (site.home / "new").unlink()
    shutil.rmtree(site.home / "files")
    site.run("restore", "--in-place", done["id"])
    assert tree.differences(wanted, tree.describe(site.home)) == []
    status = site.status()["files", "local"]
    assert status["state"] == "done"
    assert status["verified"] > 0


@pytest.mark.parametrize("form", [pytest.param("restic", marks=[NEW, pytest.mark.soak]), "archive"])
def test_backups_are_not_backed_up(site: BackupSite, tmp_path: Path, form: str) -> None:
    """A disk for backups is often mounted within what is backed up."""
    site.providers.set("local", {"container": str(site.home / "my [disk]"), "enabled": True})
    (site.home / "file").write_bytes(random.Random(1).randbytes(1 << 20))
    for _ in range(2):
        [done] = [
            each
            for each in site.records("create", "-i", site.home, "--format", form)
            if each["event"] == "backup"
        ]
        assert 1 << 20 <= done["bytes"] < 2 << 20
    [back] = site.records("restore", "-t", tmp_path / "back")
    assert back["problem_count"] == 0
    assert os.listdir(f"{tmp_path}/back{site.home}") == ["file"]


@pytest.mark.soak
@OLD
def test_the_oldest_restic(tmp_path: Path) -> None:
    site = BackupSite(tmp_path, restic=peers.RESTIC_OLD)
    site.add_local("local")
    tree.build_small(site.home / "files")
    site.run("create", "-i", site.home, "-e", "*.no")
    site.cheap()
    wanted = tree.describe(site.home)
    [back] = site.records("restore", "-t", tmp_path / "back")
    assert back["problem_count"] == 0
    assert tree.differences(wanted, tree.describe(Path(f"{tmp_path}/back{site.home}"))) == []
    refused = site.run("restore", "-t", tmp_path / "back", "--overwrite", "never", status=1)
    assert "needs restic 0.17" in refused.stderr
    (site.home / "more").write_bytes(random.Random(1).randbytes(50_000))
    site.run("create", "-i", site.home)
    [*_, pruned] = site.records("prune", "--set", "files", "--keep-last", "1")
    assert (pruned["removed"], pruned["kept"]) == (1, 1)
    [verified] = site.records("verify", "--full")
    assert verified["ok"]


@pytest.mark.soak
@NEW
def test_a_part_of_a_snapshot(site: BackupSite, tmp_path: Path) -> None:
    site.add_local("local")
    for name in ("a/x.jpg", "a/y.txt", "b/x.jpg"):
        (site.home / name).parent.mkdir(exist_ok=True)
        (site.home / name).write_text(name)
    site.run("create", "-i", site.home)
    site.cheap()
    [told] = site.records("restore", "-t", tmp_path / "no", "-i", "*.jpg", "--dry-run")
    assert told["files"] == 2
    assert not (tmp_path / "no").exists()
    site.run("restore", "-t", tmp_path / "1", "-i", "*.jpg")
    found = [p.name for p in (tmp_path / "1").rglob("*") if p.is_file()]
    assert sorted(found) == ["x.jpg", "x.jpg"]
    site.run("restore", "-t", tmp_path / "2", "-i", site.home / "a")
    assert sorted(p.name for p in (tmp_path / "2").rglob("*.*")) == ["x.jpg", "y.txt"]
    refused = site.run("restore", "-t", tmp_path / "3", "-i", "*.png", status=1)
    assert "nothing in this backup matches" in refused.stderr
    refused = site.run("restore", "--set", "hom", "-t", tmp_path / "3", status=1)
    assert "there is no backup of the set 'hom'" in refused.stderr
    refused = site.run("create", "-i", tmp_path / "gone", status=1)
    assert f"none of the paths can be backed up: {tmp_path}/gone: No such file" in refused.stderr
    refused = site.run("restore", "cafe1234", "-t", tmp_path / "3", status=1)
    assert "there is no backup 'cafe1234'" in refused.stderr
    assert "--target DIR, or --in-place" in site.run("restore", status=2).stderr


def test_archives_to_several_providers(site: BackupSite, tmp_path: Path) -> None:
    site.write(
        sets=f"""
        [backup.sets.docs]
        paths = ["{site.home}"]
        exclude = ["*.tmp"]
        format = "archive"
        to = ["one", "two"]
        """
    )
    site.add_local("one", "two")
    tree.build_small(site.home / "files")
    wanted = tree.describe(site.home)
    (site.home / "x.tmp").touch()
    os.utime(site.home, ns=(0, 0))
    results = site.records("create")
    assert [(each["event"], each.get("result")) for each in results] == [
        ("backup", "done"), ("backup", "done"), ("keys-made", None),
    ]  # fmt: skip
    [name] = site.files("one")
    assert re.fullmatch(r"archives/nas/docs/docs-\d{8}T\d{6}Z\.tar\.zst\.age", name)
    assert site.files("two") == [name]
    listed = site.records("list")
    assert [(each["provider"], each["set"], each["kind"]) for each in listed] == [
        ("one", "docs", "archive"), ("two", "docs", "archive"),
    ]  # fmt: skip
    [done] = site.records("restore", "--set", "docs", "-p", "two", "-t", tmp_path / "back")
    assert done["problems"] == []
    assert tree.differences(wanted, tree.describe(Path(f"{tmp_path}/back{site.home}"))) == []
    assert all(each["ok"] for each in site.records("verify"))
    # Damage is found, told, and seen in the status.
    path = tmp_path / "one" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    failed, good = site.records("verify", status=3)
    assert (failed["provider"], failed["ok"], good["ok"]) == ("one", False, True)
    assert name in failed["error"]
    site.run("status", status=1)
    assert site.status()["docs", "one"]["state"] == "damaged"
    # The key is lost with the machine: what is restored anew needs the sheet.
    sheet = site.run("keys", "show").stdout
    shutil.rmtree(site.state)
    lost = site.run("restore", "--set", "docs", "-p", "two", "-t", tmp_path / "new", status=1)
    assert "keys import" in lost.stderr
    refused = site.records("create", "--set", "docs", status=1)
    assert all("keys import" in each["error"] for each in refused)
    site.run("keys", "import", "-", given=sheet)
    [done] = site.records("restore", "--set", "docs", "-p", "two", "-t", tmp_path / "new")
    assert done["problem_count"] == 0


def test_a_provider_that_cannot_tell_what_it_has_does_not_stop_the_others(
    site: BackupSite, tmp_path: Path
) -> None:
    site.add_local("bad", "good")
    (site.home / "file").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "archives").symlink_to(tmp_path / "elsewhere")
    results = site.records("create", "-i", site.home, "--format", "archive", status=3)
    told = {each["provider"]: each for each in results if each["event"] == "backup"}
    assert (told["bad"]["result"], told["good"]["result"]) == ("failed", "done")
    assert told["bad"]["error"]
    assert len(site.files("good")) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []
    [failed] = site.records("create", "-i", site.home, "--format", "archive", "-p", "bad", status=1)
    assert failed["result"] == "failed"


def test_a_restore_tells_that_another_provider_has_a_newer_backup(
    site: BackupSite, tmp_path: Path
) -> None:
    site.write(
        sets=f"""
        [backup.sets.docs]
        paths = ["{site.home}"]
        format = "archive"
        to = ["one", "two"]
        """
    )
    site.add_local("one", "two")
    (site.home / "file").write_text("old")
    site.run("create")
    assert "newer" not in site.run("restore", "--set", "docs", "-t", tmp_path / "0").stderr
    (tmp_path / "one").rename(tmp_path / "away")
    (site.home / "file").write_text("new")
    site.run("create", status=3)
    (tmp_path / "away").rename(tmp_path / "one")
    done = site.run("restore", "--set", "docs", "-t", tmp_path / "1")
    assert "two has a newer backup of docs than one; -p two restores that" in done.stderr
    done = site.run("restore", "--set", "docs", "-p", "two", "-t", tmp_path / "2")
    assert "newer" not in done.stderr
    assert Path(f"{tmp_path}/2{site.home}/file").read_text() == "new"
    site.run("create", "-p", "one")
    assert "newer" not in site.run("restore", "--set", "docs", "-t", tmp_path / "3").stderr


def test_a_file_that_changes_while_it_is_read_is_told(
    site: BackupSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_local("local")
    path = site.home / "database"
    path.write_bytes(bytes(3 << 20))
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset == 1 << 20:
            with path.open("r+b") as file:
                file.write(b"changed")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    done = site.run("create", "-i", site.home, "--format", "archive", "--json")
    assert f"{path}: was changed while it was read" in done.stderr
    [told] = [each for line in done.stdout.splitlines() if (each := json.loads(line)).get("result")]
    assert (told["result"], told["changed"]) == ("done", 1)


@pytest.mark.parametrize("form", [pytest.param("restic", marks=NEW), "archive"])
def test_one_provider_failing_does_not_stop_the_others(
    site: BackupSite, tmp_path: Path, form: str
) -> None:
    site.add_local("bad", "good")
    (site.home / "file").write_text("x")
    (tmp_path / "bad").write_text("a file, no folder")
    done = site.run("create", "-i", site.home, "--format", form, status=3)
    outcomes = {
        each["provider"]: each
        for each in map(json.loads, done.stdout.splitlines())
        if each["event"] == "backup"
    }
    assert outcomes["good"]["result"] == "done"
    if form == "restic":
        site.cheap("good")
    assert outcomes["bad"]["result"] == "failed"
    assert outcomes["bad"]["error"]
    assert "bad: failed: " in done.stderr
    listed = site.run("list", status=3)
    assert "bad: cannot be listed" in listed.stderr
    assert site.status()["files", "bad"]["state"] == "failed"
    # All of them: failed, not partly.
    site.run("create", "-i", site.home, "-p", "bad", "--format", form, status=1)
    # A restore takes the next one that has it.
    [back] = site.records("restore", "-t", tmp_path / "back")
    assert back["provider"] == "good"


@pytest.mark.parametrize("form", [pytest.param("restic", marks=[NEW, pytest.mark.soak]), "archive"])
def test_files_that_are_missing_are_told(site: BackupSite, tmp_path: Path, form: str) -> None:
    site.add_local("local")
    (site.home / "file").write_text("x")
    done = site.records("create", "-i", site.home, tmp_path / "nowhere", "--format", form, status=3)
    assert done[0]["result"] == "partly"
    assert done[0]["problems"][0]["path"] == str(tmp_path / "nowhere")
    site.run("create", "-i", tmp_path / "nowhere", "--format", form, status=1)
    assert len(site.records("list")) == 1


def test_mistakes_are_named(site: BackupSite) -> None:
    assert "no provider is enabled" in site.run("create", "-i", site.home, status=2).stderr
    site.add_local("local")
    assert "nothing to back up" in site.run("create", status=2).stderr
    assert "there is no set 'x'" in site.run("create", "--set", "x", status=2).stderr
    assert "no installed package" not in site.run("list", "-p", "nope", status=2).stderr
    assert "\\" in site.run("create", "-i", site.home, "-e", "a\\", status=2).stderr
    site.write(sets='[backup.sets.a]\npaths = ["relative"]\nkeep = { daily = 0 }')
    wrong = site.run("create", status=1).stderr
    assert "backupgw.toml:" in wrong
    assert "no absolute path" in wrong
    assert "keep no backup at all" in wrong


def test_hooks_and_pings(site: BackupSite, tmp_path: Path) -> None:
    secret = "5a8c2f1e-ping"
    script = tmp_path / "hook"
    script.write_text(
        f'#!/bin/sh\nenv | grep ^BACKUPGW_BACKUP_ | sort > {tmp_path}/"$1"\nexit $2\n'
    )
    script.chmod(0o755)
    site.add_local("local")
    (site.home / "file").write_text("x")

    def settings(url: str, before: int) -> None:
        site.write(
            sets=f"""
            [backup.sets.home]
            paths = ["{site.home}"]
            format = "archive"
            ping = "{url}/{secret}"
            before = ["{script}", "before", "{before}"]
            after = ["{script}", "after", "0"]
            failed = ["{script}", "failed", "0"]
            """
        )

    with WebhookReceiver() as receiver:
        settings(receiver.url, 0)
        site.run("create")
        start, end = receiver.next(), receiver.next()
        assert re.fullmatch(rf"/{secret}/start\?rid=[0-9a-f-]{{36}}", start.path)
        assert end.path == start.path.replace("/start", "")
        assert b"home at local: done" in end.body
        assert not (tmp_path / "failed").exists()
        assert "BACKUPGW_BACKUP_RESULTS=local=done" in (tmp_path / "after").read_text()
        assert "BACKUPGW_BACKUP_SET=home" in (tmp_path / "before").read_text()

        settings(receiver.url, 7)
        done = site.run("create", status=1)
        start, end = receiver.next(), receiver.next()
        assert "/fail?" in end.path
        assert "ended with status 7" in done.stdout
        assert "BACKUPGW_BACKUP_RESULTS=local=failed" in (tmp_path / "failed").read_text()
        assert len(site.files("local")) == 1, "nothing was backed up"
    # Nobody answers: a warning, and the backup counts.
    settings(receiver.url, 0)
    done = site.run("create")
    assert "the ping /start was not taken" in done.stderr
    assert secret not in done.stderr + done.stdout
    assert len(site.files("local")) == 2
    for path in site.state.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("form", "ending"),
    [
        pytest.param("restic", signal.SIGTERM, marks=[NEW, pytest.mark.soak]),
        pytest.param("restic", signal.SIGKILL, marks=NEW),
        pytest.param("restic", signal.SIGINT, marks=[NEW, pytest.mark.soak]),
        ("archive", signal.SIGTERM),
        pytest.param("archive", signal.SIGKILL, marks=pytest.mark.soak),
        pytest.param("archive", signal.SIGINT, marks=pytest.mark.soak),
    ],
)
def test_a_backup_that_is_ended_leaves_nothing_half_done(
    site: BackupSite, tmp_path: Path, form: str, ending: signal.Signals
) -> None:
    site.add_local("local")
    site.providers.set("local", {"max_bandwidth": "2M"})
    site.write(
        sets=f'[backup.sets.home]\npaths = ["{site.home}"]\nformat = "{form}"\ncompression = "off"'
    )
    (site.home / "small").write_text("x")
    site.run("create")
    if form == "restic":
        site.cheap()
    before = set(site.files("local"))
    (site.home / "big").write_bytes(random.Random(1).randbytes(40 << 20))
    process = site.start("create", "--json")
    assert process.stdout is not None
    with process:
        line = process.stdout.readline()  # the first progress: bytes are on their way
        assert json.loads(line)["event"] == "progress", line
        assert site.status()["home", "local"]["state"] == "running"
        second = site.run("create", status=1)
        assert "being backed up already" in second.stderr
        os.kill(process.pid, ending)
        _, err = process.communicate(timeout=60)
    status = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == status[ending], err
    assert "Traceback" not in err
    assert site.status()["home", "local"]["state"] == "interrupted"
    assert len(site.records("list")) == 1, "only what is whole is shown"
    if form == "archive":
        visible = {name for name in site.files("local") if "/.backupgw" not in f"/{name}"}
        assert visible == before or ending is signal.SIGKILL
    # And nothing is in the way of the next one.
    site.providers.set("local", {"max_bandwidth": None})
    [again] = [each for each in site.records("create") if each["event"] == "backup"]
    assert again["result"] == "done"
    [done] = site.records("restore", "-t", tmp_path / "back")
    assert done["problem_count"] == 0
    assert Path(f"{tmp_path}/back{site.home}/big").read_bytes() == (site.home / "big").read_bytes()
    leftovers = [name for name in site.files("local") if "tmp" in name]
    assert leftovers == []


@NEW
def test_a_provider_whose_turn_has_not_come_is_left_out_when_it_is_ended(site: BackupSite) -> None:
    site.add_local("local", "second", "third")
    site.providers.set("local", {"max_bandwidth": "2M"})
    site.write(
        "parallel = 1",
        sets=f'[backup.sets.home]\npaths = ["{site.home}"]\ncompression = "off"',
    )
    (site.home / "big").write_bytes(random.Random(1).randbytes(40 << 20))
    with site.start("create", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "progress"
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    told = [
        record for line in out.splitlines() if (record := json.loads(line))["event"] == "backup"
    ]
    assert sorted((each["provider"], each["result"]) for each in told) == [
        ("local", "interrupted"), ("second", "interrupted"), ("third", "interrupted"),
    ]  # fmt: skip
    assert not (site.folder / "third").exists()


def test_a_terminal_shows_a_bar(site: BackupSite) -> None:
    """How much is done, how fast it goes and how long it will take; at the end a line of text."""
    site.add_local("local")
    site.providers.set("local", {"max_bandwidth": "24M"})
    (site.home / "file").write_bytes(random.Random(1).randbytes(48 << 20))
    ours, theirs = pty.openpty()
    with Child(
        site.command("create", "-i", site.home, "--format", "archive", "--compression", "off"),
        env=site.environment | {"COLUMNS": "120"}, stdout=theirs, stderr=theirs, stdin=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = bytearray()
        with contextlib.suppress(OSError):  # EIO: nobody is at the other end any more
            while piece := os.read(ours, 65536):
                shown += piece
        assert process.wait() == 0, shown
    os.close(ours)
    text = shown.decode()
    assert re.search(r"\[#+\.+\] +\d+% [\d.]+ \wiB of 48.0 MiB, .* \wiB/s, \d+s left", text), text
    assert "files at local: done, 2 files, 48.0 MiB" in text
    assert "{" not in text


def test_keys_are_kept_safely(site: BackupSite) -> None:
    site.run("keys", "make")
    sheet = site.run("keys", "show").stdout
    for path in (site.state / "backup" / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().strip() in sheet
    assert stat.S_IMODE((site.state / "backup" / "keys").stat().st_mode) == 0o700
    site.run("keys", "make")
    assert site.run("keys", "show").stdout == sheet, "what is there stays"
    site.run("keys", "import", "-", given=sheet)
    other = re.sub(r"restic password:  \S+", "restic password:  other", sheet)
    refused = site.run("keys", "import", "-", given=other, status=1)
    assert "--replace" in refused.stderr
    site.run("keys", "import", "--replace", "-", given=other)
    assert "restic password:  other" in site.run("keys", "show").stdout
    assert len(list((site.state / "backup" / "keys").iterdir())) == 3, "the old one is kept"
    # One sign of it is another one.
    mistyped = re.sub(
        r"(AGE-SECRET-KEY-1\w{10})(\w)", lambda m: m[1] + ("Q" if m[2] != "Q" else "P"), other
    )
    assert "mistyped" in site.run("keys", "import", "-", given=mistyped, status=1).stderr


@pytest.mark.soak
@NEW
def test_another_machine_with_another_password(site: BackupSite, tmp_path: Path) -> None:
    site.add_local("local")
    (site.home / "file").write_text("x")
    site.run("create", "-i", site.home)
    site.cheap()
    sheet = site.run("keys", "show").stdout
    shutil.rmtree(site.state)
    for words in (("create", "-i", site.home), ("restore", "-t", tmp_path / "b")):
        assert "keys import" in site.run(*words, status=1).stderr
    assert not (site.state / "backup" / "keys" / "restic-password").exists()
    site.run("keys", "make")
    assert "another password" in site.run("create", "-i", site.home, status=1).stderr
    site.run("keys", "import", "--replace", "-", given=sheet)
    site.run("restore", "-t", tmp_path / "b")
    assert Path(f"{tmp_path}/b{site.home}/file").read_text() == "x"


def test_prune_of_archives(site: BackupSite) -> None:
    site.write(
        sets=f'[backup.sets.home]\npaths = ["{site.home}"]\nformat = "archive"\nkeep.daily = 2'
    )
    site.add_local("local")
    (site.home / "file").write_text("x")
    site.run("create")
    folder = site.folder / "local" / "archives" / "nas" / "home"
    [whole] = folder.iterdir()
    for day in (1, 1, 2, 3):
        for hour in (3, 15):
            shutil.copy(whole, folder / f"home-202501{day:02}T{hour:02}0000Z.tar.zst.age")
    told = site.run("prune", "--dry-run")
    assert len(list(folder.iterdir())) == 7
    [*_, done] = map(json.loads, told.stdout.splitlines())
    assert (done["removed"], done["kept"], done["dry_run"]) == (5, 2, True)
    site.run("prune")
    assert sorted(path.name[:13] for path in folder.iterdir()) == sorted(
        [whole.name[:13], "home-20250103"]
    )
    assert "keep no backup" in site.run("prune", "--keep-last", "0", status=2).stderr
    # After a run, as a timer does it.
    shutil.copy(whole, folder / "home-20240101T000000Z.tar.zst.age")
    site.run("create", "--prune")
    assert len(list(folder.iterdir())) == 2


def test_a_disabled_provider_is_left_out_and_told(site: BackupSite) -> None:
    site.write(backup='to = ["one", "two"]')
    site.add_local("one", "two")
    site.providers.set("two", {"enabled": False})
    (site.home / "file").write_text("x")
    done = site.run("create", "-i", site.home, "--format", "archive")
    assert "two is disabled and left out" in done.stderr
    assert (len(site.files("one")), site.files("two")) == (1, [])
    site.run("create", "-i", site.home, "--format", "archive", "-p", "two")
    assert len(site.files("two")) == 1
    site.providers.set("one", {"enabled": False})
    assert "no provider is enabled" in site.run("create", "-i", site.home, status=2).stderr
    assert "nowhere" in site.run("create", "-i", site.home, "-p", "nowhere", status=2).stderr


def test_status_and_metrics(site: BackupSite, tmp_path: Path) -> None:
    site.write(backup=f'metrics_file = "{tmp_path}/backup.prom"')
    site.add_local("local")
    (site.home / "file").write_bytes(bytes(1000))
    site.run("create", "-i", site.home, "--format", "archive")
    text = (tmp_path / "backup.prom").read_text()
    assert stat.S_IMODE((tmp_path / "backup.prom").stat().st_mode) == 0o644
    labels = '{set="files",provider="local"}'
    assert f"backupgw_backup_last_run_ok{labels} 1" in text
    assert f"backupgw_backup_bytes{labels} 1000" in text
    assert site.run("status", "--prometheus").stdout == text
    from prometheus_client.parser import text_string_to_metric_families

    assert len(list(text_string_to_metric_families(text))) == 9
