"""Bandwidth is kept to, shared, by the timetable; nothing else waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.layers.stack import LayerInvalid
from backupgw.kvstore.layers.throttle import ThrottleLayer, emulation
from backupgw.kvstore.layers.throttle_rate import Pace, timetable
from backupgw.kvstore.registry import open_place

MONDAY = datetime(2026, 3, 2)  # noqa: DTZ001 - local time is meant


class Clock:
    """Time that passes by sleeping only; threads that sleep wake in order of their time."""

    def __init__(self, start: datetime = MONDAY) -> None:
        self.seconds = 0.0
        self.start = start
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.naps.append(seconds)
        self.seconds += seconds

    def pace(self, rates: object) -> Pace:
        return Pace(timetable("rate", rates), clock=self.clock, now=self.now, sleep=self.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def throttled(clock: Clock, upload: object = "off", download: object = "off", **options: float):  # type: ignore[no-untyped-def]
    inner = Memory()
    inner.create()
    return ThrottleLayer(
        inner,
        upload=timetable("upload", upload),
        download=timetable("download", download),
        clock=clock.clock,
        now=clock.now,
        sleep=clock.sleep,
        **options,
    )


@pytest.fixture
def slow(clock: Clock) -> Iterator[ThrottleLayer]:
    with throttled(clock, upload=1000, download="2 kB/s") as place:
        yield place


def test_an_upload_takes_as_long_as_its_bytes_need(slow: ThrottleLayer, clock: Clock) -> None:
    slow.store("item", b"x" * 60_000)
    assert clock.seconds == pytest.approx(60, abs=0.2)


def test_a_download_has_a_rate_of_its_own(slow: ThrottleLayer, clock: Clock) -> None:
    slow.inner.store("item", b"x" * 60_000)
    assert slow.load("item") == b"x" * 60_000
    assert clock.seconds == pytest.approx(30, abs=0.2)
    assert slow.gather([("item", 0, 20_000)]) == b"x" * 20_000
    assert clock.seconds == pytest.approx(40, abs=0.4)


def test_the_bytes_come_evenly(slow: ThrottleLayer, clock: Clock) -> None:
    slow.inner.store("item", b"x" * 60_000)
    with slow.open_reader("item") as reader:
        for _ in range(10):
            before = clock.seconds
            assert len(reader.read(1 << 20)) <= 1024
            assert clock.seconds - before <= 0.6


def test_what_moves_no_bytes_does_not_wait(slow: ThrottleLayer, clock: Clock) -> None:
    slow.inner.store("item", b"x" * 10_000)
    slow.info("item")
    [*slow.list("")]
    slow.move("item", "other")
    slow.delete("other")
    assert clock.naps == []


def test_all_writers_share_the_rate_and_none_holds_another_up(clock: Clock) -> None:
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        assert pace.unlimited is False, "while one sleeps, others can ask: no lock is held"
        with lock:
            clock.seconds += seconds

    def take() -> None:
        for _ in range(50):
            pace.take(100)

    pace = Pace(timetable("rate", 1000), clock=clock.clock, now=clock.now, sleep=sleep)
    threads = [threading.Thread(target=take, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert clock.seconds >= 8 * 50 * 100 / 1000 - 0.2


def test_a_pause_saves_up_no_more_than_a_moment(clock: Clock) -> None:
    pace = clock.pace(1000)
    clock.seconds += 3600
    pace.take(10_000)
    assert clock.seconds - 3600 == pytest.approx(10, abs=0.11)


def test_the_timetable_changes_the_rate_while_somebody_waits(clock: Clock) -> None:
    clock.start = MONDAY.replace(hour=18, minute=59)
    pace = clock.pace("08:00,1k 19:00,10k 23:00,off")
    pace.take(60 * 1024 + 600 * 1024)
    assert clock.seconds == pytest.approx(60 + 60, abs=0.3)
    clock.seconds = 5 * 3600.0
    pace.take(1 << 40)
    assert clock.seconds == 5 * 3600.0
    clock.seconds = 14 * 3600.0  # the next morning
    before = clock.seconds
    pace.take(10 * 1024)
    assert clock.seconds - before == pytest.approx(10, abs=0.11)


@pytest.mark.parametrize(
    ("table", "moment", "rate", "until"),
    [
        ("08:00,512k 19:00,10M 23:00,off", "Mon 07:59", None, 60),
        ("08:00,512k 19:00,10M 23:00,off", "Mon 08:00", 512 << 10, 11 * 3600),
        ("08:00,512k 19:00,10M 23:00,off", "Sun 22:00", 10 << 20, 3600),
        ("08:00,512k 19:00,10M 23:00,off", "Sun 23:30", None, 8.5 * 3600),
        ("Mon-08:00,1M Sat-00:00,off", "Sun 12:00", None, 20 * 3600),
        ("Mon-08:00,1M Sat-00:00,off", "Wed 12:00", 1 << 20, 60 * 3600),
        ("Mon-08:00,1M Sat-00:00,off", "Mon 07:00", None, 3600),
        ("20 MB/s", "Wed 12:00", 20e6, 4.5 * 86_400),
        ("off", "Wed 12:00", None, 4.5 * 86_400),
        (1000, "Mon 00:00", 1000, 7 * 86_400),
    ],
)
def test_timetables(table: object, moment: str, rate: float | None, until: float) -> None:
    day, _, time = moment.partition(" ")
    hour, minute = map(int, time.split(":"))
    number = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].index(day)
    at = MONDAY + timedelta(days=number, hours=hour, minutes=minute)
    assert timetable("rate", table).at(at) == (rate, until)


@pytest.mark.parametrize(
    "wrong",
    [
        "fast",
        "25:00,1M",
        "08:60,1M",
        "08:00,fast",
        "Xyz-08:00,1M",
        "08:00,1M,",
        "0",
        0,
        -1,
        "",
        [],
        True,
    ],
)
def test_a_wrong_rate_is_refused_with_what_to_write(wrong: object) -> None:
    with pytest.raises(LayerInvalid, match=r"layer throttle: upload: .*write"):
        open_place("memory:", layers=[{"layer": "throttle", "upload": wrong}])


def test_latency_is_the_least_time_of_an_operation(clock: Clock) -> None:
    with throttled(clock, latency=0.02) as place:
        place.store("item", b"x")
        place.load("item")
        place.info("item")
        place.move("item", "other")
        [*place.list("")]
        place.delete("other")
    assert clock.seconds == pytest.approx(6 * 0.02)


def test_a_failure_is_as_slow_as_a_success(clock: Clock) -> None:
    with throttled(clock, latency=0.02) as place, pytest.raises(Exception, match="nothing"):
        place.delete("nothing")
    assert clock.seconds == pytest.approx(0.02)


def test_borgstores_variables_have_borgstores_units(clock: Clock) -> None:
    assert emulation("20000", "8000000") == {
        "latency": 0.02,
        "upload": 1_000_000,
        "download": 1_000_000,
    }
    assert emulation(None, "") == emulation("0", "0") == {}
    for latency, bandwidth in (("x", None), (None, "-1"), ("nan", None), (None, "inf")):
        with pytest.raises(OptionInvalid, match="BORGSTORE_"):
            emulation(latency, bandwidth)


def test_an_event_loop_is_never_made_to_wait(slow: ThrottleLayer, clock: Clock) -> None:
    slow.inner.store("item", b"x" * 60_000)
    reader = slow.open_reader_nowait("item")
    assert reader is not None
    assert reader.read_nowait(1000) is None, "a thread does the waiting"
    assert clock.naps == []
    with throttled(clock) as free:
        free.store("item", b"x")
        unhurried = free.open_reader_nowait("item")
        assert unhurried is not None
        assert unhurried.read_nowait(10) == b"x"
