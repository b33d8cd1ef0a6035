"""Which names pass, which are refused, and that every key is a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupgw.kvstore.conformance.naming_checks import DECENT, HOSTILE
from backupgw.kvstore.names import (
    InvalidName,
    check_folder,
    check_key,
    check_path,
    is_reserved,
)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:30]))
def test_hostile_names_are_refused(name: str) -> None:
    for check in (check_path, check_folder, check_key):
        with pytest.raises(InvalidName):
            check(name)


@pytest.mark.parametrize("name", DECENT, ids=lambda name: ascii(name[:30]))
def test_decent_names_pass_unchanged(name: str) -> None:
    assert check_path(name) == check_folder(name) == name
    assert check_path(f"folder/{name}/item") == f"folder/{name}/item"


def test_only_a_folder_may_be_the_root() -> None:
    assert check_folder("") == ""
    for check in (check_path, check_key):
        with pytest.raises(InvalidName):
            check("")


@given(st.text(max_size=40))
def test_whatever_passes_stays_beneath(name: str) -> None:
    """No name that passes has a segment that a file system would follow elsewhere."""
    try:
        check_path(name)
    except InvalidName:
        return
    segments = name.split("/")
    assert not {"", ".", ".."} & set(segments)
    assert "\0" not in name
    assert not any(map(is_reserved, segments))
    assert name.encode().decode() == name


@given(st.text(st.characters(max_codepoint=0x17F), max_size=110))
def test_every_key_is_a_path(name: str) -> None:
    try:
        check_key(name)
    except InvalidName:
        return
    assert check_path(name) == name
    assert name.isascii()
    assert name == name.lower()
    assert len(name) <= 100


@pytest.mark.parametrize("name", [None, b"bytes", 1])
def test_names_are_text(name: object) -> None:
    for check in (check_path, check_key):
        with pytest.raises(TypeError):
            check(name)  # type: ignore[arg-type]
