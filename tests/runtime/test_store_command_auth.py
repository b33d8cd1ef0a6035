"""`backupgw store auth`: a person agrees on a page somewhere, and the place works."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers.child import Child
from tests.servers.double import Double
from tests.servers.drive_double import Service as DriveService
from tests.servers.dropbox_double import DropboxDouble
from tests.servers.tls import make_certificate

BACKUPGW = str(Path(sys.executable).parent / "backupgw")


@pytest.fixture
def dropbox() -> Iterator[DropboxDouble]:
    with DropboxDouble() as dropbox:
        yield dropbox


class Person:
    """Runs the command, and visits the page when it is named."""

    def __init__(self, dropbox: DropboxDouble, folder: Path) -> None:
        self.dropbox = dropbox
        self.grant = folder / "grant"
        self.settings = folder / "backupgw.toml"
        self.write(f'refresh_token = {{ file = "{self.grant}" }}')

    def write(self, line: str) -> None:
        self.settings.write_text(
            f'[places.cloud]\nurl = "dropbox:x"\napp_key = "{self.dropbox.service.app_key}"\n'
            f'endpoint = "{self.dropbox.url}"\n{line}\n[places.disk]\nurl = "file:///tmp"\n'
        )

    def command(self, *words: str) -> list[str]:
        return [BACKUPGW, "store", *words, "--config", str(self.settings)]

    def agree(self, page: str) -> str:
        parts = urlsplit(page)
        assert parts.netloc == "www.dropbox.com"
        with urllib.request.urlopen(f"{self.dropbox.url}{parts.path}?{parts.query}") as answer:
            code: str = json.load(answer)["code"]
            return code

    def run(self, *words: str, code: str | None = None) -> tuple[int, str, str]:
        """Return the status and what was printed; the page's code is typed unless `code` is."""
        with Child(
            self.command(*words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            shown = ""
            while line := process.stderr.readline():
                shown += line
                if match := re.search(r"https://\S+", line):
                    process.stdin.write(f"{self.agree(match[0]) if code is None else code}\n")
                    process.stdin.flush()
                    break
            output, rest = process.communicate(timeout=60)
        return process.returncode, output, shown + rest


@pytest.fixture
def person(dropbox: DropboxDouble, tmp_path: Path) -> Person:
    return Person(dropbox, tmp_path)


def test_the_grant_is_written_and_works(person: Person, dropbox: DropboxDouble) -> None:
    status, output, errors = person.run("auth", "cloud")
    assert (status, output) == (0, f"the grant of cloud is in {person.grant}\n"), errors
    assert person.grant.read_text() == f"{dropbox.service.refresh_token}\n"
    assert stat.S_IMODE(person.grant.stat().st_mode) == 0o600
    assert dropbox.service.refresh_token not in output + errors
    item = person.grant.parent / "item"
    item.write_text("value")
    done = subprocess.run(
        person.command("put", str(item), "cloud:item", "--create"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_code_changes_nothing(person: Person) -> None:
    person.grant.write_text("as before\n")
    status, _, errors = person.run("auth", "cloud", code="wrong")
    assert status == 1
    assert "does not accept the code" in errors
    assert "Traceback" not in errors
    assert person.grant.read_text() == "as before\n"


def test_no_code_is_no_grant(person: Person) -> None:
    status, _, errors = person.run("auth", "cloud", code="")
    assert (status, "no code came" in errors) == (1, True)
    assert not person.grant.exists()


def test_settings_that_say_no_file(person: Person) -> None:
    person.write('refresh_token = { env = "NOWHERE" }')
    status, _, errors = person.run("auth", "cloud")
    assert status == 1
    assert 'refresh_token = { file = "/etc/backupgw/cloud-grant" }' in errors


@pytest.mark.parametrize(
    ("name", "message"), [("clout", "did you mean"), ("disk", "file: needs no grant")]
)
def test_places_that_take_none(person: Person, name: str, message: str) -> None:
    status, _, errors = person.run("auth", name)
    assert status in (1, 2)
    assert message in errors
    assert "Traceback" not in errors


def test_a_browser_at_hand_brings_googles_answer(tmp_path: Path) -> None:
    """The page is opened in the person's browser, and nothing has to be pasted."""
    service, certificate = DriveService(), make_certificate(tmp_path)
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport ssl, sys, urllib.request\n"
        f"context = ssl.create_default_context(cafile={str(certificate.authority)!r})\n"
        "urllib.request.urlopen(sys.argv[1], context=context).read()\n"
    )
    browser.chmod(0o700)
    settings, grant = tmp_path / "backupgw.toml", tmp_path / "grant"
    with Double(service, certificate=certificate) as double:
        settings.write_text(
            f'[places.cloud]\nurl = "gdrive:x"\nendpoint = "{double.url}"\n'
            f'client_id = "{service.client_id}"\ncacert = "{certificate.authority}"\n'
            f'client_secret = {{ env = "SECRET" }}\nrefresh_token = {{ file = "{grant}" }}\n'
        )
        with Child(
            [
                Path(sys.executable).parent / "backupgw",
                "store",
                "auth",
                "cloud",
                "--config",
                settings,
            ],
            env={**os.environ, "BROWSER": f"{browser} %s", "SECRET": service.client_secret},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(60) == 0, said
    assert "brought it" in said
    assert grant.read_text() == f"{service.refresh_token}\n"
