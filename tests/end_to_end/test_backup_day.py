"""A day in a home server's life, typed from docs/backup.md alone.

The commands are taken from the page's section "A first day", in its order, with nothing but the
names of folders, addresses and keys changed. So the page stays true, and a command that it lacks
cannot be used here.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.servers import b2_double, peers
from tests.servers.b2_double import B2Double
from tests.servers.s3 import Moto, S3Server

from . import tree

PAGE = peers.ROOT / "docs" / "backup.md"
SIZE = 2 << 30 if SOAK else 6 << 20

pytestmark = pytest.mark.peers(peers.RESTIC_NEW)


def section(title: str) -> str:
    """Return a section of the page."""
    text = PAGE.read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def changed(text: str, changes: dict[str, str]) -> str:
    """Return the page's text with this test's names in the place of the page's."""
    return re.sub("|".join(map(re.escape, changes)), lambda match: changes[match[0]], text)


@dataclass
class Day:
    """The page's commands, of which each is typed once and in its order."""

    folder: Path
    commands: list[str]
    changes: dict[str, str]
    environment: dict[str, str]
    settings: str

    def write_settings(self) -> None:
        """Write what the page says into the file that was made."""
        file = self.folder / "backupgw.toml"
        file.write_text(f"{file.read_text()}\n{changed(self.settings, self.changes)}")

    def type(
        self, beginning: str, *, given: str = "", status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Type the page's next command, which begins like this."""
        command = self.commands.pop(0)
        assert command.startswith(beginning), f"the page goes on with: {command}"
        return self.run(command, given=given, status=status)

    def run(
        self, command: str, *, given: str = "", status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the day's shell."""
        command = changed(command, self.changes)
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, input=given,
            capture_output=True, text=True, timeout=3000 if SOAK else 170,
        )  # fmt: skip
        assert done.returncode == status, (command, done.stdout[-3000:], done.stderr[-3000:])
        assert "Traceback" not in done.stderr
        return done


def records(done: subprocess.CompletedProcess[str], event: str) -> list[dict[str, object]]:
    """Return the JSON lines of one kind that a command wrote."""
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [each for each in found if each["event"] == event]


@pytest.fixture
def s3() -> Iterator[S3Server]:
    server = Moto()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def b2() -> Iterator[B2Double]:
    with B2Double() as double:
        yield double


@pytest.fixture
def day(tmp_path: Path, s3: S3Server, b2: B2Double) -> Day:
    text = section("A first day")
    [settings] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    changes = {
        "/mnt/usb/backups": str(tmp_path / "usb"),
        "endpoint=https://s3.example.org": f"endpoint={s3.endpoint}",
        "AKIAEXAMPLE": s3.key_id,
        "enable backblaze --set": f"enable backblaze --set realm={b2.url} --set",
        "0021a2b3c4d5e6f0000000001": b2_double.KEY_ID,
        "/tmp/": f"{tmp_path}/tmp/",
        "/home/*": str(tmp_path / "home" / "*"),
        '"/home"': f'"{tmp_path}/home"',
        '"/etc"': f'"{tmp_path}/etc"',
        '"/home/ann': f'"{tmp_path}/home/ann',
        # The page's timer is the system's; a test only writes it.
        "--at 02:30": f"--at 02:30 --folder {tmp_path}/units",
    }
    changes["/etc/backupgw/backupgw.toml"] = str(tmp_path / "backupgw.toml")
    restic = peers.get(peers.RESTIC_NEW).path
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "restic").symlink_to(restic)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path / "user"),
        "XDG_STATE_HOME": str(tmp_path / "state"),  # else root's is the system's
        "TMPDIR": str(tmp_path),
    }
    commands = re.findall(r"^    (backupgw .*)$", text, re.MULTILINE)
    return Day(tmp_path, commands, changes, environment, settings)


