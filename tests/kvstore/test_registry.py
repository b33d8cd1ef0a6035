"""A URL finds its backend, and a wrong one gets an answer that helps."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from backupgw.kvstore import entry_points, open_place, registry
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError, BackendURLInvalid
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.registry import redact_url


def from_url(url: str, *, colour: str = "red") -> Backend:
    backend = Memory()
    backend.seen = (url, colour)  # type: ignore[attr-defined]
    return backend


def entry(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name=name, value=value, group=registry.GROUP)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[metadata.EntryPoint]:
    found = [entry("mine", f"{__name__}:from_url")]
    monkeypatch.setattr(entry_points, "installed", lambda group: found)
    return found


def test_what_the_kernel_brings_is_registered() -> None:
    assert {"file", "memory"} <= set(registry.schemes())


def test_the_scheme_finds_the_backend_and_options_reach_it(entries: Any) -> None:
    backend: Any = open_place("MINE://host/path", colour="blue")
    assert backend.seen == ("MINE://host/path", "blue")


def test_an_unknown_option_is_named_with_the_near_one(entries: Any) -> None:
    with pytest.raises(BackendURLInvalid, match=r"'color'; did you mean 'colour'\?.*known: colour"):
        open_place("mine://host", color="blue")


@pytest.mark.parametrize("value", [5, True, ["blue"], {"env": "hush"}])
def test_what_must_be_text_and_is_none_is_named_and_not_shown(entries: Any, value: object) -> None:
    with pytest.raises(BackendURLInvalid) as caught:
        open_place("mine://host", colour=value)
    assert str(caught.value) == "mine: colour: must be text; write it in quotes"


@pytest.mark.parametrize(
    ("url", "option"),
    [("s3://bucket", "region"), ("gs://bucket", "service_account"), ("rest://host/x", "rsh"),
     ("rclone:remote:x", "binary"), ("http://host", "password"), ("sftp://host/x", "password")],
)  # fmt: skip
def test_the_kernels_own_places_take_no_number_for_text(url: str, option: str) -> None:
    options: dict[str, Any] = {option: 5}
    with pytest.raises(BackendURLInvalid, match=option):
        open_place(url, **options)


def test_an_unknown_scheme_is_named_with_the_near_one() -> None:
    with pytest.raises(BackendURLInvalid, match=r"'flie'; did you mean 'file'\?.*memory"):
        open_place("flie:///srv")


def test_secrets_of_an_unknown_url_stay_secret() -> None:
    with pytest.raises(BackendURLInvalid) as caught:
        open_place("nosuch://user:hush@host/path?token=hush")
    assert "hush" not in str(caught.value)
    assert "host/path" in str(caught.value)


def test_a_path_gets_the_url_to_write() -> None:
    with pytest.raises(BackendURLInvalid, match=r"file:///srv/backup"):
        open_place("/srv/backup")
    with pytest.raises(BackendURLInvalid, match="not a URL"):
        open_place("")


def test_a_missing_library_gets_the_install_command(entries: list[metadata.EntryPoint]) -> None:
    entries.append(entry("lib", "tests.kvstore.needs_a_library:from_url"))
    with pytest.raises(BackendDoesNotExist, match=r"pip install no_such_library_at_all"):
        open_place("lib:x")


def test_an_extra_of_the_package_is_the_install_command(
    entries: list[metadata.EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Package(metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            text = "Metadata-Version: 2.1\nName: some-package\nVersion: 1\nProvides-Extra: lib\n"
            return text if filename == "METADATA" else None

        def locate_file(self, path: Any) -> Any:
            return path

    lib = entry("lib", "tests.kvstore.needs_a_library:from_url")
    vars(lib)["dist"] = Package()
    entries.append(lib)
    with pytest.raises(BackendDoesNotExist, match=r"pip install 'some-package\[lib\]'"):
        open_place("lib:x")


def test_a_broken_package_is_not_taken_for_a_missing_library(
    entries: list[metadata.EntryPoint],
) -> None:
    entries.append(entry("gone", "tests.kvstore.no_such_module:from_url"))
    with pytest.raises(BackendDoesNotExist, match="not whole"):
        open_place("gone:x")


def test_two_packages_with_one_scheme_are_refused(entries: list[metadata.EntryPoint]) -> None:
    entries.append(entry("mine", "elsewhere:from_url"))
    with pytest.raises(BackendError, match="two packages claim"):
        open_place("mine:x")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:///srv/a@b", "file:///srv/a@b"),
        ("memory:name", "memory:name"),
        ("sftp://host/path", "sftp://host/path"),
        ("sftp://user:hush@host/path", "sftp://***@host/path"),
        ("http://user:hu/sh@host/path", "http://***@host/path"),
        ("http://user:hu@sh@host/path", "http://***@host/path"),
        ("http://user:hu?sh@host/path", "http://***"),
        ("http://host/path?token=hush", "http://host/path?***"),
        ("http://host/path#hush", "http://host/path?***"),
        ("http://host/path?mail=a@hush", "http://***"),
        ("s3:id:hush@https://host/bucket", "s3:***@https://host/bucket"),
        ("s3:id:hu/sh@/bucket/path", "s3:***@/bucket/path"),
        ("rclone:remote:path", "rclone:remote:path"),
        ("user:hush@host", "user:***@host"),
        ("no url with hush@host", "***"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "hush" not in redact_url(url)
