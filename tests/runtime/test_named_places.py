"""`backupgw config add|list|show|remove|import`: backends by name, as pyrestserver's users know."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nacl.secret import SecretBox

from backupgw.runtime.command import CommandError
from backupgw.runtime.named_places import NamedPlaces
from backupgw.runtime.pyrestserver_files import revealed
from backupgw.runtime.settings import load
from tests.runtime.test_cli import backupgw
from tests.servers.child import Child

KEY = "1234|thekeyofdrimesaccount"
PYRESTSERVERS = "0a34b62682e9bae989fc36e770382b38f598f3ceff418e241da459fc801c7863"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def run(home: dict[str, str], *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = backupgw("config", *words, cwd=Path(home["HOME"]), **home)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def file_of(home: dict[str, str]) -> Path:
    return Path(home["XDG_CONFIG_HOME"], "backupgw", "backends.toml")


def test_the_documented_commands(home: dict[str, str]) -> None:
    run(home, "add", "mylocal", "--type", "local", "--path", "/srv/restic box")
    added = run(
        home, "add", "mydrime", "--type", "drime", "--api-key", KEY, "--workspace-id", "1593"
    )
    assert "warning: a key on the command line can be seen" in added.stderr
    assert KEY not in added.stdout + added.stderr
    assert stat.S_IMODE(file_of(home).stat().st_mode) == 0o600
    listed = run(home, "list")
    assert listed.stdout == ("mylocal  file:///srv/restic%20box\nmydrime  drime://1593/\n")
    shown = run(home, "show", "mydrime")
    assert shown.stdout == '[mydrime]\nurl = "drime://1593/"\napi_key = "***"\n'
    everything = run(home, "show").stdout + run(home, "show", "mydrime", "--json").stdout
    everything += run(home, "list", "--json").stdout
    assert "[places.mydrime]" in everything
    assert KEY not in everything
    run(home, "remove", "mylocal")
    assert json.loads(run(home, "list", "--json").stdout) == [
        {"name": "mydrime", "url": "drime://1593/", "api_key": "***"}
    ]
    gone = run(home, "remove", "mylocal", status=1)
    assert gone.stderr == "backupgw: there is no backend 'mylocal'; known here: mydrime\n"


def test_a_named_backend_is_a_place(home: dict[str, str], tmp_path: Path) -> None:
    run(home, "add", "there", "--type", "local", "--path", str(tmp_path / "there"))
    settings = load(environ=home, services={})
    assert settings.places["there"].url == f"file://{tmp_path}/there"
    assert "default" in settings.places, "what needs no settings still needs none"
    config = tmp_path / "gateway" / "backupgw.toml"
    config.parent.mkdir()
    config.write_text('[places.there]\nurl = "memory:"\n')
    run(home, "add", "there", "--type", "local", "--path", "/x", "--config", str(config))
    run(home, "add", "other", "--type", "local", "--path", "/y", "--config", str(config))
    assert (config.parent / "backends.toml").exists(), "beside the settings file"
    settings = load(config, environ=home, services={})
    assert settings.places["there"].url == "memory:", "the settings file wins"
    assert settings.places["other"].url == "file:///y"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["Upper", "--type", "local", "--path", "/x"], 2, "no name"),
        (["x", "--type", "local"], 2, "needs --path"),
        (["x", "--type", "local", "--path", "/x", "--api-key", "k"], 2, "--api-key does not"),
        (["x", "--type", "drime", "--url", "drime:"], 2, "--url does not belong"),
        (["x", "--type", "tape"], 2, "no such backend is installed; known here: "),
        (["x", "--type", "lokal", "--path", "/x"], 2, "did you mean 'local'?"),
        (["x", "--type", "sftp", "--path", "/x"], 2, "--type sftp, which wants --url sftp:…"),
        (["x", "--type", "rest", "--url", "rest://h/x", "--option", "timeout=soon"], 1, "timeout"),
        (["x", "--type", "memory", "--url", "file:///x"], 2, "needs --url memory:"),
        (["x", "--type", "drime"], 2, "no terminal to ask"),
        (["x", "--type", "drime", "--api-key", "two words"], 1, "pasted wrong"),
        (["x", "--type", "drime", "--api-key", "k", "--option", "trash"], 2, "NAME=VALUE"),
        (["x", "--type", "drime", "--api-key", "k", "--option", "trahs=true"], 1, "trahs"),
        (["x", "--type", "drime", "--api-key", "k", "--path", "a/../b"], 1, "'..'"),
    ],
)
def test_mistakes(home: dict[str, str], words: list[str], status: int, message: str) -> None:
    done = run(home, "add", *words, status=status)
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if "warning" not in line]) == 1
    assert not file_of(home).exists()


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("rest://ann@host/store", ["username=ann", "password=hush"], "--option password holds"),
        ("sftp://ann:hush@host/x", [], "--url holds"),
        ("memory:", [], None),
    ],
)
def test_a_secret_on_the_command_line_is_warned_of(
    home: dict[str, str], url: str, options: list[str], named: str | None
) -> None:
    given = [word for option in options for word in ("--option", option)]
    done = run(home, "add", "x", "--type", url.partition(":")[0], "--url", url, *given)
    assert ("warning: " in done.stderr) == (named is not None)
    assert (named or "") in done.stderr
    assert "hush" not in done.stderr


def test_one_that_exists_is_not_replaced_unasked(home: dict[str, str]) -> None:
    run(home, "add", "x", "--type", "local", "--path", "/one")
    refused = run(home, "add", "x", "--type", "local", "--path", "/two", status=1)
    assert "--force" in refused.stderr
    run(home, "add", "x", "--type", "local", "--path", "/two", "--force")
    assert run(home, "list").stdout == "x  file:///two\n"


def test_the_key_is_asked_for_on_a_terminal(home: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with Child(
        [sys.executable, "-m", "backupgw.runtime.cli", "config", "add", "d", "--type", "drime"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **home},
        cwd=home["HOME"],
        start_new_session=True,
    ) as process:
        os.close(theirs)
        said = b""
        while b"Drime API key: " not in said:
            said += os.read(ours, 1000)
        os.write(ours, f"{KEY}\n".encode())
        try:
            while piece := os.read(ours, 1000):
                said += piece
        except OSError:
            pass  # what Linux says at the end of a terminal
        assert process.wait(30) == 0, said
    os.close(ours)
    assert KEY.encode() not in said, "it is not echoed"
    assert NamedPlaces(file_of(home)).read()["d"]["api_key"] == KEY


def test_a_key_in_a_file_stays_there(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "key").chmod(0o600)
    run(home, "add", "d", "--type", "drime", "--api-key-file", "key", "--delete-forever", "false")
    assert KEY not in file_of(home).read_text()
    place = load(environ=home, services={}).places["d"]
    assert place.options() == {"api_key": KEY, "trash": True}


def test_many_changes_at_once_lose_nothing(tmp_path: Path) -> None:
    """pyrestserver's saves went through one temporary file, and swapped contents."""
    file = NamedPlaces(tmp_path / "backends.toml")

    def add(number: int) -> None:
        for step in range(10):
            with file.changing() as places:
                places[f"p{number}-{step}"] = {"url": f"file:///{number}/{step}"}

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read()) == 80
    assert [path.name for path in tmp_path.iterdir()] == ["backends.toml"]


