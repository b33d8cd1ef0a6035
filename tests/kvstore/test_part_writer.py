"""Values go in parts: whole or not at all, in bounded memory, each part as often as it takes."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.kvstore.scripted_target import Place, PlainTarget, Target

from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    BackendMustBeOpen,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.backends.part_checkpoints import abandon, read_token
from backupgw.kvstore.backends.part_transfers import PartPool
from backupgw.kvstore.backends.part_writer import PartWriter
from backupgw.kvstore.backends.plan import Plan
from backupgw.kvstore.conformance.memory import measured
from backupgw.kvstore.layers.retry_schedule import Schedule

QUICK = Schedule(attempts=4, deadline=20, first=0.001, longest=0.002)
VALUE = random.Random(1).randbytes(5500)
DIGEST = hashlib.sha256(VALUE).hexdigest()


@pytest.fixture
def pool() -> Iterator[PartPool]:
    pool = PartPool(threads=4, schedule=QUICK)
    yield pool
    pool.close()
    assert pool.claimed == 0, "memory was never given back"


def writer(pool: PartPool, target: PlainTarget, **terms: Any) -> PartWriter:
    given: dict[str, Any] = {"size": None, "expected_hash": None, **terms}
    return PartWriter(pool, target, Plan(target.name, if_absent=target.if_absent, **given))


def finish(value: PartWriter) -> None:
    for start in range(0, len(VALUE), 100):
        value.write(VALUE[start : start + 100])
    value.commit()


def broken() -> BackendError:
    return BackendConnectionError("reset by peer")


@pytest.mark.parametrize("length", [0, 1, 999, 1000])
def test_a_value_no_larger_than_a_part_takes_one_request(pool: PartPool, length: int) -> None:
    place = Place()
    with writer(pool, Target(place)) as value:
        value.write(VALUE[:length])
        assert place.items == {}
    assert place.items == {"item": VALUE[:length]}
    assert place.calls == ["put_whole", "put_whole answered"]


@pytest.mark.parametrize("parallel", [1, 2, 3])
@pytest.mark.parametrize("length", [1001, 2000, 2001, 5000, 5500])
def test_parts_add_up(pool: PartPool, length: int, parallel: int) -> None:
    place = Place()
    digest = hashlib.sha256(VALUE[:length]).hexdigest()
    target = Target(place, parallel=parallel)
    with writer(pool, target, size=length, expected_hash=digest) as value:
        for start in range(0, length, 77):
            value.write(VALUE[start : min(start + 77, length)])
        assert value.offset == length
        assert place.items == {}
    assert place.items == {"item": VALUE[:length]}
    assert place.uploads == {}
    assert place.most_at_once <= parallel


def test_parts_are_under_way_together(pool: PartPool) -> None:
    place = Place()
    meeting = threading.Barrier(2, timeout=10)  # broken unless two parts are there at a time
    place.script["put_part 1"] = [meeting.wait]
    place.script["put_part 2"] = [meeting.wait]
    with writer(pool, Target(place)) as value:
        value.write(VALUE)
    assert place.items["item"] == VALUE
    assert place.most_at_once == 2


def test_places_that_want_order_get_it(pool: PartPool) -> None:
    place = Place()
    place.script["put_part 2"] = [lambda: time.sleep(0.05)]
    with writer(pool, Target(place, parallel=1)) as value:
        value.write(VALUE)
    assert [call for call in place.calls if call.startswith("put_part")] == [
        f"put_part {number}" for number in range(1, 7)
    ]


def test_a_wrong_hash_sends_no_last_part_and_leaves_no_upload(pool: PartPool) -> None:
    place = Place()
    value = writer(pool, Target(place), expected_hash="0" * 64)
    value.write(VALUE)
    with pytest.raises(ContentMismatch):
        value.commit()
    assert "put_part 6" not in place.calls
    value.abort()
    value.abort()
    pool.close()
    assert place.uploads == {}
    assert place.items == {}


def test_more_bytes_than_announced_are_refused_at_once(pool: PartPool) -> None:
    value = writer(pool, Target(Place()), size=5)
    with pytest.raises(ContentMismatch):
        value.write(b"123456")
    value.abort()


def test_each_request_is_repeated(pool: PartPool) -> None:
    place = Place()
    for request in ("begin", "put_part 1", "put_part 3", "put_part 6", "complete"):
        place.script[request] = [broken(), broken()]
    with writer(pool, Target(place), expected_hash=DIGEST) as value:
        value.write(VALUE)
    assert place.items["item"] == VALUE
    assert place.calls.count("put_part 3") == 3


def test_what_the_place_asks_for_is_waited_for(pool: PartPool) -> None:
    place = Place()
    place.script["put_whole"] = [BackendError("slow down", retryable=True, retry_after=0.3)]
    start = time.monotonic()
    with writer(pool, Target(place)) as value:
        value.write(b"value")
    assert time.monotonic() - start >= 0.3


def test_a_part_that_always_fails_ends_the_write(pool: PartPool) -> None:
    place = Place()
    place.script["put_part 2"] = [broken() for _ in range(4)]
    value = writer(pool, Target(place))
    with pytest.raises(BackendConnectionError):
        finish(value)
    assert place.calls.count("put_part 2") == 4
    value.abort()
    pool.close()
    assert place.items == {}
    assert place.uploads == {}


def test_what_waiting_cannot_help_is_tried_once(pool: PartPool) -> None:
    place = Place()
    place.script["put_part 1"] = [PermissionDenied("the key was revoked")]
    value = writer(pool, Target(place))
    with pytest.raises(PermissionDenied, match="revoked"):
        finish(value)
    assert place.calls.count("put_part 1") == 1
    with pytest.raises(PermissionDenied, match="revoked"):
        value.commit()
    value.abort()


@pytest.mark.parametrize("length", [500, 5500])
def test_an_answer_that_was_lost_is_no_conflict(pool: PartPool, length: int) -> None:
    place = Place()
    place.script["put_whole answered"] = place.script["complete answered"] = [broken()]
    with writer(pool, Target(place, if_absent=True)) as value:
        value.write(VALUE[:length])
    assert place.items["item"] == VALUE[:length]


@pytest.mark.parametrize("length", [500, 5500])
def test_another_s_value_is_a_conflict_and_commit_may_come_again(
    pool: PartPool, length: int
) -> None:
    place = Place(items={"item": b"another's"})
    value = writer(pool, Target(place, if_absent=True))
    value.write(VALUE[:length])
    for _ in range(2):
        with pytest.raises(ObjectExists):
            value.commit()
    del place.items["item"]
    value.commit()
    assert place.items["item"] == VALUE[:length]
    assert place.uploads == {}


def test_a_forgotten_upload_is_no_missing_item(pool: PartPool) -> None:
    place = Place()
    value = writer(pool, Target(place))
    value.write(VALUE)
    place.script["put_part 6"] = [lambda: place.uploads.__setitem__("", {})]
    place.script["complete"] = [place.uploads.clear]
    with pytest.raises(BackendError, match="forgotten") as caught:
        value.commit()
    assert not isinstance(caught.value, ObjectNotFound)
    assert caught.value.retryable
    value.abort()


def test_abort_waits_for_nobody_and_never_raises(pool: PartPool) -> None:
    place = Place()
    arrive = threading.Event()
    place.script["put_part 1"] = [arrive.wait]
    place.script["abandon"] = [broken(), broken(), broken()]
    value = writer(pool, Target(place))
    value.write(VALUE[:1500])
    value.abort()
    assert "abandon" not in place.calls, "the upload was given up while a part was under way"
    arrive.set()
    pool.close()
    assert place.calls.count("abandon") == 3


def test_abort_ends_pauses(pool: PartPool) -> None:
    place = Place()
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise BackendError("slow down", retryable=True, retry_after=15)

    place.script["put_part 1"] = [fail]
    value = writer(pool, Target(place))
    value.write(VALUE[:1500])
    assert failed.wait(10)
    start = time.monotonic()
    value.abort()
    pool.close()
    assert time.monotonic() - start < 10
    assert place.uploads == {}


class TestBegunWhileItsFirstPartComes:
    """An upload that is begun as soon as it is known to go in parts."""

    @pytest.fixture
    def place(self) -> Place:
        return Place()

    @pytest.fixture
    def target(self, place: Place) -> PlainTarget:
        target = PlainTarget(place)
        target.begins_early = True
        return target

    def test_it_is_begun_once_and_before_a_part_is_full(
        self, pool: PartPool, place: Place, target: PlainTarget
    ) -> None:
        begun = threading.Event()
        place.script["begin"] = [begun.set]
        value = writer(pool, target, size=len(VALUE), expected_hash=DIGEST)
        value.write(VALUE[:1])
        assert begun.wait(10)
        value.write(VALUE[1:])
        value.commit()
        assert place.calls.count("begin") == 1
        assert place.items == {"item": VALUE}

    def test_what_is_whole_or_of_unknown_size_is_not(
        self, pool: PartPool, place: Place, target: PlainTarget
    ) -> None:
        for size, value in ((1000, VALUE[:1000]), (None, VALUE[:900])):
            with writer(pool, target, size=size) as going:
                going.write(value)
        assert "begin" not in place.calls

    def test_failures_are_tried_again_and_told_where_that_helps_nothing(
        self, pool: PartPool, place: Place, target: PlainTarget
    ) -> None:
        place.script["begin"] = [broken(), broken()]
        finish(writer(pool, target, size=len(VALUE)))
        assert place.items == {"item": VALUE}
        place.script["begin"] = [PermissionDenied("no")]
        value = writer(pool, target, size=len(VALUE))
        with pytest.raises(PermissionDenied):
            finish(value)
        value.abort()

    @pytest.mark.parametrize("when", ["under way", "begun"])
    def test_one_that_is_given_up_leaves_nothing(
        self, pool: PartPool, place: Place, target: PlainTarget, when: str
    ) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def begin() -> None:
            begun.set()
            go_on.wait(10)

        place.script["begin"] = [begin]
        value = writer(pool, target, size=len(VALUE))
        value.write(VALUE[:10])
        assert begun.wait(10)
        if when == "begun":
            go_on.set()
            pool.close()
        value.abort()
        go_on.set()
        pool.close()
        assert place.calls.count("abandon") == 1
        assert place.uploads == {}

    def test_where_no_thread_is_free_the_writer_begins_by_itself(
        self, place: Place, target: PlainTarget
    ) -> None:
        pool = PartPool(threads=1, schedule=QUICK)
        go_on = threading.Event()

        def hold() -> None:
            go_on.wait(10)

        pool.submit(hold)
        target.parallel = 1
        value = writer(pool, target, size=len(VALUE))
        value.write(VALUE[:1001])  # a part is full
        assert place.calls == ["begin"]
        go_on.set()
        value.write(VALUE[1001:])
        value.commit()
        pool.close()
        assert place.items == {"item": VALUE}


def test_a_failing_library_is_not_hidden(pool: PartPool) -> None:
    place = Place()
    place.script["put_part 1"] = [ZeroDivisionError("a defect")]
    value = writer(pool, Target(place))
    with pytest.raises(ZeroDivisionError):
        finish(value)
    value.abort()


def test_a_writer_whose_place_was_closed_says_so() -> None:
    pool = PartPool(threads=1, schedule=QUICK)
    value = writer(pool, Target(Place()))
    pool.close()
    with pytest.raises(BackendMustBeOpen):
        value.write(VALUE)
    value.abort()
    assert pool.claimed == 0


def test_writers_share_memory_and_none_waits_for_a_slow_one() -> None:
    pool = PartPool(threads=4, memory=3000, schedule=QUICK)  # less than all of them want
    slow = writer(pool, Target(Place()))
    slow.write(VALUE[:1000])
    places = [Place() for _ in range(6)]
    most = []
    together = threading.Barrier(len(places))

    def write(place: Place) -> None:
        with writer(pool, Target(place)) as value:
            value.write(VALUE[:100])
            together.wait(30)  # what one alone has held meanwhile would be more than its part
            for start in range(100, 5500, 100):
                value.write(VALUE[start : start + 100])
                most.append(pool.claimed)

    threads = [threading.Thread(target=write, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a writer waits for another"
    assert all(place.items == {"item": VALUE} for place in places)
    assert max(most) <= 7 * 1000
    slow.abort()
    pool.close()
    assert pool.claimed == 0


def test_a_writer_alone_holds_its_parts_and_no_more(pool: PartPool) -> None:
    part, place, most, goes = 5 << 20, Place(), 0, threading.Event()
    place.script["put_part 1"] = [lambda: goes.wait(10)]
    with writer(pool, Target(place, size=part)) as value:
        for _ in range(320):
            value.write(bytes(64 << 10))
            most = max(most, pool.claimed)
            if value.offset > part + part // 2:
                goes.set()
    assert part < most <= 11 << 20
    assert len(place.items["item"]) == 20 << 20


def test_a_slow_client_holds_little(pool: PartPool) -> None:
    value = writer(pool, Target(Place(), size=5 << 20))
    with measured() as held:
        value.write(b"x")
    assert held.peak <= 100 << 10
    value.abort()


# -- checkpoints


@pytest.mark.parametrize("cuts", [[0], [500], [1000], [1001], [3333], [500, 500, 5500], [5500]])
def test_carried_on_by_others(pool: PartPool, cuts: list[int]) -> None:
    place, start = Place(), 0
    token: str | None = None
    for cut in [*cuts, len(VALUE)]:
        value = _opened(pool, place, token)
        assert value.offset == start
        value.write(VALUE[start:cut])
        start = cut
        token = value.checkpoint()
        assert len(place.kept) == 1, "an old checkpoint's bytes were left"
        with pytest.raises(BackendError):
            value.write(b"x")
        value.abort()
        assert place.items == {}
    _opened(pool, place, token).commit()
    assert place.items == {"item": VALUE}
    assert place.uploads == {}
    assert place.kept == {}
    with pytest.raises(ObjectNotFound):
        _opened(pool, place, token)


def _opened(pool: PartPool, place: Place, token: str | None, **terms: Any) -> PartWriter:
    if token is None:
        return writer(pool, Target(place), **{"size": len(VALUE), "expected_hash": DIGEST, **terms})
    return PartWriter.resume(pool, Target(place), read_token(token))


def test_the_hash_holds_for_what_was_sent_before(pool: PartPool) -> None:
    place = Place()
    value = _opened(pool, place, None)
    value.write(b"other" + VALUE[5:3333])
    value = _opened(pool, place, value.checkpoint())
    value.write(VALUE[3333:])
    with pytest.raises(ContentMismatch):
        value.commit()
    value.abort()
    pool.close()
    assert place.uploads == {}
    assert place.kept == {}


def test_an_abandoned_checkpoint_leaves_nothing(pool: PartPool) -> None:
    place = Place()
    value = _opened(pool, place, None)
    value.write(VALUE[:3333])
    token = value.checkpoint()
    for _ in range(2):
        abandon(pool, Target(place), read_token(token))
    assert place.uploads == {}
    assert place.kept == {}
    with pytest.raises(ObjectNotFound):
        _opened(pool, place, token)


def test_parts_that_the_place_lost_are_noticed(pool: PartPool) -> None:
    place = Place()
    value = _opened(pool, place, None)
    value.write(VALUE[:3333])
    token = value.checkpoint()
    (parts,) = place.uploads.values()
    del parts[2]
    with pytest.raises(ObjectNotFound, match="gone"):
        _opened(pool, place, token)


def test_places_without_checkpoints_say_so(pool: PartPool) -> None:
    value = writer(pool, PlainTarget(Place()))
    with pytest.raises(UnsupportedOperation):
        value.checkpoint()
    value.abort()


def test_strange_tokens(pool: PartPool) -> None:
    place = Place()
    value = _opened(pool, place, None)
    value.write(VALUE[:3333])
    good = json.loads(value.checkpoint())
    for index, strange in [
        (0, 2),
        (1, []),
        (1, ["../etc", None, False, None]),
        (1, ["a", "5", False, DIGEST]),
        (2, None),
        (3, [[2, 1000, "x"]]),
        (3, [[1, -1, "x"]]),
        (3, "x"),
        (4, 7),
        (5, None),
    ]:
        bad = [*good]
        bad[index] = strange
        with pytest.raises(ValueError, match="not a token"):
            read_token(json.dumps(bad))
    for text in ("", "x", "[]", "{}", "9" * 5000, "[" * 100_000):
        with pytest.raises(ValueError, match="not a token"):
            read_token(text)
    good[5] = "00"
    with pytest.raises(ValueError, match="SHA-256"):
        PartWriter.resume(pool, Target(place), read_token(json.dumps(good)))
