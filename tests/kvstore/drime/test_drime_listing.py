"""Folders of Drime's are read to their real end, whatever the service says of its pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kvstore.drime.places import place
from tests.servers.drime_double import DrimeDouble
from tests.servers.drime_entries import Switches

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.conformance.memory import measured

MANY = 1500

WAYS = {
    "as seen": Switches(),
    "honest": Switches(honest_last_page=True, repeat_last_page=False),
    "small pages": Switches(most_per_page=50, repeat_last_page=False),
    "unordered": Switches(order=False),
    "end unsaid": Switches(never_ends_above=0),
}


@pytest.fixture(params=WAYS, ids=lambda name: name.replace(" ", "_"))
def drime(request: pytest.FixtureRequest) -> Iterator[DrimeDouble]:
    with DrimeDouble(WAYS[request.param]) as drime:
        yield drime


def filled(drime: DrimeDouble, count: int) -> Backend:
    """Return a place with so many items in the folder `all`."""
    made = place(drime.url, drime.key)
    made.create()
    with made:
        made.mkdir("all")
    (folder,) = (e for e in drime.account.everything(0) if e.name == "all")
    for number in range(count):
        drime.account.make_file(f"{number * 7919 % count:064}", 0, folder.id, [])
    drime.forget_calls()
    return made


@pytest.mark.parametrize("count", [0, 1, 200, 201, 600])
def test_every_entry_is_listed_once(drime: DrimeDouble, count: int) -> None:
    with filled(drime, count) as place:
        names = [info.name for info in place.list("all")]
    assert sorted(names) == [f"{number:064}" for number in range(count)]


@pytest.mark.parametrize("drime", ["as seen"], indirect=True)
def test_a_large_folder_needs_little_memory_and_few_requests(drime: DrimeDouble) -> None:
    with filled(drime, MANY) as place:
        [*place.list("all")]
        drime.forget_calls()
        with measured() as streamed:
            count = sum(1 for _ in place.list("all"))
        assert count == MANY
        pages = MANY / min(drime.switches.most_per_page, 200)
        assert drime.counts()["list"] <= pages * 1.06 + 4
        # The answers' text and what the double makes it of are among it.
        assert streamed.peak < 3 << 20


def test_nothing_that_stays_is_left_out_while_others_vanish(drime: DrimeDouble) -> None:
    """Each page that is fetched deletes a hundred entries before it, and adds ten."""
    count = 1000
    with filled(drime, count) as place:
        (folder,) = (e for e in drime.account.everything(0) if e.name == "all")
        entries = sorted(drime.account.children(0, [folder.id]), key=lambda entry: entry.name)
        doomed = [entry for number, entry in enumerate(entries) if number % 2]
        stays = {entry.name for number, entry in enumerate(entries) if not number % 2}
        pages = 0
        shown = drime.account.children

        def vanishing(*asked: object) -> object:
            nonlocal pages
            pages += 1
            for entry in doomed[100 * (pages - 1) : 100 * pages]:
                drime.account.delete([entry.id], forever=True)
            for number in range(10):
                drime.account.make_file(f"new {pages} {number}", 0, folder.id, [])
            return shown(*asked)  # type: ignore[arg-type]

        drime.account.children = vanishing  # type: ignore[assignment]
        names = [info.name for info in place.list("all")]
    assert stays <= set(names)
    assert len(names) == len(set(names))


def test_of_entries_with_one_name_the_first_is_listed(drime: DrimeDouble) -> None:
    with filled(drime, 600) as place:
        (folder,) = (e for e in drime.account.everything(0) if e.name == "all")
        content = drime.account.new_file()
        content.write_bytes(b"younger")
        for number in (0, 300, 599):
            drime.account.make_file(f"{number:064}", 0, folder.id, [content])
        found = {info.name: info.size for info in place.list("all")}
        assert len(found) == 600
        assert set(found.values()) == {0}


def test_names_that_stand_for_nothing_are_not_listed(drime: DrimeDouble) -> None:
    with filled(drime, 1) as place:
        (folder,) = (e for e in drime.account.everything(0) if e.name == "all")
        for name in ("%41", "%ff%fe", "100%", "a%2"):
            drime.account.make_file(name, 0, folder.id, [])
        assert sorted(info.name for info in place.list("all")) == [f"{0:064}", "100%", "a%2"]
        for name in ("100%", "a%2"):
            assert place.info(f"all/{name}").exists
        assert not place.info("all/%41").exists
        assert not place.info("all/A").exists