def test_any_text_survives_the_file(tmp_path: Path) -> None:
    file = NamedPlaces(tmp_path / "backends.toml")
    table = {"url": 'a"b\\c\n\t\x7fé🗄', "n": 7, "yes": True, "s": {"file": "/x y"}, "l": ["a"]}
    with file.changing() as places:
        places["x"] = table
    assert file.read() == {"x": table}
    file.path.write_text("[x\n")
    with pytest.raises(CommandError, match="not valid TOML"):
        file.read()


# -- pyrestserver's files


def obscured(text: str, key: str = PYRESTSERVERS) -> str:
    """As vaultconfig's obscurer does it."""
    block = os.urandom(16)
    encryptor = Cipher(algorithms.AES(bytes.fromhex(key)), modes.CTR(block)).encryptor()
    data = block + encryptor.update(text.encode())
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def encrypted(text: str, password: str) -> str:
    """As vaultconfig's whole files are."""
    salt = os.urandom(16)
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 600_000)
    data = salt + bytes(SecretBox(key).encrypt(text.encode()))
    return f"VAULTCONFIG_ENCRYPT_V1:\n{base64.b64encode(data).decode()}\n"


def test_obscured_values_are_revealed_and_others_left_alone() -> None:
    for text in (KEY, "k", "a longer passphrase with blanks"):
        assert revealed(obscured(text)) == text
    vaultconfigs = "a73b9f2ce15d4a8eb6f4c97a3e915cd28b4fa36e1bc57d9a2fe84ba63cd15e92"
    assert revealed(obscured(KEY, vaultconfigs)) == KEY
    # Any 22 letters of base64 look obscured to vaultconfig.
    for plain in (KEY, "abcdefghijklmnopqrstuv", "Q" * 43, "", "not base64!"):
        assert revealed(plain) == plain


