"""`backupgw provider` as its users type it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from backupgw.providers.base import BaseProvider, ProgressCallback
from backupgw.providers.local import LocalProvider
from backupgw.providers.registry import PROVIDERS
from tests.providers.provider_site import PATIENCE, Site

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"


def test_a_first_day(site: Site) -> None:
    nas = site.local()
    assert "passed" in site.run("test")
    assert "1048576 bytes compared" in site.run("test-cycle")
    content = os.urandom(3 << 20)
    path = site.file("photos.tar", content)
    assert site.lines("upload", "local", path)[-1]["uploaded"] == 1
    assert (nas / "photos.tar").read_bytes() == content
    assert site.run("ls", "local") == "photos.tar\n"
    assert str(len(content)) in site.run("ls", "local", "-l")
    back = site.folder / "back"
    site.run("download", "local", "photos.tar", back)
    assert back.read_bytes() == content
    site.run("download", "photos.tar", "-p", "local", "-t", site.folder / "back2")
    assert site.run("delete", "local", "photos.tar") == "deleted photos.tar\n"
    assert site.run("ls", "local") == ""
    assert [each.name for each in nas.iterdir()] == []


def test_a_pipe_is_no_file(site: Site) -> None:
    """Opening it would wait for ever, for somebody who writes to it."""
    nas = site.local()
    pipe = site.folder / "pipe"
    os.mkfifo(pipe)
    uploading = site.start("upload", "local", pipe, site.file("good", b"good"))
    try:
        out, _ = uploading.communicate(timeout=PATIENCE)
    finally:
        uploading.kill()
    assert uploading.returncode == 3
    assert f"{pipe}: is no file".encode() in out
    assert [each.name for each in nas.iterdir()] == ["good"]


def test_a_file_on_which_somebody_has_a_lease_is_waited_for(site: Site) -> None:
    """Samba has such leases on the files that its clients have open."""
    nas = site.local()
    path = site.file("document", b"content")
    holder = os.open(path, os.O_RDWR)
    before = signal.signal(
        signal.SIGIO, lambda *_: fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    )
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        site.run("upload", "local", path)
    finally:
        signal.signal(signal.SIGIO, before)
        os.close(holder)
    assert (nas / "document").read_bytes() == b"content"


def test_the_originals_names_work(site: Site) -> None:
    nas = site.folder / "nas"
    site.run("set-config", "local", "container", nas)
    site.run("enable-provider", "local")
    assert site.run("get-config", "local", "container") == f"{nas}\n"
    assert "passed" in site.run("test-providers")
    assert "local" in site.run("list-providers")
    site.run("disable-provider", "local")
    site.run("test-providers", status=1)


def test_list_shows_all_and_why_one_cannot_be_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalProvider, "libraries", ("surely_not_installed",))
    listed = {each["name"]: each for each in site.json("list")}
    assert listed["local"]["usable"] is False
    assert "pip install" in listed["local"]["problem"]
    assert {"aws_s3", "backblaze", "drime", "dropbox", "rclone", "sftp"} <= listed.keys()
    _, err = site.told("enable", "local", status=1)
    assert "pip install" in err


def test_credentials_by_standard_input_and_in_no_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.write(write, f"{SECRET}\n".encode())
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        out, err = site.told("set-credentials", "aws_s3", "-u", "AKIA1")
    assert SECRET not in out + err
    shown = site.json("show", "aws_s3")
    assert shown["fields"]["access_key"] == "AKIA1"
    assert shown["fields"]["secret_key"] == "***"
    assert SECRET not in site.run("show", "aws_s3") + site.run("get", "aws_s3")
    assert [path.name for path in site.written(SECRET.encode())] == ["provider-credentials.toml"]


def test_a_secret_on_the_command_line_is_taken_with_a_warning(site: Site) -> None:
    _, err = site.told("set-credentials", "backblaze", "-u", "id", "-p", SECRET)
    assert "can be seen by every user" in err
    assert SECRET not in err
    out, err = site.told("set", "backblaze", "encryption_key", SECRET)
    assert "can be seen by every user" in err
    assert SECRET not in out + err


def test_a_password_file_is_read_when_it_is_used(site: Site) -> None:
    key = site.file("key", SECRET.encode())
    site.run("set-credentials", "aws_s3", "-u", "AKIA1", "--password-file", key)
    shown = site.json("show", "aws_s3")["fields"]["secret_key"]
    assert shown == f"*** (file {key})"
    assert [path.name for path in site.written(SECRET.encode())] == ["key"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("set", "local", "timeout", "5"), "timeout: must be from 30 to 3600 seconds"),
        (("set", "local", "max_retires", "5"), "did you mean 'max_retries'"),
        (("enable", "aws-s3"), "did you mean 'aws_s3'"),
        (("enable", "local", "--set", "timeout"), "write FIELD=VALUE"),
        (("set-credentials", "aws_s3", "-p", "x", "--password-env", "Y"), "give one of"),
        (("sync", "local", "/nowhere/at/all"), "is no folder"),
    ],
)
def test_what_cannot_be_is_wrong_usage(site: Site, words: tuple[str, ...], message: str) -> None:
    _, err = site.told(*words, status=2)
    assert message in err


def test_taking_over_the_originals_settings(site: Site) -> None:
    settings = {
        "backup": {
            "providers": {
                "local": {"enabled": True, "container": str(site.folder / "nas"), "timeout": 60},
                "backblaze": {
                    "enabled": False,
                    "username": "0041",
                    "password": SECRET,
                    "container": "homeServer",
                    "max_retries": 99,
                    "encryption_salt": None,
                },
            }
        }
    }
    path = site.file("settings.json", json.dumps(settings).encode())
    site.run("import", path, "--dry-run", status=3)
    assert not (site.config.parent / "providers.toml").exists()
    out, err = site.told("import", path, status=3)
    assert SECRET not in out + err
    assert "max_retries: must be a whole number from 1 to 10" in err
    assert site.run("get", "local", "timeout") == "60\n"
    fields = site.json("show", "backblaze")["fields"]
    assert fields["application_key_id"] == "0041"
    assert fields["application_key"] == "***"
    assert fields["container"] == "homeServer"
    assert "passed" in site.run("test")
    path.write_text("{")
    site.run("import", path, status=1)
    path.write_text("{}")
    assert "there are no providers in it" in site.told("import", path, status=1)[1]


def test_one_that_fails_does_not_stop_the_others(site: Site) -> None:
    nas = site.local()
    good = site.file("good", b"good")
    lines = site.lines("upload", "local", site.folder / "missing", good, status=3)
    assert [each["event"] for each in lines] == ["failed", "uploaded", "done"]
    assert "missing" in lines[0]["error"]
    assert (nas / "good").read_bytes() == b"good"
    site.run("upload", "local", site.folder / "missing", status=1)
    site.run("delete", "local", "good", "nothing", status=3)
    site.run("delete", "local", "nothing", status=1)


def test_two_providers_of_which_one_fails(site: Site) -> None:
    site.local()
    site.local("broken", create_container="false")
    results = {each["provider"]: each for each in site.json("test", status=3)}
    assert results["local"]["passed"] is True
    assert "does not exist" in results["broken"]["error"]
    assert site.json("show", "broken")["last_test"]["passed"] is False
    assert site.run("test-cycle", "broken", status=1).startswith("broken: FAILED: ")


def test_a_container_that_was_there_is_not_made_again(site: Site) -> None:
    """What was not mounted would fill the disk below."""
    nas = site.local()
    path = site.file("x", b"x")
    site.run("upload", "local", path)
    nas.rename(site.folder / "unmounted")
    _, err = site.told("upload", "local", path, status=1)
    assert "is mounted" in err
    assert not nas.exists()
    site.told("ls", "local", status=1)
    assert "passed" in site.run("test", "local", "--create")


def test_files_are_not_replaced_unasked(site: Site) -> None:
    site.local()
    path = site.file("x", b"new")
    site.run("upload", "local", path)
    kept = site.file("kept", b"mine")
    _, err = site.told("download", "local", "x", kept, status=1)
    assert "--force" in err
    assert kept.read_bytes() == b"mine"
    site.run("download", "local", "x", kept, "--force")
    assert kept.read_bytes() == b"new"
    site.run("download", "local", "nothing", site.folder / "y", status=1)
    assert not (site.folder / "y").exists()


def test_a_folder_is_fetched_and_carried_on(site: Site) -> None:
    site.local()
    home = site.folder / "home"
    for number in range(12):
        site.file(f"d{number % 3}/{number}", b"%d" % number)
    site.run("sync", "local", home, "docs")
    back = site.folder / "back"
    (back / "d0").mkdir(parents=True)
    (back / "d0" / "0").write_bytes(b"0")
    (back / "d0" / "3").write_bytes(b"mine")
    done = site.lines("download", "local", "docs", back, "--recursive", status=3)[-1]
    assert (done["downloaded"], done["there_already"], done["failed"]) == (10, 1, 1)
    assert (back / "d0" / "3").read_bytes() == b"mine"
    assert (back / "d2" / "11").read_bytes() == b"11"
    done = site.lines("download", "local", "docs", back, "--recursive", "--force")[-1]
    assert done["downloaded"] == 12
    assert (back / "d0" / "0").read_bytes() == b"0"
    site.run("download", "local", "nothing", back, "--recursive", status=1)


class Leading(BaseProvider):
    """One whose list has names that lead elsewhere."""

    def list_files(self, prefix: str = "", max_files: int = 1000) -> list[dict[str, Any]]:
        names = ("docs/good", "docs/../../up", "docs//root", "docs/./dot")
        return [{"name": name, "size": 1} for name in names]

    def download(
        self, remote_name: str, local_path: Path, progress_callback: ProgressCallback | None = None
    ) -> bool:
        local_path.parent.mkdir(parents=True, exist_ok=True)
        local_path.write_text(remote_name)
        return True

    def upload(
        self, file_path: Path, remote_name: str, progress_callback: ProgressCallback | None = None
    ) -> bool:
        return False

    def delete(self, remote_name: str) -> bool:
        return False

    def test_connection(self) -> bool:
        return True


def test_no_name_of_a_provider_leads_out_of_the_target(site: Site) -> None:
    PROVIDERS["leading"] = Leading
    try:
        site.run("enable", "leading")
        back = site.folder / "some" / "back"
        _, err = site.told("download", "leading", "docs", back, "--recursive", status=3)
    finally:
        del PROVIDERS["leading"]
    found = [path for path in site.folder.rglob("*") if path.name in ("good", "up", "root", "dot")]
    assert found == [back / "good"]
    assert "docs/../../up: its name" in err


def test_sync_sends_what_changed_and_check_finds_what_differs(site: Site) -> None:
    nas = site.local()
    home = site.folder / "home"
    for number in range(20):
        site.file(f"d{number % 3}/{number}", b"%d" % number)
    (home / "link").symlink_to("d0")
    done = site.lines("sync", "local", home, "docs")[-1]
    assert (done["uploaded"], done["failed"], done["skipped"]) == (20, 0, 1)
    done = site.lines("sync", "local", home, "docs")[-1]
    assert (done["uploaded"], done["there_already"]) == (0, 20)
    assert "everything is there" in site.run("check", "local", home, "docs", "--content")

    site.file("d0/0", b"changed")
    site.file("d1/new", b"new")
    (home / "d2" / "2").unlink()
    assert "not all there" in site.run("check", "local", home, "docs", status=1)
    planned = site.lines("sync", "local", home, "docs", "--delete", "--dry-run")
    assert {(each["event"], each["name"]) for each in planned} == {
        ("would_upload", "docs/d0/0"),
        ("would_upload", "docs/d1/new"),
        ("would_delete", "docs/d2/2"),
        ("would_leave_out", "docs/link"),
    }
    done = site.lines("sync", "local", home, "docs", "--delete")[-1]
    assert (done["uploaded"], done["deleted"]) == (2, 1)
    assert not (nas / "docs/d2/2").exists()
    assert (nas / "docs/d0/0").read_bytes() == b"changed"

    # The same size and time, and another content.
    (nas / "docs/d1/new").write_bytes(b"bad")
    assert "everything is there" in site.run("check", "local", home, "docs")
    told = site.run("check", "local", home, "docs", "--content", status=1)
    assert "different docs/d1/new (the same size, and another content)" in told


def test_what_was_changed_in_the_second_in_which_it_was_stored(site: Site) -> None:
    nas = site.local()
    home = site.folder / "home"
    path = site.file("data", b"first")
    site.run("sync", "local", home)
    stored = (nas / "data").stat().st_mtime_ns
    path.write_bytes(b"later")
    os.utime(path, ns=(0, stored + 300_000_000))
    assert "not all there" in site.run("check", "local", home, status=1)
    assert site.lines("sync", "local", home)[-1]["uploaded"] == 1
    assert (nas / "data").read_bytes() == b"later"

    # A place that tells whole seconds: whether it was stored before or after, only the bytes tell.
    second = 1_700_000_000_000_000_000
    os.utime(path, ns=(0, second + 300_000_000))
    os.utime(nas / "data", ns=(0, second))
    assert "everything is there" in site.run("check", "local", home)
    assert site.lines("sync", "local", home)[-1]["uploaded"] == 1
    path.write_bytes(b"third")
    os.utime(path, ns=(0, second + 300_000_000))
    os.utime(nas / "data", ns=(0, second))
    told = site.run("check", "local", home, status=1)
    assert "different data (the same size, and another content)" in told
    site.run("sync", "local", home)
    assert (nas / "data").read_bytes() == b"third"
    assert site.lines("sync", "local", home)[-1]["there_already"] == 1


def test_a_folder_that_cannot_be_read_empties_nothing(site: Site) -> None:
    nas = site.local()
    home = site.folder / "home"
    site.file("a/1", b"1")
    site.file("b/2", b"2")
    site.run("sync", "local", home)
    (home / "a" / "1").unlink()
    bad = home / "bad\udcff"
    bad.mkdir()
    site.run("sync", "local", home, "--delete", status=3)
    assert (nas / "a" / "1").exists()
    bad.rmdir()
    site.run("sync", "local", home, "--delete")
    assert not (nas / "a" / "1").exists()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_upload_that_is_ended_leaves_nothing_half_done(
    site: Site, sent: signal.Signals, status: int
) -> None:
    nas = site.local(max_bandwidth=4_000_000)
    path = site.file("large", os.urandom(24 << 20))
    with site.start("upload", "local", path) as process:
        _wait_for_upload(nas)
        process.send_signal(sent)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, out
    assert b"ended; the same command carries on" in out
    assert site.run("ls", "local") == ""
    assert b"Traceback" not in out
    assert [each.name for each in nas.iterdir() if not each.name.startswith(".")] == []
    site.run("unset", "local", "max_bandwidth")
    lines = site.lines("upload", "local", path)
    assert lines[-1]["uploaded"] == 1
    assert (nas / "large").read_bytes() == path.read_bytes()


def _wait_for_upload(nas: Path, least: int = 8 << 20) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if any(each.stat().st_size >= least for each in nas.rglob(".backupgw*") if each.is_file()):
            return
        time.sleep(0.02)
    raise AssertionError("the upload did not come so far")
