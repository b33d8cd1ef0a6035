"""Timers and entries of cron: written, checked by systemd itself, changed, removed, fired."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from backupgw.providers.backup.schedule_times import When, read
from backupgw.runtime.command import UsageError
from tests.servers.child import Child
from tests.servers.user_systemd import UserSystemd

from .backup_site import BackupSite

SYSTEMD = pytest.mark.root("systemd-analyze")


@pytest.fixture
def site(tmp_path: Path) -> BackupSite:
    folder = tmp_path / 'a "strange" $HOME 100% folder'
    folder.mkdir()
    site = BackupSite(folder)
    site.write(sets=f"[backup.sets.home]\npaths = ['{site.home}']\nformat = 'archive'")
    site.add_local("local")
    (site.home / "file").write_text("x")
    return site


def fired(unit: Path) -> subprocess.CompletedProcess[str]:
    """Run what systemd would run: the unit's command with the unit's environment and no other."""
    lines = dict(
        line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith("ExecStart")
    )
    command = words(lines["ExecStart"])
    environment = dict(
        words(line.split("=", 1)[1])[0].split("=", 1)
        for line in unit.read_text().splitlines()
        if line.startswith("Environment=")
    )
    return subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )


def words(text: str) -> list[str]:
    """Take a line apart as systemd.service(5) does: quotes, %% and $$."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(text)]


@SYSTEMD
def test_a_timer_is_written_and_fires(site: BackupSite, tmp_path: Path) -> None:
    site.environment |= {"BACKUPGW_LOG__LEVEL": "error", "BACKUPGW_BACKUP__PASSWORD": "hush-hush"}
    units = tmp_path / "units"
    add = ("schedule", "add", "home", "--folder", units)
    done = site.run(*add, "--at", "02:30")
    assert "*-*-* 02:30:00" in done.stdout
    assert "BACKUPGW_BACKUP__PASSWORD is a secret" in done.stderr
    text = (units / "backupgw-backup-home.service").read_text()
    assert "BACKUPGW_LOG__LEVEL=error" in text
    assert "hush-hush" not in text
    assert sorted(os.listdir(units)) == [
        "backupgw-backup-home.service", "backupgw-backup-home.timer",
    ]  # fmt: skip
    before = {path.name: path.stat().st_mtime_ns for path in units.iterdir()}
    assert "as before" in site.run(*add, "--at", "2:30").stdout
    assert {path.name: path.stat().st_mtime_ns for path in units.iterdir()} == before
    site.run(*add, "--at", "Mon..Fri *-*-* 04:00")
    assert (
        "home  systemd  Mon..Fri *-*-* 04:00"
        in site.run("schedule", "list", "--folder", units).stdout
    )
    refused = site.run(*add, "--at", "sometimes", status=2)
    assert "systemd does not know such times" in refused.stderr

    verified = subprocess.run(
        ["systemd-analyze", "verify", *map(str, units.iterdir())], capture_output=True, text=True
    )
    assert "backupgw" not in verified.stderr, verified.stderr
    shown = subprocess.run(
        ["systemd-analyze", "calendar", "Mon..Fri *-*-* 04:00"], capture_output=True, check=True
    )
    assert b"Next elapse" in shown.stdout
    done = fired(units / "backupgw-backup-home.service")
    assert done.returncode == 0, done.stderr
    assert len(site.files("local")) == 1
    assert site.status()["home", "local"]["state"] == "done"

    (units / "other.timer").write_text("[Timer]\nOnCalendar=daily\n")
    assert (
        "is scheduled no longer" in site.run("schedule", "remove", "home", "--folder", units).stdout
    )
    assert os.listdir(units) == ["other.timer"]
    assert "was not scheduled" in site.run("schedule", "remove", "home", "--folder", units).stdout


