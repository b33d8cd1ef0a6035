"""Providers as the guide has them: five calls, and what they say when something is wrong."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError, ObjectNotFound
from backupgw.providers import (
    PROVIDERS,
    BaseProvider,
    ConfigInvalid,
    PlaceProvider,
    UnknownProvider,
    create,
    place_of,
)
from backupgw.providers.aws_s3 import AWSS3Provider
from backupgw.providers.local import LocalProvider
from backupgw.providers.sftp import SFTPProvider
from tests.servers.peers import ROOT


def local(folder: Path, **config: Any) -> LocalProvider:
    return LocalProvider({"container": str(folder), "retry_delay": 0.1, **config})


def file_of(folder: Path, content: bytes, name: str = "photos.tar") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_names_are_those_of_the_guide() -> None:
    assert LocalProvider({"container": "/x"}).name == "local"
    assert AWSS3Provider({}).name == "awss3"
    assert isinstance(PROVIDERS["aws_s3"], type)


def test_a_file_goes_there_and_comes_back(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    with local(tmp_path / "nas") as provider:
        assert provider.test_connection() is True
        assert provider.upload(file_of(tmp_path, content), "2026/photos.tar") is True
        [found] = provider.list_files()
        assert (found["name"], found["size"]) == ("2026/photos.tar", len(content))
        assert found["mtime"] > 1_700_000_000
        assert provider.download("2026/photos.tar", tmp_path / "back" / "photos.tar") is True
        assert provider.delete("2026/photos.tar") is True
        assert provider.list_files() == []
        assert provider.last_error is None
    assert (tmp_path / "back" / "photos.tar").read_bytes() == content


def test_progress_tells_real_bytes(tmp_path: Path) -> None:
    content = os.urandom((2 << 20) + 77)
    seen: list[tuple[int, int]] = []
    back: list[tuple[int, int]] = []
    with local(tmp_path / "nas") as provider:
        provider.upload(file_of(tmp_path, content), "a", lambda *told: seen.append(told))
        provider.download("a", tmp_path / "b", lambda *told: back.append(told))
        empty = file_of(tmp_path, b"", "empty")
        told: list[tuple[int, int]] = []
        assert provider.upload(empty, "empty", lambda *each: told.append(each))
    size = len(content)
    for calls in (seen, back):
        assert calls[0] == (0, size)
        assert calls[-1] == (size, size)
        assert len(calls) > 3
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert told[-1] == (0, 0)


@pytest.mark.parametrize("what", ["delete", "download"])
def test_what_is_not_there_is_no_success(tmp_path: Path, what: str) -> None:
    with local(tmp_path / "nas") as provider:
        assert provider.test_connection()
        if what == "delete":
            assert provider.delete("nothing") is False
        else:
            assert provider.download("nothing", tmp_path / "x") is False
            assert not (tmp_path / "x").exists()
        assert isinstance(provider.last_error, ObjectNotFound)


def test_a_failed_download_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    kept = file_of(tmp_path, b"before")
    with local(tmp_path / "nas") as provider:
        assert provider.download("nothing", kept) is False
    assert kept.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_list_that_failed_is_not_an_empty_one(tmp_path: Path) -> None:
    folder = tmp_path / "nas"
    with local(folder) as provider:
        assert provider.list_files() == []
    folder.rename(tmp_path / "unmounted")
    with local(folder, create_container=False) as provider:
        with pytest.raises(BackendDoesNotExist):
            provider.list_files()
        assert isinstance(provider.last_error, BackendDoesNotExist)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with local(tmp_path / "nas") as provider:
        assert provider.upload(tmp_path / "missing.tar", "x") is False
        assert "missing.tar" in str(provider.last_error)
        assert provider.upload(tmp_path, "x") is False
        assert provider.upload(tmp_path / "missing.tar", "../x") is False
        assert "'..'" in str(provider.last_error)
        assert provider.list_files() == []


def test_the_container_is_made_once(tmp_path: Path) -> None:
    """Later its absence means that something is not mounted."""
    provider = local(tmp_path / "nas", create_container=False)
    assert provider.test_connection() is False
    assert isinstance(provider.last_error, BackendDoesNotExist)
    assert not (tmp_path / "nas").exists()


def test_lists_by_prefix_and_number(tmp_path: Path) -> None:
    source = file_of(tmp_path, b"x")
    with local(tmp_path / "nas") as provider:
        for name in ("a/1", "a/2", "ab/3", "b"):
            assert provider.upload(source, name)
        assert [each["name"] for each in provider.list_files("a")] == ["a/1", "a/2", "ab/3"]
        assert [each["name"] for each in provider.list_files("a/")] == ["a/1", "a/2"]
        assert len(provider.list_files(max_files=2)) == 2
        assert provider.list_files("nothing/below") == []


def test_encrypted_files_are_age_files(tmp_path: Path) -> None:
    content = b"diary " * 50_000
    config = {"encryption_enabled": True, "encryption_key": "correct horse battery staple"}
    with local(tmp_path / "nas", **config) as provider:
        assert provider.upload(file_of(tmp_path, content), "diary")
        assert provider.list_files()[0]["size"] == len(content)
    stored = (tmp_path / "nas" / "diary").read_bytes()
    assert stored.startswith(b"age-encryption.org/v1")
    assert b"diary " not in stored
    with local(tmp_path / "nas", **config) as provider:
        assert provider.download("diary", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    config["encryption_key"] = "another"
    with local(tmp_path / "nas", **config) as provider:
        assert provider.download("diary", tmp_path / "back2") is False
        assert "another" not in str(provider.last_error)


def test_encryption_needs_a_key() -> None:
    with pytest.raises(ConfigInvalid, match="encryption_key: is missing"):
        LocalProvider({"container": "/x", "encryption_enabled": True})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_retries", 0, "from 1 to 10"),
        ("max_retries", 11, "from 1 to 10"),
        ("max_retries", "many", "from 1 to 10"),
        ("retry_delay", 0.01, "from 0.1 to 60 seconds"),
        ("retry_delay", 61, "from 0.1 to 60 seconds"),
        ("timeout", 29, "from 30 to 3600 seconds"),
        ("timeout", True, "is no time"),
        ("max_bandwidth", 1023, "at least 1024 bytes per second"),
        ("max_bandwidth", "08:00,512 19:00,10M", "at least 1024 bytes per second"),
        ("max_bandwidth", "fast", "is no number of bytes"),
        ("upload_chunk_size", (1 << 20) - 1, "from 1048576"),
        ("upload_chunk_size", (1 << 30) + 1, "1 GiB"),
        ("connection_pool_size", 21, "from 1 to 20"),
        ("encryption_enabled", "perhaps", "true or false"),
        ("container_type", "bag", "bucket, folder"),
        ("container", "relative", "an absolute path"),
        ("container", None, "is missing"),
    ],
)
def test_a_mistake_names_its_field(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        LocalProvider({"container": "/srv/x", field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_retries", 10),
        ("retry_delay", 0.1),
        ("timeout", 3600),
        ("max_bandwidth", 1024),
        ("max_bandwidth", "08:00,512k 19:00,10M 23:00,off"),
        ("max_bandwidth", None),
        ("upload_chunk_size", 1 << 20),
        ("upload_chunk_size", 1 << 30),
        ("connection_pool_size", 20),
        ("encryption_salt", None),
    ],
)
def test_the_limits_themselves_are_taken(field: str, value: object) -> None:
    provider = LocalProvider({"container": "/srv/x", field: value})
    assert provider.values[field] == value


def test_the_defaults_are_the_guides() -> None:
    values = AWSS3Provider({}).values
    assert values["container"] == "homeserver-backups"
    assert (values["max_retries"], values["retry_delay"], values["timeout"]) == (3, 1.0, 300.0)
    assert (values["max_bandwidth"], values["upload_chunk_size"]) == (None, 104857600)
    assert (values["encryption_enabled"], values["connection_pool_size"]) == (False, 5)


def test_a_secret_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        AWSS3Provider({"secret_key": ["hunter2hunter2"], "access_key": "id"})
    assert "hunter2" not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None
    provider = SFTPProvider({"host": "h", "username": "u", "password": "hunter2hunter2"})
    assert "hunter2" not in repr(provider) + repr(provider.plan())
    with pytest.raises(ConfigInvalid, match="access_key: is missing"):
        AWSS3Provider({"secret_key": "hunter2hunter2"})


def test_an_unknown_field_is_told_with_the_near_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        local(Path("/srv/x"), max_retires=3)
    assert "'max_retries'" in caplog.text


def test_providers_that_are_unknown_or_whose_library_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UnknownProvider, match="'aws_s3'"):
        create("awss3", {})
    monkeypatch.setattr(AWSS3Provider, "libraries", ("surely_not_installed",))
    listed = {each.id: each for each in PROVIDERS.listed()}
    assert listed["aws_s3"].problem == (
        "needs surely_not_installed, which is not installed: pip install 'backupgw-kvstore[s3]'"
    )
    assert listed["local"].problem == ""
    with pytest.raises(BackendDoesNotExist, match="pip install"):
        create("aws_s3", {})


def test_rclone_is_to_be_had_where_it_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    problem = next(each for each in PROVIDERS.listed() if each.id == "rclone").problem
    assert "1.68 or newer, from https://rclone.org/install/" in problem
    assert "apt-get" not in problem


def test_a_provider_can_be_added_as_in_the_guide() -> None:
    class NewProvider(LocalProvider):
        pass

    PROVIDERS["new_provider"] = NewProvider
    try:
        assert "new_provider" in PROVIDERS
        provider = create("new_provider", {"container": "/x"})
        assert provider.name == "new"
    finally:
        del PROVIDERS["new_provider"]
    assert "new_provider" not in PROVIDERS


def test_the_place_of_a_provider_shares_its_files_and_its_key(tmp_path: Path) -> None:
    config = {"encryption_enabled": True, "encryption_key": "correct horse battery staple"}
    with local(tmp_path / "nas", **config) as provider:
        assert provider.upload(file_of(tmp_path, b"content"), "x")
        with place_of(provider) as place:
            assert place.load("x") == b"content"


def test_a_provider_that_nobody_closes_lets_go(tmp_path: Path) -> None:
    provider = local(tmp_path / "nas")
    place = provider.open()
    del provider
    gc.collect()  # what failed on the way, where the folder was missing, knows it too
    with pytest.raises(BackendError):
        place.info("")


def test_a_provider_with_methods_missing_is_none() -> None:
    class Half(BaseProvider):
        def delete(self, remote_name: str) -> bool:
            return False

    with pytest.raises(TypeError, match="abstract"):
        Half({})  # type: ignore[abstract]


def test_every_provider_says_what_its_credentials_are() -> None:
    assert {each.id for each in PROVIDERS.listed()} == {
        "aws_s3", "backblaze", "drime", "dropbox", "google_cloud_storage", "google_drive", "local",
        "rclone", "sftp",
    }  # fmt: skip
    for listed in PROVIDERS.listed():
        assert listed.kind is not None
        assert issubclass(listed.kind, PlaceProvider)
        names = {field.name for field in listed.kind.all_fields()}
        assert set(listed.kind.credentials) <= names


@pytest.mark.parametrize("name", [*PROVIDERS])
def test_every_field_is_on_the_providers_page(name: str) -> None:
    page = (ROOT / "docs" / "providers" / f"{name}.md").read_text()
    for field in PROVIDERS[name].fields:
        assert f"| `{field.name}` |" in page
        assert field.help in page
    for heading in ("Overview", "Configuration", "Setup", "Usage", "Troubleshooting", "Security"):
        assert f"## {heading}" in page
