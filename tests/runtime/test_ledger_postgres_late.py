"""A gateway that stalled beyond its lease changes the place after all, as others do meanwhile."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat

import pytest

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import NOTHING, Amount, Effect, NameLost
from backupgw.kvstore.ledger.turns import Step
from backupgw.runtime.ledger import PostgresLedger
from tests.runtime.ledger_place import Ledgers

pytestmark = pytest.mark.alone

ROUNDS = 1000 if os.environ.get("BACKUPGW_SOAK") == "1" else 30
SCOPES = ("server",)
NAMES = ["a", "b", "c"]
ONE, TWO, THREE = Amount(60, 1), Amount(70, 1), Amount(90, 1)


@pytest.fixture
def here(ledgers: Ledgers) -> Iterator[PostgresLedger]:
    with ledgers(host="here") as ledger:
        ledger.reconcile("", lambda folder: [], lambda name: SCOPES)
        yield ledger


@pytest.fixture
def there(ledgers: Ledgers) -> Iterator[PostgresLedger]:
    with ledgers(host="there") as ledger:
        yield ledger


def effect(after: Amount, before: Amount = NOTHING, name: str = "a") -> Effect:
    return Effect(name, SCOPES, before, after)


def used(ledger: PostgresLedger) -> Amount:
    return ledger.usage("server").used


def bury(ledgers: Ledgers, ledger: PostgresLedger, successor: PostgresLedger) -> None:
    """Let the lease of a ledger's session be over, and another one notice."""
    statement = "UPDATE ledger_sessions SET deadline = 0, lease = -1e10 WHERE id = %s"
    ledgers.execute(statement, (ledger._own.id,))
    successor.usage("server")


def change(ledger: PostgresLedger, after: Amount, before: Amount) -> None:
    with ledger.changing("", ["a"]):
        ledger.settle(ledger.intend("", [effect(after, before)]))
    ledger.usage("server")  # nothing lingers


def settled(ledgers: Ledgers, ledger: PostgresLedger, there: Amount) -> None:
    """Nothing has drifted, once the name has been looked at."""
    ledger.recover("", lambda _: there)
    ledger.recover("", lambda _: there)
    assert used(ledger) == there
    assert ledger.usage("server").reserved == NOTHING
    assert ledgers.execute("SELECT * FROM ledger_doubts") == []
    assert not ledger.needs_reconcile("")


