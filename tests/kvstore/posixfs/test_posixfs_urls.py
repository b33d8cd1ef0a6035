"""How a local folder is written as a place."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends.errors import BackendURLInvalid
from backupgw.kvstore.backends.posixfs import from_url
from backupgw.kvstore.registry import open_place


@pytest.mark.parametrize(
    "url", ["file:relative", "file://host/path", "file:///a?b", "file:///a#b", "file:///a%00b"]
)
def test_a_url_that_names_no_folder_is_refused(url: str) -> None:
    with pytest.raises(BackendURLInvalid):
        from_url(url)


def test_a_url_is_decoded(tmp_path: Path) -> None:
    backend = from_url(f"file://{tmp_path}/with%20blank%3F")
    backend.create()
    assert (tmp_path / "with blank?").is_dir()


@pytest.mark.parametrize(
    "option",
    [
        {"durability": "slow"},
        {"durability": None},
        {"follow": 5},
        {"follow": ["relative"]},
        {"follow": [5]},
        {"file_mode": "rw"},
        {"file_mode": 640},
        {"file_mode": 0o400},
        {"folder_mode": 0o660},
        {"folder_mode": True},
    ],
    ids=str,
)
def test_an_option_without_a_possible_value_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(BackendURLInvalid, match=next(iter(option))):
        open_place("file:///srv/place", **option)


def test_options_may_come_as_text(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/place", file_mode="0640", follow="/mnt/disk")
    place.create()
    with place:
        place.store("a", b"")
    assert stat.S_IMODE((tmp_path / "place/a").stat().st_mode) == 0o640
