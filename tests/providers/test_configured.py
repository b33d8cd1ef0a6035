"""The providers of an installation: two files, one of them without a secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backupgw.providers.configured import CONFIGURATION, CREDENTIALS, ConfiguredProviders
from backupgw.runtime.command import UsageError

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"


@pytest.fixture
def providers(tmp_path: Path) -> ConfiguredProviders:
    return ConfiguredProviders(tmp_path)


def test_every_installed_provider_is_there_and_disabled(providers: ConfiguredProviders) -> None:
    found = {each.name: each for each in providers.all()}
    assert {"local", "aws_s3", "sftp"} <= found.keys()
    assert not any(each.enabled or each.present for each in found.values())
    assert not providers.path.exists()


def test_credentials_lie_apart_from_the_configuration(
    providers: ConfiguredProviders, tmp_path: Path
) -> None:
    providers.set("aws_s3", {"container": "mine", "enabled": True})
    assert providers.set_credentials("aws_s3", "AKIA1", SECRET) == ["access_key", "secret_key"]
    assert SECRET not in (tmp_path / CONFIGURATION).read_text()
    assert SECRET in (tmp_path / CREDENTIALS).read_text()
    for name in (CONFIGURATION, CREDENTIALS):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    provider = providers.make("aws_s3")
    assert provider.values["access_key"] == "AKIA1"
    assert provider.values["secret_key"] == SECRET
    assert [each.name for each in providers.enabled()] == ["aws_s3"]
    assert SECRET not in repr(providers.get("aws_s3")) + repr(providers.secrets_of("aws_s3"))


def test_a_secret_can_come_from_elsewhere(
    providers: ConfiguredProviders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_SECRET", SECRET)
    providers.set("aws_s3", {"access_key": "AKIA1", "secret_key": {"env": "S3_SECRET"}})
    assert providers.make("aws_s3").values["secret_key"] == SECRET
    assert SECRET not in (tmp_path / CREDENTIALS).read_text()


def test_a_secret_field_never_lands_in_the_configuration(
    providers: ConfiguredProviders, tmp_path: Path
) -> None:
    providers.set("aws_s3", {"encryption_key": SECRET, "encryption_enabled": True})
    assert SECRET not in (tmp_path / CONFIGURATION).read_text()
    assert providers.make("aws_s3").values["encryption_key"] == SECRET


def test_two_of_a_kind(providers: ConfiguredProviders, tmp_path: Path) -> None:
    providers.add("offsite", "local")
    providers.set("offsite", {"container": str(tmp_path / "a")})
    providers.set("local", {"container": str(tmp_path / "b"), "credentials_key": "shared"})
    assert providers.make("offsite").values["container"] == str(tmp_path / "a")
    assert providers.get("offsite").kind == "local"
    assert providers.get("local").credentials_key == "shared"
    with pytest.raises(UsageError, match="of the kind local already"):
        providers.add("offsite", "sftp")
    with pytest.raises(UsageError, match="of its own kind"):
        providers.add("sftp", "local")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_retires", 3, "did you mean 'max_retries'"),
        ("max_retries", 99, "max_retries: must be a whole number from 1 to 10"),
    ],
)
def test_what_cannot_be_is_not_kept(
    providers: ConfiguredProviders, field: str, value: object, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        providers.set("local", {field: value})
    assert not providers.path.exists()


def test_a_name_that_nobody_knows(providers: ConfiguredProviders) -> None:
    with pytest.raises(UsageError, match="did you mean 'aws_s3'"):
        providers.get("aws-s3")


def test_taking_back(providers: ConfiguredProviders) -> None:
    providers.set("local", {"timeout": 60})
    providers.set("local", {"timeout": None})
    assert dict(providers.get("local").config) == {}
    providers.set_credentials("aws_s3", "AKIA1", SECRET)
    assert providers.remove_credentials("aws_s3") is True
    assert providers.remove_credentials("aws_s3") is False
    assert providers.secrets_of("aws_s3") == {}


def test_beside_the_settings_file(tmp_path: Path) -> None:
    found = ConfiguredProviders.beside(tmp_path / "gw.toml", os.environ)
    assert found.path == tmp_path / CONFIGURATION


def test_providers_of_other_settings_are_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes ./backupgw.toml after configuring providers without it has two of everything."""
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": str(tmp_path / "home")}
    ConfiguredProviders.beside(None, environ).set("local", {"container": "/x", "enabled": True})
    there = tmp_path / "home" / ".config" / "backupgw"
    (tmp_path / "backupgw.toml").write_text("")
    found = ConfiguredProviders.beside(None, environ)
    assert found.enabled() == []
    assert str(there / CONFIGURATION) in found.nobody()
    assert f"--config {there / 'backupgw.toml'}" in found.nobody()


def test_an_endpoint_without_its_scheme_is_refused(providers: ConfiguredProviders) -> None:
    with pytest.raises(UsageError, match="endpoint: must begin with https://"):
        providers.set("aws_s3", {"endpoint": "s3.example.org:9000"})