@pytest.mark.soak
@pytest.mark.root("systemd-analyze", "nsenter", "unshare", "/lib/systemd/systemd")
def test_systemd_fires_a_timer(site: BackupSite, tmp_path: Path) -> None:
    """A systemd that runs takes the units up, starts the backup by the calendar, and forgets."""
    with UserSystemd(tmp_path / "systemd") as systemd:
        site.environment |= systemd.environment

        def run(*words: str) -> str:
            done = subprocess.run(
                systemd.words(*words), env=site.environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (words, done.stdout, done.stderr)
            return done.stdout

        run(*site.command("schedule", "add", "home", "--user", "--at", "*-*-* *:*:0/3",
                          "--random-delay", "0"))  # fmt: skip
        assert "backupgw-backup-home.timer" in run("systemctl", "--user", "list-timers")
        show = ("systemctl", "--user", "show", "backupgw-backup-home.service", "-p")
        ends = time.monotonic() + 60
        while run(*show, "Result", "-p", "ExecMainExitTimestampMonotonic").count("=0\n"):
            assert time.monotonic() < ends, "it was not started"
            time.sleep(0.2)
        run(*site.command("schedule", "remove", "home", "--user"))
        assert "backupgw" not in run("systemctl", "--user", "list-timers", "--all")
    assert len(site.files("local")) >= 1
    assert site.status()["home", "local"]["state"] == "done"


@pytest.mark.soak
@pytest.mark.root("cron", "crontab", "unshare")
@pytest.mark.timeout(200)
def test_cron_fires_an_entry(site: BackupSite, tmp_path: Path) -> None:
    """Debian's cron, with a spool of its own: a mount namespace hides the machine's."""
    spool, pid = tmp_path / "spool", tmp_path / "run"
    for folder in (spool, pid):
        folder.mkdir()
    spool.chmod(0o1730)
    shutil.chown(spool, group="crontab")
    inside = (
        f"mount --make-rprivate / && mount --bind {spool} /var/spool/cron/crontabs && "
        f'mount --bind {pid} /run && "$@" && exec cron -f'
    )
    add = site.command("schedule", "add", "home", "--cron", "--at", "* * * * *")
    with Child(
        ["unshare", "--mount", "sh", "-c", inside, "sh", *add],
        env={**site.environment, "PATH": f"{site.environment['PATH']}:/usr/sbin"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as cron:  # fmt: skip
        ends = time.monotonic() + 150
        while site.status().get(("home", "local"), {}).get("state") != "done":
            assert cron.poll() is None, cron.stdout and cron.stdout.read()
            assert time.monotonic() < ends, "it was not started"
            time.sleep(1)
        cron.terminate()
        cron.communicate()
    assert len(site.files("local")) == 1


@SYSTEMD
def test_a_unit_of_somebody_else_is_left_alone(site: BackupSite, tmp_path: Path) -> None:
    theirs = tmp_path / "backupgw-backup-home.timer"
    theirs.write_text("[Timer]\nOnCalendar=yearly\n")
    refused = site.run("schedule", "add", "home", "--at", "daily", "--folder", tmp_path, status=1)
    assert "not written by backupgw" in refused.stderr
    assert theirs.read_text() == "[Timer]\nOnCalendar=yearly\n"


@pytest.fixture
def crontab(site: BackupSite, tmp_path: Path) -> Path:
    """A table that stands for the user's: tests do not change that of whoever runs them."""
    table = tmp_path / "table"
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
        case "$1" in
        -l) if [ -e {table} ]; then cat {table}; else echo "no crontab for root" >&2; exit 1; fi ;;
        -) cat > {table} ;;
        esac
        """
    )
    program.chmod(0o755)
    site.environment["PATH"] = f"{program.parent}:{site.environment['PATH']}"
    return table


def test_cron(site: BackupSite, crontab: Path) -> None:
    site.run("schedule", "add", "home", "--cron", "--at", "Sun 03:05")
    crontab.write_text("MAILTO=me\n" + crontab.read_text() + "0 0 * * * true\n")
    assert site.run("schedule", "list", "--cron").stdout.split()[-5:] == ["5", "3", "*", "*", "0"]
    assert "as before" in site.run("schedule", "add", "home", "--cron", "--at", "Sun 3:05").stdout
    site.run("schedule", "add", "home", "--cron", "--at", "*/5 * * * *")
    first, mark, entry, last = crontab.read_text().splitlines()
    assert (first, last) == ("MAILTO=me", "0 0 * * * true")
    assert mark == "# backupgw-backup home"
    # As cron runs it: by a shell, with \% for %.
    command = entry.split(maxsplit=5)[5].replace("\\%", "%")
    subprocess.run(["/bin/sh", "-c", command], env={}, check=True, capture_output=True, cwd="/")
    assert len(site.files("local")) == 1
    site.run("schedule", "remove", "home", "--cron")
    assert crontab.read_text() == "MAILTO=me\n0 0 * * * true\n"
    refused = site.run("schedule", "add", "home", "--cron", "--at", "61 * * * *", status=2)
    assert "cron does not know such a time" in refused.stderr


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("02:30", When("*-*-* 02:30:00", "30 2 * * *")),
        ("sunday 3:05", When("Sun *-*-* 03:05:00", "5 3 * * 0")),
        ("Daily", When("daily", "0 0 * * *")),
        ("5 4 * * 1-5", When("", "5 4 * * 1-5")),
        ("*-*-1 12:00", When("*-*-1 12:00", "")),
    ],
)
def test_times_as_people_write_them(text: str, when: When) -> None:
    assert read(text) == when


@pytest.mark.parametrize("text", ["25:00", "Foo 03:00", "", "99 * * * *"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        read(text)
