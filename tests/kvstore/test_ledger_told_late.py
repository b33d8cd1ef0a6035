"""Removals that a ledger is told of late, after counts that may have seen them.

Two ledgers on one file are to each other as two processes are: one has no room to write for a
while, the other counts.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import pytest
from tests.kvstore.test_ledger_counting import entries
from tests.kvstore.test_ledger_tenure import ONE, SCOPES, SOAK

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.ledger import (
    NOTHING,
    Amount,
    Effect,
    LedgerError,
    LedgerFull,
    Report,
    SQLiteLedger,
)

Names = dict[str, None]
Both = tuple[SQLiteLedger, SQLiteLedger]

ROUNDS = 5_000 if SOAK else 300


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
        yield one, other


@contextmanager
def no_room(ledger: SQLiteLedger) -> Iterator[None]:
    def refuse(_steps: object) -> NoReturn:
        raise LedgerFull("no room")

    session: Any = ledger._session
    with patch.object(session._turns, "_transact", refuse):
        yield


@contextmanager
def unreadable(ledger: SQLiteLedger) -> Iterator[None]:
    def fail() -> NoReturn:
        raise sqlite3.OperationalError("disk I/O error")

    session: Any = ledger._session
    with no_room(ledger), patch.object(session._state, "connection", fail):
        yield


def add(ledger: SQLiteLedger, there: Names, name: str) -> None:
    with ledger.changing("", [name]):
        change = ledger.intend("", [Effect(name, SCOPES, NOTHING, ONE)])
        there[name] = None
        ledger.settle(change)
    used(ledger)  # nothing lingers


def remove(ledger: SQLiteLedger, there: Names, name: str) -> None:
    """As the layer of the quota does it."""
    effect = Effect(name, SCOPES, ONE, NOTHING)
    with ledger.changing("", [name]):
        try:
            change = ledger.intend("", [effect])
        except LedgerFull:
            del there[name]
            ledger.amend("", [effect])
        else:
            del there[name]
            ledger.settle(change)


def remove_untold(ledger: SQLiteLedger, there: Names, name: str) -> None:
    """The next transaction of that process tells it."""
    with no_room(ledger):
        remove(ledger, there, name)


def count(
    ledger: SQLiteLedger, there: Names, after: Mapping[str, Callable[[], object]] | None = None
) -> Report:
    """Count, and do something after the last name of a folder was listed."""

    def listing(folder: str) -> Iterator[ItemInfo]:
        yield from list(entries(there, folder))
        if after is not None and folder in after:
            after[folder]()

    def lookup(name: str) -> Amount:
        return ONE if name in there else NOTHING

    return ledger.reconcile("", listing, lambda _: SCOPES, lookup=lookup)


def known(both: Both, *names: str) -> Names:
    """Have items there that both know of."""
    one, other = both
    there: Names = {}
    for name in names:
        add(one, there, name)
    count(other, there)
    return there


def used(ledger: SQLiteLedger) -> Amount:
    return ledger.usage("server").used


def used_by(both: Both) -> Amount:
    """What both say once nothing lingers, which is the same."""
    one, other = both
    used(other)
    assert used(one) == used(other)
    return used(one)


def held(there: Names) -> Amount:
    return Amount(ONE.bytes * len(there), len(there))


def right(both: Both, there: Names) -> None:
    """Nothing is wrong, and nobody thinks so."""
    _, other = both
    assert used_by(both) == held(there)
    assert not other.needs_reconcile("")
    assert count(other, there).corrections == []


def too_much(both: Both, there: Names) -> None:
    """One item too many is counted until somebody counts, which is asked for."""
    one, _ = both
    assert used_by(both) == held(there) + ONE
    assert one.needs_reconcile("")
    count(one, there)
    right(both, there)


class TestWhole:
    """Counts that begin after the removal."""

    def test_what_a_count_has_seen_is_not_taken_off(self, both: Both) -> None:
        one, other = both
        there = known(both, "a", "b", "c")
        remove_untold(one, there, "a")
        remove_untold(one, there, "b")
        add(other, there, "b")
        count(other, there)
        right(both, there)

    def test_what_a_count_without_an_end_has_seen_is_taken_off(self, both: Both) -> None:
        one, other = both
        there = known(both, "a/1", "a/2", "m/1")

        def fail() -> NoReturn:
            raise BackendError("the place is away")

        remove_untold(one, there, "a/1")
        with pytest.raises(BackendError, match="away"):
            count(other, there, {"m": fail})
        right(both, there)

    def test_what_a_count_is_going_to_see_is_taken_off(self, both: Both) -> None:
        one, other = both
        there = known(both, "a/1", "a/2", "m/1", "m/2", "z/1", "z/2")
        for name in ("a/1", "m/1", "z/1"):
            remove_untold(one, there, name)
        assert count(other, there, {"m": lambda: used(one)}).counted == held(there)
        right(both, there)

    def test_a_process_that_counts_with_much_to_tell_takes_nothing_off_twice(
        self, both: Both
    ) -> None:
        one, _ = both
        many = [f"{number}" for number in range(400)]
        there = known(both, *many, "a/1", "z/1")
        with no_room(one):
            for name in many:
                remove(one, there, name)
        count(one, there)
        right(both, there)

    def test_nothing_is_taken_off_for_a_place_that_is_gone(self, both: Both) -> None:
        one, other = both
        there = known(both, "a", "b")
        remove_untold(one, there, "a")
        other.forget("")
        assert used(one) == NOTHING
        there.clear()
        add(other, there, "c")
        remove_untold(one, there, "c")
        other.forget("")
        count(other, there)
        right(both, there)


class TestMeanwhile:
    """Counts that have begun before the removal."""

    @pytest.mark.parametrize("told", ["at once", "later", "after it", "by the next", "after that"])
    def test_where_it_has_been_before(self, both: Both, told: str) -> None:
        one, other = both
        there = known(both, "a/1", "a/2", "m/1", "z/1")

        def removing() -> None:
            remove_untold(one, there, "a/1")
            if told == "at once":
                used(one)

        count(other, there, {"m": removing, "z": lambda: told == "later" and used(one)})
        if told == "by the next":
            count(other, there, {"m": lambda: used(one)})
        elif told == "after that":
            count(other, there)
        right(both, there)

    def test_where_it_is_just_now(self, both: Both) -> None:
        one, other = both
        there = known(both, "a/1", "m/1", "m/2", "z/1")

        def removing() -> None:
            remove_untold(one, there, "m/1")
            used(one)

        count(other, there, {"m": removing})
        right(both, there)

    def test_told_when_it_has_been_there_a_count_is_void(self, both: Both) -> None:
        one, other = both
        there = known(both, "a/1", "m/1", "m/2", "z/1")
        after = {"m": lambda: remove_untold(one, there, "m/1"), "z": lambda: used(one)}
        with pytest.raises(LedgerError, match="told too late") as caught:
            count(other, there, after)
        assert caught.value.retryable
        right(both, there)

    @pytest.mark.parametrize("name", ["m/1", "z/1"])
    def test_told_after_it_too_much_is_counted_until_somebody_counts(
        self, both: Both, name: str
    ) -> None:
        one, other = both
        there = known(both, "a/1", "m/1", "m/2", "z/1", "z/2")
        count(other, there, {"m": lambda: remove_untold(one, there, name)})
        used(one)
        if name == "m/1":
            too_much(both, there)
        else:  # the list had it not, but who removed it could not know
            assert used(one) == held(there)
            assert one.needs_reconcile("")

    @pytest.mark.parametrize("told", ["by the next", "after that"])
    def test_told_later_it_is_what_the_next_has_counted(self, both: Both, told: str) -> None:
        one, other = both
        there = known(both, "a/1", "m/1", "m/2", "z/1")
        count(other, there, {"m": lambda: remove_untold(one, there, "m/1")})
        count(other, there, {"a": lambda: told == "by the next" and used(one)})
        right(both, there)


class TestLeftOpen:
    """Intents that had not ended when their item was removed."""

    def leave(self, both: Both, there: Names, *, dead: bool) -> None:
        """Have one put an item there, and not say so."""
        one, other = both
        with one.changing("", ["a"]):
            change = one.intend("", [Effect("a", SCOPES, NOTHING, ONE)])
            there["a"] = None
            with no_room(one):
                if not dead:
                    one.settle(change)
        if dead:
            session = one._session.run(lambda books: books.session)
            other._session.run(lambda books: books.bury(session))

    def test_what_a_dead_process_left_is_settled_and_taken_off(self, both: Both) -> None:
        one, other = both
        there = known(both, "b")
        self.leave(both, there, dead=True)
        remove_untold(one, there, "a")
        used(one)
        assert other.recover("", lambda _: NOTHING).repairs == []
        right(both, there)

    @pytest.mark.parametrize("dead", [True, False])
    def test_what_somebody_else_has_settled_is_not_taken_off(self, both: Both, dead: bool) -> None:
        one, other = both
        there = known(both, "b")
        self.leave(both, there, dead=dead)
        remove_untold(one, there, "a")
        add(other, there, "a")  # it ends what was left open
        used(one)
        assert used_by(both) == held(there)
        assert one.needs_reconcile("")

    def test_what_its_own_process_has_settled_may_be_counted_until_somebody_counts(
        self, both: Both
    ) -> None:
        there = known(both, "b")
        self.leave(both, there, dead=False)
        remove_untold(both[0], there, "a")
        used(both[0])
        too_much(both, there)

    def test_a_count_that_was_there_before_is_void(self, both: Both) -> None:
        one, other = both
        there = known(both, "b", "m/1")

        def settling() -> None:
            self.leave(both, there, dead=False)
            remove_untold(one, there, "a")
            used(one)

        with pytest.raises(LedgerError, match="told too late"):
            count(other, there, {"m": settling})
        too_much(both, there)


class TestUnreadable:
    """Nobody could see what had been counted when it happened."""

    def test_too_much_is_counted_until_somebody_counts(self, both: Both) -> None:
        one, other = both
        there = known(both, "a", "b")
        with unreadable(one):
            remove(one, there, "a")
        count(other, there)
        used(one)
        assert used(other) == held(there)
        assert other.needs_reconcile("")
        count(other, there)
        with unreadable(one):
            remove(one, there, "b")
        used(one)
        too_much(both, there)

    def test_a_count_is_void(self, both: Both) -> None:
        one, other = both
        there = known(both, "a/1", "m/1", "z/1")

        def removing() -> None:
            with unreadable(one):
                remove(one, there, "a/1")
            used(one)

        with pytest.raises(LedgerError, match="told too late"):
            count(other, there, {"m": removing})
        too_much(both, there)

    def test_what_has_come_counts_all_the_same(self, both: Both) -> None:
        one, other = both
        there = known(both, "a")
        with unreadable(one):
            one.amend("", [Effect("b", SCOPES, NOTHING, ONE)])
        count(other, there)
        there["b"] = None
        used(one)
        assert used(other) == held(there)
        assert other.needs_reconcile("")


def test_whatever_is_told_late_never_is_too_little_counted(both: Both) -> None:
    one, other = both
    chance = random.Random(7)
    names = [f"{folder}{number}" for folder in ("", "a/", "m/", "m/b/", "z/") for number in "123"]
    there = known(both, *names[::2])
    seen: Counter[str] = Counter()

    def act() -> None:
        name, ledger = chance.choice(names), chance.choice(both)
        if name not in there:
            add(ledger, there, name)
        elif ledger is one and chance.random() < 0.7:
            remove_untold(one, there, name)
            seen["untold"] += 1
        else:
            remove(ledger, there, name)
        if chance.random() < 0.2:
            used(one)

    def listing(folder: str) -> Iterator[ItemInfo]:
        for entry in list(entries(there, folder)):
            if chance.random() < 0.1:
                act()
            if entry.directory or f"{folder}/{entry.name}".lstrip("/") in there:
                yield entry
        if chance.random() < 0.2:
            act()

    def lookup(name: str) -> Amount:
        return ONE if name in there else NOTHING

    for round_ in range(ROUNDS):
        for _ in range(chance.randrange(4)):
            act()
        asked = other.needs_reconcile("")
        counted = False
        try:
            chance.choice(both).reconcile("", listing, lambda _: SCOPES, lookup=lookup)
        except LedgerError:
            seen["void"] += 1
        else:
            counted = True
        for _ in range(chance.randrange(4)):
            act()
        if chance.random() < 0.5:
            known_to_both = used_by(both)
            if other.needs_reconcile(""):
                seen["asked"] += counted or not asked
                assert known_to_both.bytes >= held(there).bytes, round_
            else:
                seen["exact"] += 1
                assert known_to_both == held(there), round_
    used(one)
    with suppress(LedgerError):
        count(other, there)
    right(both, there)
    assert seen["untold"] > ROUNDS / 2, seen
    assert seen["exact"] > seen["asked"] > 0, seen
    assert seen["void"] > 0, seen
