"""Names of ours in Drime."""

from __future__ import annotations

import random

import pytest
from tests.servers.drime_entries import Account, Refused, Switches

from backupgw.kvstore.backends import drime_names
from backupgw.kvstore.backends.errors import NameTooLong

ODD = 'a.%2Ff \t\n\\"\x00\x1f\x7f\x85\u2028\ufeff\u200bé日🗄'.replace("\x00", "")


def test_what_restic_and_people_write_stays_as_it_is() -> None:
    for name in ("ab" * 32, "config", "My Laptop", "Fotos 2026, Köln", "100%", "a%zz", ".hidden"):
        assert drime_names.written(name) == name


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (" a ", "%20a%20"),
        ("a\\b", "a%5Cb"),
        ("a\nb", "a%0Ab"),
        ("%41", "%2541"),
        ('"', "%22"),
        ("a\u00a0", "a%C2%A0"),
    ],
)
def test_what_drime_cannot_keep_is_escaped(ours: str, theirs: str) -> None:
    assert drime_names.written(ours) == theirs
    assert drime_names.read(theirs) == ours


def test_any_name_survives_drime() -> None:
    dice = random.Random(6)
    account = Account(Switches(refuse_duplicate_folders=False))
    seen: dict[str, str] = {}
    for _ in range(5000):
        name = "".join(dice.choice(ODD) for _ in range(dice.randrange(1, 9)))
        if name in (".", ".."):
            continue
        theirs = drime_names.written(name)
        try:
            kept = account.make_folder(theirs, 0, None)
        except Refused as error:
            pytest.fail(f"{name!a} as {theirs!a}: {error}")
        assert kept.name == theirs, f"{name!a} was changed"
        assert drime_names.read(theirs) == name
        assert seen.setdefault(theirs, name) == name, "two names became one"
    account.close()


def test_a_name_that_grows_beyond_drimes_limit_is_refused() -> None:
    assert drime_names.written("n" * 255)
    with pytest.raises(NameTooLong):
        drime_names.written("n" * 250 + "\\\\")


def test_names_that_nobody_wrote_for_us_stand_for_nothing() -> None:
    for name in ("%41", "%2F", "a%2Fb", "%2E%2E", "..", "%00", "%FF", "a%5C%41"):
        assert drime_names.read(name) is None, name
