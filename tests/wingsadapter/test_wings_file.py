"""The Wings file: what is read of it, and how mistakes in it are told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from backupgw.runtime.settings_errors import SettingsError
from backupgw.wingsadapter.wings_file import Compression, WingsFile, read_wings_file

WHOLE = """\
debug: true
app_name: Pelican
uuid: 3f3c8e7a-6b62-4b1f-9a37-1f2c8c2b7f10
token_id: w0Jq7M2nV4xT8yZa
token: 0123456789
api:
  host: 127.0.0.1
  port: 8081
  ssl: {enabled: false, cert: /etc/x.pem, key: /etc/x.key}
  upload_limit: 256
system:
  root_directory: /var/lib/pelican
  data: DATA
  user: {uid: 988, gid: 987, rootless: {enabled: false}}
  backups:
    write_limit: 40
    compression_level: best_compression
    restic:
      enabled: true
      repository: "s3:s3.us-east-1.amazonaws.com/my-backup-bucket"
      password: "secure-restic-repository-password"
      aws_access_key_id: "AKIAIOSFODNN7EXAMPLE"
      aws_secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
      aws_region: "us-east-1"
      binary_path: "/usr/bin/restic"
allowed_origins: ["https://games.example.com"]
allow_cors_private_network: false
remote: https://panel.example.com/
"""
LEAST = "uuid: u\ntoken_id: i\ntoken: t\nremote: https://panel.example.com\n"


def read(
    folder: Path, text: str, environment: Mapping[str, str] | None = None, name: str = "config.yml"
) -> WingsFile:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return read_wings_file(str(file), environment=environment or {})


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as found:
        read(folder, text)
    return str(found.value).replace(f"{folder}/", "").splitlines()


def test_a_documented_file_is_read_whole(tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    (tmp_path / "link").symlink_to(volumes)
    file = read(tmp_path, WHOLE.replace("DATA", f"{tmp_path}/link"))
    assert (file.debug, file.token_id, file.token.reveal()) == (
        True,
        "w0Jq7M2nV4xT8yZa",
        "0123456789",  # not a number, and no zero lost
    )
    assert file.remote == "https://panel.example.com"
    assert (file.api.host, file.api.port, file.api.ssl.enabled) == ("127.0.0.1", 8081, False)
    assert file.data == os.path.realpath(volumes)
    assert file.owner() == (988, 987)
    backups = file.system.backups
    assert (backups.write_limit, backups.compression_level) == (40, Compression.BEST_COMPRESSION)
    restic = backups.restic
    assert (restic.enabled, restic.repository, restic.binary_path, restic.cache_dir) == (
        True,
        "s3:s3.us-east-1.amazonaws.com/my-backup-bucket",
        "/usr/bin/restic",
        "/var/cache/pelican/restic",
    )
    assert restic.password.reveal() == "secure-restic-repository-password"
    assert restic.aws_secret_access_key.reveal().startswith("wJalr")
    assert file.allowed_origins == ("https://games.example.com",)
    for secret in ("secure-restic", "wJalr", "0123456789"):
        assert secret not in repr(file)


def test_what_is_not_written_is_wings_default(tmp_path: Path) -> None:
    pelican = read(tmp_path, f"{LEAST}system:\n")
    assert (pelican.system.data, pelican.system.backup_directory, pelican.api.port) == (
        "/var/lib/pelican/volumes",
        "/var/lib/pelican/backups",
        8080,
    )
    assert not pelican.system.backups.restic.enabled
    pterodactyl = read(tmp_path, f"{LEAST}system: {{user: ~}}\n", name="pterodactyl/config.yml")
    assert (pterodactyl.system.data, pterodactyl.system.username) == (
        "/var/lib/pterodactyl/volumes",
        "pterodactyl",
    )


def test_tokens_come_from_the_environment_from_variables_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    text = LEAST.replace("token: t", "token: file://${CREDENTIALS_DIRECTORY}/token")
    file = read(tmp_path, text, {"CREDENTIALS_DIRECTORY": str(tmp_path), "WINGS_TOKEN_ID": "won"})
    assert (file.token_id, file.token.reveal()) == ("won", "from a file")
    with pytest.raises(SettingsError, match=r"config\.yml:3: token: /nowhere/x cannot be read"):
        read(tmp_path, LEAST.replace("token: t", "token: file:///nowhere/x"))


def test_anchors_and_merged_tables_are_read(tmp_path: Path) -> None:
    text = f"{LEAST}x: &user\n  uid: 7\n  gid: 8\nsystem:\n  user:\n    <<: *user\n    gid: 9\n"
    assert read(tmp_path, text).owner() == (7, 9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["config.yml: is empty"]),
        ("- a\n", ["config.yml:1: is not a table of keys"]),
        ("a: [\n", ["config.yml:2: is not YAML"]),
        (
            f"{LEAST}system:\n  backups:\n    write_limit: much\n",
            ["config.yml:7: system.backups.write_limit: must be a whole number, not 'much'"],
        ),
        (
            f"{LEAST}system:\n  backups:\n    compression_level: best_sped\n",
            ["config.yml:7: system.backups.compression_level: must be", "mean 'best_speed'?"],
        ),
        (f"{LEAST}token: again\n", ["config.yml:5: token: is there twice; remove one"]),
        (f"{LEAST}system: 5\n", ["config.yml:5: system: must be a table"]),
        (f"{LEAST}system: {{data: here}}\n", ["system.data: must be an absolute path"]),
        (f"{LEAST}api:\n  ssl:\n    enabled: true\n", ["config.yml:6: api.ssl: is enabled and"]),
        (LEAST.replace("https", "ftp"), ["config.yml:4: remote: must be the Panel's address"]),
        (LEAST.replace("token: t", 'token: ""'), ["config.yml:3: token: is empty"]),
        ("uuid: u\ntoken: t\nremote: http://a\n", ["token_id: is missing; add token_id: …"]),
        ("a: &a [*a]\n", ["config.yml:1: a[0]: refers to itself"]),
        ("[" * 5000, ["config.yml: is not YAML: it is nested too deeply"]),
    ],
)
def test_a_mistake_names_file_line_and_key(tmp_path: Path, text: str, expected: list[str]) -> None:
    told = "\n".join(mistakes(tmp_path, text))
    for part in expected:
        assert part in told


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    told = mistakes(tmp_path, f"{LEAST}\ntoken: hunter2: hunter3\n")
    assert "hunter" not in "".join(told)
    told = mistakes(tmp_path, LEAST.replace("token: t", "token: [hunter2]"))
    assert "hunter" not in "".join(told)


def test_a_file_that_is_missing_closed_or_a_pipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_wings_file(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="not a regular file"):
        read_wings_file(str(tmp_path / "pipe"))


def test_an_owner_that_this_machine_lacks_is_told(tmp_path: Path) -> None:
    file = read(tmp_path, f"{LEAST}system: {{username: nobody-of-that-name}}\n")
    with pytest.raises(SettingsError, match=r"set system\.user\.uid"):
        file.owner()