class TestLate:
    @pytest.mark.parametrize("told", ["before", "after"])
    def test_what_a_late_change_left_is_replaced_before_anybody_looked(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger, told: str
    ) -> None:
        with here.changing("", ["a"]):
            late = here.intend("", [effect(ONE)])
            bury(ledgers, here, there)
            there.recover("", lambda _: NOTHING)
            change(there, TWO, before=NOTHING)
            # The first one wakes up, and puts its item over the other's.
            if told == "before":
                here.settle(late)
                here.usage("server")
            change(there, THREE, before=ONE)
            if told == "after":
                here.settle(late)
                here.usage("server")
        settled(ledgers, there, THREE)

    def test_a_late_change_between_the_look_and_the_intent_of_the_next_one(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            late = here.intend("", [effect(ONE)])
            bury(ledgers, here, there)
            with there.changing("", ["a"]):
                before = NOTHING  # what it sees
                here.settle(late)
                here.usage("server")
                there.settle(there.intend("", [effect(TWO, before)]))
                there.usage("server")
        settled(ledgers, there, TWO)

    @pytest.mark.parametrize("known", [True, False])
    def test_a_late_change_between_the_look_and_its_record(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger, known: bool
    ) -> None:
        place = {"a": NOTHING}
        with here.changing("", ["a"]):
            late = here.intend("", [effect(ONE)])
            bury(ledgers, here, there)
            if known:
                there.recover("", place.__getitem__)
                ledgers.execute("UPDATE ledger_doubts SET since = since - 601")

            def look(name: str) -> Amount:
                seen = place[name]
                place[name] = ONE
                here.settle(late)
                here.usage("server")
                return seen

            there.recover("", look)
        settled(ledgers, there, ONE)

    def test_a_look_at_a_name_whose_change_is_about_to_be_settled(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            late = here.intend("", [effect(ONE)])
            bury(ledgers, here, there)
            there.recover("", lambda _: NOTHING)
            here.settle(late)
            here.usage("server")
        with there.changing("", ["a"]):
            made = there.intend("", [effect(TWO, before=ONE)])
        there._own.locks.turns.end()  # the name is free, and the settle still lingers
        here.recover("", lambda _: TWO)
        there.settle(made)
        settled(ledgers, here, TWO)

    def test_two_threads_of_who_wakes_up_do_not_take_each_others_name_for_theirs(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        has, done = threading.Event(), threading.Event()
        refused: list[NameLost] = []

        def first() -> None:
            with here.changing("", ["a"]):
                has.set()
                done.wait(60)
                try:
                    here.intend("", [effect(ONE)])  # with what it saw before it stalled
                except NameLost as error:
                    refused.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        assert has.wait(60)
        bury(ledgers, here, there)
        with here.changing("", ["a"]):
            done.set()
            thread.join()
            assert [error.retryable for error in refused] == [True]
            with there._own.locks.trying("", "a") as free:
                assert not free
            here.settle(here.intend("", [effect(TWO)]))
        here._own.locks.catch_up()
        with there.changing("", ["a"]):
            pass  # it was given back
        assert used(here) == TWO


class Gateway:
    """A process that makes one change at a time, a step now and a step then."""

    def __init__(
        self, ledger: PostgresLedger, place: dict[str, Amount], choose: random.Random
    ) -> None:
        self.ledger = ledger
        self._place = place
        self._choose = choose
        self._steps: Iterator[None] = iter(())

    def step(self) -> None:
        """Do a little more; begin the next change after the last."""
        if next(self._steps, self) is self:
            self._steps = self._change()

    def finish(self) -> None:
        for _ in self._steps:
            continue

    def _change(self) -> Iterator[None]:
        names = self._choose.sample(NAMES, self._choose.choice([1, 1, 2]))
        with ExitStack() as stack:
            for name in names:
                if not stack.enter_context(self.ledger._own.locks.trying("", name)):
                    return
            before = [self._place[name] for name in names]
            yield
            after = [self._choose.choice([NOTHING, Amount(self._choose.randrange(1, 1000), 1)])]
            if len(names) == 2:
                after = [NOTHING, before[0]]  # a move
            effects = [Effect(*each) for each in zip(names, repeat(SCOPES), before, after)]
            try:
                change = self.ledger.intend("", effects)
            except NameLost:
                return
            session = self.ledger._own.id
            yield
            if len(names) == 2:
                after[1] = self._place[names[0]]  # what there is by now
            self._place.update(zip(names, after, strict=True))
            yield
        self._flush()  # it may let go of the name before it settles, but for a moment only
        if self._choose.randrange(2) and self.ledger._own.id == session:
            yield
        if after == [each.after for each in effects]:
            self.ledger.settle(change)
        else:
            self.ledger.resolve(change, after)
        self.ledger.usage("server")

    def _flush(self) -> None:
        """Give back what lingers."""
        self.ledger._own.locks.turns.run(Step(lambda _: None))


def play(ledgers: Ledgers, three: list[PostgresLedger], place: dict[str, Amount], seed: int) -> int:
    """Let three gateways do things in any order; returns how many names had to be put right."""
    choose = random.Random(seed)
    gateways = [Gateway(ledger, place, choose) for ledger in three]

    def look(name: str) -> Amount:
        seen = place[name]
        for _ in range(choose.randrange(4)):
            choose.choice(gateways).step()
        return seen

    repairs = 0
    for _ in range(40):
        one, other = choose.sample(gateways, 2)
        match choose.randrange(12):
            case 0:
                bury(ledgers, one.ledger, other.ledger)
            case 1 | 2:
                repairs += len(one.ledger.recover("", look).repairs)
            case _:
                one.step()
    for each in gateways:
        each.finish()
    return repairs


@pytest.mark.timeout(3600)
def test_whatever_the_order_of_stalls_looks_and_changes_nothing_drifts(ledgers: Ledgers) -> None:
    place = dict.fromkeys(NAMES, NOTHING)

    def listing(_: str) -> list[ItemInfo]:
        held = [(name, amount) for name, amount in place.items() if amount]
        return [ItemInfo(name, True, amount.bytes, False) for name, amount in held]

    with ExitStack() as stack:
        three = [stack.enter_context(ledgers(host=host)) for host in "xyz"]
        ledger = three[0]
        ledger.reconcile("", listing, lambda _: SCOPES)
        repairs = counts = 0
        for seed in range(ROUNDS):
            repairs += play(ledgers, three, place, seed)
            ledger.recover("", place.__getitem__)
            if ledger.needs_reconcile(""):
                counts += 1  # it is said, at least
                ledger.reconcile("", listing, lambda _: SCOPES)
            assert used(ledger) == sum(place.values(), NOTHING), f"round {seed}"
            assert ledger.usage("server").reserved == NOTHING
    assert repairs > ROUNDS // 10, "nobody died in the middle of anything: this shows nothing"
    assert counts < max(2, ROUNDS // 10), "counted instead of known"