def mixed_files(root: Path) -> None:
    """Pictures that do not compress, texts that do, and the awkward ones."""
    (root / "home").mkdir()
    tree.build_small(root / "home" / "ann")
    source = random.Random(5)
    for number in range(20):
        picture = root / "home" / "ben" / f"picture {number}.jpg"
        picture.parent.mkdir(exist_ok=True, parents=True)
        picture.write_bytes(source.randbytes(SIZE // 40))
        (root / "home" / "ben" / f"{number}.txt").write_text(f"text {number} " * (SIZE // 400))
    (root / "home" / "ann" / "papers").mkdir()
    (root / "home" / "ann" / "papers" / "will.txt").write_text("my last will\n")
    (root / "home" / "ben" / "left.tmp").write_text("left out")
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_text("root\n")


@pytest.mark.soak
@pytest.mark.root("systemd-analyze")
@pytest.mark.timeout(7200 if SOAK else 300)
def test_a_day_from_the_page(day: Day, s3: S3Server, b2: B2Double, tmp_path: Path) -> None:
    mixed_files(tmp_path)
    secret = b2_double.KEY

    day.type("backupgw config init")
    day.write_settings()
    day.type("backupgw provider enable local")
    day.type("backupgw provider enable aws_s3")
    day.type("backupgw provider set-credentials aws_s3", given=s3.secret)
    day.type("backupgw provider enable backblaze")
    day.type("backupgw provider set-credentials backblaze", given=secret)
    day.type("backupgw provider test")
    day.type("backupgw provider test-cycle")
    assert "valid" in day.type("backupgw config check").stdout

    first = day.type("backupgw backup create")
    made = {(str(each["set"]), str(each["provider"])): each for each in records(first, "backup")}
    homes = [("home", name) for name in ("aws_s3", "backblaze", "local")]
    assert sorted(made) == [*homes, ("papers", "local")]
    assert {each["result"] for each in made.values()} == {"done"}
    assert "Keep a copy away from this machine" in first.stderr
    status = day.type("backupgw backup status")
    assert status.stdout.count("done") == 4
    sheet = day.type("backupgw backup keys show").stdout

    wanted = tree.describe(tmp_path / "home")
    del wanted[b"ben/left.tmp"]
    before = stored(s3)
    picture = tmp_path / "home" / "ben" / "picture 1.jpg"
    picture.write_bytes(random.Random(6).randbytes(200_000))
    wanted[b"ben/picture 1.jpg"] = tree.describe(picture.parent)[b"picture 1.jpg"]
    again = records(day.type("backupgw backup create --set home"), "backup")
    assert len(again) == 3
    sent = stored(s3) - before
    assert 200_000 < sent < 200_000 + SIZE // 10, "what was there is not sent again"
    for each in again:
        assert 200_000 < int(str(each["added"])) < 200_000 + SIZE // 10
    listed = day.type("backupgw backup list").stdout
    assert len(listed.splitlines()) == 8
    verified = records(day.type("backupgw backup verify"), "verified") or [{"ok": True}]
    assert all(each["ok"] for each in verified)

    shutil.rmtree(tmp_path / "home")
    day.type("backupgw backup restore --set home --target")
    [back] = (tmp_path / "tmp" / "restored").rglob("home")
    assert tree.differences(wanted, tree.describe(back)) == []
    day.type("backupgw backup restore --set home --provider backblaze --include")
    pictures = [path for path in (tmp_path / "tmp" / "pictures").rglob("*") if path.is_file()]
    assert len(pictures) == 20
    day.type("backupgw backup restore --set home --provider aws_s3 --in-place")
    assert tree.differences(wanted, tree.describe(tmp_path / "home")) == []

    told = day.type("backupgw backup prune --dry-run")
    assert {each["removed"] for each in records(told, "pruned")} == {0}
    day.type("backupgw backup prune")
    day.type("backupgw backup schedule add home")
    assert day.commands == [], "every command of the page was typed"

    fired = fire(tmp_path / "units" / "backupgw-backup-home.service")
    assert [each["result"] for each in records(fired, "backup")] == ["done"] * 3
    assert [each["kept"] for each in records(fired, "pruned")] == [3] * 3, "one more at each"

    counted = json.loads(day.run("backupgw provider calls backblaze --json").stdout)
    sent_files = sum(each["count"] for each in counted if each["call"] == "b2_upload_file")
    assert sent_files == b2.calls.count(lambda call: "b2_upload_file" in call.path)
    assert {each["cost"] for each in counted} >= {"class A, free", "class B", "class C"}

    key = sheet.split("restic password:")[1].split()[0]
    hidden = [secret, s3.secret, key]
    for done in (first, status, told, fired):
        assert not [word for word in hidden if word in done.stdout + done.stderr]
    search(tmp_path, hidden)


def search(folder: Path, hidden: list[str]) -> None:
    """Look for secrets, byte by byte, in all that was written but where they are kept."""
    found = []
    for path in folder.rglob("*"):
        kept = path.name == "provider-credentials.toml" or path.parent.name == "keys"
        if path.is_file() and not path.is_symlink() and not kept:
            content = path.read_bytes()
            found += [str(path) for word in hidden if word.encode() in content]
    assert found == []


def stored(s3: S3Server) -> int:
    """Return the bytes that the bucket has."""
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket="nas-backups")
    return sum(each["Size"] for page in pages for each in page.get("Contents", []))


def fire(unit: Path) -> subprocess.CompletedProcess[str]:
    """Run the timer's service once, as systemd does: with its own environment and no other."""
    lines = [line.partition("=")[::2] for line in unit.read_text().splitlines()]
    [command] = [shlex.split(value) for name, value in lines if name == "ExecStart"]
    environment = dict(
        shlex.split(value)[0].replace("%%", "%").split("=", 1)
        for name, value in lines
        if name == "Environment"
    )
    command = [word.replace("%%", "%").replace("$$", "$") for word in command]
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done