def test_import_of_documented_and_of_written_files(home: dict[str, str]) -> None:
    folder = Path(home["HOME"], ".config", "pyrestserver")
    folder.mkdir(parents=True)
    (folder / "backends.toml").write_text(
        '[local-main]\ntype = "local"\npath = "/srv/restic"\n\n'
        f'["Cloud Backup"]\ntype = "drime"\napi_key = "{obscured(KEY)}"\nworkspace_id = 0\n'
    )
    (folder / "work.toml").write_text(
        f'type = "drime"\napi_key = "{obscured(KEY)}"\nworkspace_id = 1593\n'
        "delete_forever = false\n"
    )
    (folder / "sealed.toml").write_text(
        encrypted(f'type = "drime"\napi_key = "{KEY}"\nworkspace_id = 2\n', "pass word")
    )
    (folder / "broken.toml").write_text('type = "tape"\n')
    looked = run(home, "import", "--dry-run", status=3)
    assert not file_of(home).exists()
    assert "sealed" in looked.stdout
    assert "VAULTCONFIG_PASSWORD_SEALED" in looked.stdout
    home |= {"VAULTCONFIG_PASSWORD_COMMAND": "echo 'pass word'"}
    done = run(home, "import", "--json", status=3)
    assert KEY not in done.stdout + done.stderr
    results = {each["name"]: each["status"] for each in json.loads(done.stdout)}
    assert results == {
        "local-main": "imported",
        "cloud-backup": "imported",
        "work": "imported",
        "sealed": "imported",
        "broken": "failed",
    }
    places = NamedPlaces(file_of(home)).read()
    assert places["local-main"] == {"url": "file:///srv/restic"}
    assert places["cloud-backup"] == {"url": "drime:", "api_key": KEY}
    assert places["work"] == {"url": "drime://1593/", "api_key": KEY, "trash": True}
    assert places["sealed"] == {"url": "drime://2/", "api_key": KEY}
    again = run(home, "import", status=3)
    assert again.stdout.count("skipped") == 4


def test_an_import_tells_of_each_file_that_has_nothing(home: dict[str, str]) -> None:
    folder = Path(home["HOME"], "theirs")
    folder.mkdir()
    (folder / "good.toml").write_text('type = "local"\npath = "/srv/restic"\n')
    (folder / "number.toml").write_text('type = 5\npath = "/x"\n')
    (folder / "empty.toml").touch()
    (folder / "cut.toml").write_text('type = "drime"\napi_key = "hush\n')
    (folder / "folder.toml").mkdir()
    done = run(home, "import", str(folder), status=3)
    told = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert told["good"].startswith("imported: ")
    assert "its type 5 is none" in told["number"]
    assert "there is no backend in it" in told["empty"]
    assert "it is not valid TOML at line 2" in told["cut"]
    assert "it cannot be read: it is not a regular file" in told["folder"]
    assert "hush" not in done.stdout + done.stderr
    assert [*NamedPlaces(file_of(home)).read()] == ["good"]


def test_a_wrong_password_of_an_encrypted_file(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(encrypted('type = "local"\npath = "/x"\n', "right"))
    wrong = run(home | {"VAULTCONFIG_PASSWORD": "wrong"}, "import", "one.toml", status=1)
    assert "the password is another one" in wrong.stdout
    run(home | {"VAULTCONFIG_PASSWORD_ONE": "right"}, "import", "one.toml")
    assert NamedPlaces(file_of(home)).read() == {"one": {"url": "file:///x"}}
