"""Settings in an etcd, a real one: beneath all others, mistakes told by their key, never half."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime.etcd import Etcd, EtcdError
from backupgw.runtime.settings import Settings, SettingsError, load
from tests.servers.etcd import EtcdServer
from tests.servers.tls import Certificate
from tests.servers.vfs_manager import VfsManager

pytestmark = pytest.mark.root("etcd")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def etcd(
    running: EtcdServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EtcdServer]:
    monkeypatch.chdir(tmp_path)
    yield running
    running.empty()


def read(
    etcd: EtcdServer, text: str = "", overrides: Mapping[str, Any] | None = None, **environ: str
) -> Settings:
    config = Path("gw.toml")
    config.write_text(f'[etcd]\nurls = "{etcd.url}"\n{text}')
    config.chmod(0o600)
    return load(config, overrides, environ, serving=())


def mistakes(etcd: EtcdServer, text: str = "") -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(etcd, text)
    return str(caught.value).splitlines()


def test_it_says_what_nobody_else_does(etcd: EtcdServer) -> None:
    etcd.put("/backupgw/vfs/keep_deleted", "3600")
    etcd.put("/backupgw/vfs/most_folders", "7")
    etcd.put("/backupgw/vfs/max_upload", "3 GiB")
    etcd.put("/backupgw/vfs/upload_lifetime", "120")
    etcd.put("/backupgw/vfs/users", json.dumps({"bytes": "10 GiB", "files": 5}))
    etcd.put("/backupgw/vfs/volumes/main/type", "fs")
    etcd.put("/backupgw/vfs/volumes/main/path", "/srv/main")
    etcd.put("/backupgw/places/nas/url", "file:///srv/nas")
    etcd.put("/backupgw/vfs_manager/token", json.dumps({"env": "TOKEN_OF_THE_MANAGER"}))
    etcd.put("/backupgw/vfs/threads", "")
    etcd.put("/backupgwish/vfs/threads", "5")
    file = "[vfs]\nmost_folders = 9\n[vfs.users]\nfiles = 6\n"
    settings = read(etcd, file, {"vfs.max_upload": "1 GiB"}, BACKUPGW_VFS__UPLOAD_LIFETIME="60")
    vfs = settings.section("vfs")
    assert vfs.keep_deleted == 3600
    assert vfs.most_folders == 9, "the file counts before it"
    assert vfs.upload_lifetime == 60, "so does the environment"
    assert vfs.max_upload == 1 << 30, "and a flag"
    assert (vfs.users.bytes, vfs.users.files) == (10 << 30, 6)
    assert vfs.volumes["main"].path == Path("/srv/main")
    assert vfs.threads == 24
    assert settings.places["nas"].url == "file:///srv/nas"
    assert settings.section("vfs_manager").token.origin == "env TOKEN_OF_THE_MANAGER"
    assert str(settings.origin("vfs", "keep_deleted")) == "etcd key /backupgw/vfs/keep_deleted"
    assert str(settings.origin("vfs", "most_folders")) == "gw.toml:4"


def test_the_file_s_way_to_a_secret_replaces_the_other(etcd: EtcdServer) -> None:
    etcd.put("/backupgw/vfs_manager/token/env", "TOKEN_OF_THE_MANAGER")
    settings = read(etcd, '[vfs_manager]\ntoken = { file = "/etc/token" }\n')
    assert settings.section("vfs_manager").token.origin == "file /etc/token"


def test_mistakes_name_their_key(etcd: EtcdServer) -> None:
    for key, value in (
        ("vfs/keep_deleted", "for ever"),
        ("vfs/kept_deleted", "5"),
        ("places/nas/url", "nonsense"),
        ("rest/listen", ":80"),
        ("vfs", "{}"),
        ("vfs/users", "{}"),
        ("vfs/users/bytes", "5"),
        ("vfs_manager/token", json.dumps({"command": ["cat", "/etc/shadow"]})),
    ):
        etcd.put(f"/backupgw/{key}", value)
    told = mistakes(etcd)
    assert len(told) == 4
    assert "etcd key /backupgw/rest/listen: [rest] is not taken from etcd" in told[0]
    assert told[1].startswith("etcd key /backupgw/vfs: is no setting's key")
    assert told[2].startswith("etcd key /backupgw/vfs/users/bytes: vfs/users has a value")
    assert told[3].startswith("etcd key /backupgw/vfs_manager/token: a command is not taken")
    for key in ("rest/listen", "vfs", "vfs/users/bytes", "vfs_manager/token"):
        etcd.remove(f"/backupgw/{key}")
    told = mistakes(etcd)
    assert sorted(line.split(": ")[0] for line in told) == [
        "etcd key /backupgw/places/nas/url",
        "etcd key /backupgw/vfs/keep_deleted",
        "etcd key /backupgw/vfs/kept_deleted",
    ]
    assert any("vfs.kept_deleted: is not a setting; did you mean" in line for line in told)


def test_other_sections_are_taken_when_it_is_said(etcd: EtcdServer) -> None:
    etcd.put("/common/rest/workers", "3")
    text = 'prefix = "/common/"\nsections = ["rest"]\n'
    assert read(etcd, text).section("rest").workers == 3


def test_away_is_one_clear_line(etcd: EtcdServer, tmp_path: Path) -> None:
    config = tmp_path / "gw.toml"
    config.write_text(
        '[etcd]\ntimeout = 0.2\nurls = ["http://127.0.0.1:1", "http://nowhere.invalid:2379"]\n'
    )
    began = time.monotonic()
    with pytest.raises(SettingsError) as caught:
        load(config, {}, {}, serving=())
    assert time.monotonic() - began < 20
    told = str(caught.value)
    assert told.startswith(f"{config}:3: etcd.urls: the settings in etcd cannot be read")
    assert "http://127.0.0.1:1: Connection refused; http://nowhere.invalid:2379: " in told
    assert "\n" not in told


@pytest.mark.parametrize("option", ["ca", "cert"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, option: str) -> None:
    config, missing = tmp_path / "gw.toml", tmp_path / "missing.pem"
    key = f'\nkey = "{missing}"' if option == "cert" else ""
    config.write_text(f'[etcd]\nurls = ["https://127.0.0.1:1"]\n{option} = "{missing}"{key}\n')
    with pytest.raises(SettingsError, match=rf"{missing} cannot be used: No such file"):
        load(config, {}, {}, serving=())


def test_the_first_member_that_answers_counts(etcd: EtcdServer) -> None:
    etcd.put("/backupgw/vfs/threads", "5")
    Path("gw.toml").write_text(f'[etcd]\nurls = ["http://127.0.0.1:1", "{etcd.url}"]\n')
    assert load(Path("gw.toml"), {}, {}, serving=()).section("vfs").threads == 5


def test_what_is_no_etcd_is_told() -> None:
    with VfsManager() as somebody, pytest.raises(EtcdError, match="is not an etcd's"):
        Etcd([somebody.url]).below("/backupgw/")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('urls = "etcd.example:2379"', "is no member"),
        ('urls = "http://root:geheim@etcd.example:2379"', "use user and password"),
        ('urls = "http://etcd.example"\nprefix = "backupgw"', "etcd.prefix"),
        ('urls = "http://etcd.example"\npassword = "geheim"', "without a user"),
    ],
)
def test_mistakes_in_its_own_section(etcd: EtcdServer, text: str, told: str) -> None:
    Path("gw.toml").write_text(f"[etcd]\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load(Path("gw.toml"), {}, {}, serving=())
    assert "gw.toml:" in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert told in str(caught.value)


def test_passwords_and_tls(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--cert-file", str(certificate.chain), "--key-file", str(certificate.key))
    with EtcdServer(tmp_path / "plain") as server:
        server.put("/backupgw/vfs/threads", "5")
        server.put("/other/secret", "5")
        server.demand_passwords("gateway", "geheim", "/backupgw/")
        monkeypatch.setenv("OF_THE_GATEWAY", "geheim")
        who = 'user = "gateway"\npassword = { env = "OF_THE_GATEWAY" }\n'
        config = tmp_path / "gw.toml"
        config.write_text(f'[etcd]\nurls = "{server.url}"\n{who}')
        assert load(config, {}, {}, serving=()).section("vfs").threads == 5
        for text, reason in (
            ("", "user name is empty"),
            (who.replace("gateway", "somebody"), "authentication failed"),
            (f'{who}prefix = "/other/"\n', "permission denied"),
        ):
            config.write_text(f'[etcd]\nurls = "{server.url}"\n{text}')
            with pytest.raises(SettingsError) as caught:
                load(config, {}, {}, serving=())
            assert reason in str(caught.value)
            assert "geheim" not in str(caught.value)
    with EtcdServer(tmp_path / "tls", flags=flags, scheme="https") as server:
        with pytest.raises(EtcdError, match="is not trusted"):
            Etcd([server.url]).below("/backupgw/")
        assert Etcd([server.url], authority=certificate.authority).below("/backupgw/") == {}
