"""Publishing never waits and never fails; what is lost is counted; every sink is told in order."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from backupgw.runtime import metrics
from backupgw.runtime.events import (
    BackupFinished,
    DamageFound,
    Events,
    QuotaReached,
    RepositoryCreated,
    Severity,
    SnapshotWritten,
)
from backupgw.runtime.events.filters import Filter
from backupgw.runtime.events.log_sink import LogSink
from backupgw.runtime.events.metrics_sink import MetricsSink
from backupgw.runtime.events.records import Event, Message, Value

SNAPSHOT = SnapshotWritten(place="default", repository="alice/laptop", snapshot="ab12")
DAMAGE = DamageFound(place="default", name="data/ab/ab12", problem="another hash")


@dataclass(frozen=True, kw_only=True)
class Odd(Event, type="test.odd"):
    value: Value
    message: str = "m"


class Gathering:
    """A sink that keeps what it is told, and can be held up."""

    name = "gathering"

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.closed = 0
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()

    def take(self, messages: Sequence[Message]) -> None:
        self.reached.set()
        self.free.wait(60)
        self.told.extend(messages)

    def close(self, timeout: float) -> None:
        self.closed += 1


def sample(name: str, *labels: str) -> float:
    for line in metrics.exposition().decode().splitlines():
        if line.startswith(f"{name}{{") and all(label in line for label in labels):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_what_is_told_is_whole_and_in_order() -> None:
    sink = Gathering()
    with Events([sink], gateway="gw1") as events:
        for number in range(1000):
            assert events.publish(
                RepositoryCreated(place="p", repository=f"r{number}", user="alice")
            )
    assert [m.event.data()["repository"] for m in sink.told] == [f"r{n}" for n in range(1000)]
    document = json.loads(sink.told[7].text)
    assert document.pop("id") == sink.told[7].id
    assert document.pop("time").endswith("+00:00")
    assert document == {
        "type": "repository.created",
        "severity": "info",
        "gateway": "gw1",
        "data": {"place": "p", "repository": "r7", "user": "alice"},
    }
    assert sink.closed == 1


def test_from_many_threads_and_the_event_loop() -> None:
    sink = Gathering()
    events = Events([sink])

    def publish(thread: int) -> None:
        for number in range(200):
            events.publish(RepositoryCreated(place=str(thread), repository=str(number)))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(None, publish, n) for n in range(4)))
        publish(4)

    with events:
        asyncio.run(main())
    assert len({message.id for message in sink.told}) == 1000
    for thread in range(5):
        own = [
            m.event.data()["repository"]
            for m in sink.told
            if m.event.data()["place"] == str(thread)
        ]
        assert own == [str(number) for number in range(200)]


def test_a_sink_that_hangs_costs_events_and_no_client() -> None:
    sink = Gathering()
    sink.free.clear()
    lost = sample("backupgw_events_dropped_total", 'type="snapshot.written"', 'reason="full"')
    with Events([sink], queue_size=100) as events:
        events.publish(SNAPSHOT)
        assert sink.reached.wait(60)
        taken = [events.publish(SNAPSHOT) for _ in range(200)]
        assert sum(taken) == 90, "the last tenth is kept for what matters"
        assert sum(events.publish(DAMAGE) for _ in range(20)) == 10
        sink.free.set()
    assert sum(message.event is DAMAGE for message in sink.told) == 10
    assert len(sink.told) == 101
    now = sample("backupgw_events_dropped_total", 'type="snapshot.written"', 'reason="full"')
    assert now == lost + 110


def test_a_sink_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Gathering):
        name = "failing"

        def take(self, messages: Sequence[Message]) -> None:
            raise RuntimeError("no")

        def close(self, timeout: float) -> None:
            raise RuntimeError("no")

    sink = Gathering()
    with Events([Failing(), sink]) as events:
        for _ in range(10):
            events.publish(SNAPSHOT)
            assert sink.reached.wait(60)
            sink.reached.clear()
    assert len(sink.told) == 10
    assert sink.closed == 1
    complaints = [r for r in caplog.records if "the sink failing failed" in r.message]
    assert len(complaints) == 2, "one for ten failures, one for the closing"


def test_after_the_end_events_are_dropped_and_counted() -> None:
    sink = Gathering()
    events = Events([sink])
    events.start()
    events.close()
    events.close()
    before = sample("backupgw_events_dropped_total", 'type="snapshot.written"', 'reason="closed"')
    assert not events.publish(SNAPSHOT)
    after = sample("backupgw_events_dropped_total", 'type="snapshot.written"', 'reason="closed"')
    assert (sink.told, sink.closed, after - before) == ([], 1, 1)


def test_closing_waits_for_no_sink_without_end(caplog: pytest.LogCaptureFixture) -> None:
    sink = Gathering()
    sink.free.clear()
    events = Events([sink])
    events.start()
    events.publish(SNAPSHOT)
    assert sink.reached.wait(60)
    events.close(timeout=0.1)
    assert "did not come back" in caplog.text
    sink.free.set()


@pytest.mark.parametrize("value", [float("nan"), b"bytes", "x" * 70_000])
def test_what_cannot_be_told_raises_nothing(value: Value) -> None:
    sink = Gathering()
    with Events([sink]) as events:
        assert not events.publish(Odd(value=value))
        assert events.publish(Odd(value="ä\udcff\n"))
    assert [json.loads(m.text)["data"]["value"] for m in sink.told] == ["ä\udcff\n"]


def test_severity_is_of_the_single_event() -> None:
    failed = BackupFinished(subject="s", backup="b", successful=False)
    full = QuotaReached(scope="s", measure="bytes", level=1.0, limit=1, used=1)
    high = QuotaReached(scope="s", measure="bytes", level=0.8, limit=1, used=1)
    repaired = DamageFound(place="p", name="n", problem="short", repaired=True)
    weights = [event.weight.value for event in (failed, full, high, repaired, DAMAGE, SNAPSHOT)]
    assert weights == ["error", "error", "warning", "warning", "error", "info"]


def test_two_kinds_cannot_share_a_name_and_fields_cannot_shadow() -> None:
    with pytest.raises(TypeError, match="another event"):
        type("Other", (Event,), {}, type="snapshot.written")
    with pytest.raises(TypeError, match="severity"):
        type("Other", (Event,), {"__annotations__": {"severity": str}}, type="test.shadow")
    with pytest.raises(TypeError, match="not an event's type"):
        type("Other", (Event,), {}, type="Snapshot")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Filter(), True),
        (Filter(types=("snapshot.*",)), True),
        (Filter(types=("quota.*", "snapshot.written")), True),
        (Filter(types=("quota.*",)), False),
        (Filter(severity=Severity.WARNING), False),
        (Filter(where={"repository": ("alice/*",)}), True),
        (Filter(where={"repository": ("bob/*", "alice/laptop")}), True),
        (Filter(where={"repository": ("alice/*",), "place": ("other",)}), False),
        (Filter(where={"user": ("*",)}), False),
        (Filter(where={"problem": ("*",)}), False),
    ],
)
def test_filters(wanted: Filter, told: bool) -> None:
    assert wanted.wants(SNAPSHOT) is told


def test_filters_read_numbers_and_truth_values() -> None:
    event = BackupFinished(subject="s", backup="b", successful=False, size=12)
    assert Filter(where={"successful": ("false",), "size": ("12",)}).wants(event)
    assert not Filter(where={"successful": ("true",)}).wants(event)


def test_the_log_has_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Events([LogSink()]) as events:
        events.publish(DAMAGE)
        events.publish(Odd(value=3))
    damage, odd = (r for r in caplog.records if r.name == "backupgw.events")
    assert (damage.levelname, damage.message) == ("ERROR", "damage.found")
    assert damage.__dict__["problem"] == "another hash"
    assert damage.__dict__["event_name"] == "data/ab/ab12", "logging has a `name` of its own"
    assert odd.__dict__["event_message"] == "m"


def test_metrics_count_what_alerts_are_made_of() -> None:
    names = ("backupgw_damage_found_total", 'place="default"', 'repaired="false"')
    before = sample(*names), sample("backupgw_events_total", "damage.found")
    with Events([MetricsSink()]) as events:
        events.publish(DAMAGE)
        events.publish(DAMAGE)
    assert sample(*names) == before[0] + 2
    assert sample("backupgw_events_total", "damage.found") == before[1] + 2
