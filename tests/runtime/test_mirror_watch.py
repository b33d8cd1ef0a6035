"""A gateway's metrics and events tell when a place of a mirror fails and when it is back."""

from __future__ import annotations

import queue
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from backupgw.kvstore.layers.mirror import MirrorLayer
from backupgw.runtime import metrics
from backupgw.runtime.events import Event, Events, PlaceFailed, PlaceRecovered, current
from backupgw.runtime.events.records import Message
from backupgw.runtime.settings import load

PATIENCE = 60.0


def tree(folder: Path) -> dict[str, bytes]:
    """Return what lies in a place's folder, but for the kernel's own."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".backupgw" not in path.as_posix()
    }


class Listener:
    """A sink whose events can be waited for."""

    name = "listener"

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._events.put(message.event)

    def close(self, timeout: float) -> None:
        pass

    def next(self) -> Event:
        return self._events.get(timeout=PATIENCE)

    @property
    def quiet(self) -> bool:
        return self._events.empty()


def metric(name: str, place: str) -> float | None:
    text = metrics.exposition().decode()
    line = rf'^{name}\{{mirror="main",number="\d",place="{place}"\}} (\S+)$'
    found = re.search(line, text, re.MULTILINE)
    return None if found is None else float(found[1])


def test_a_failing_place_is_told_and_its_return_too(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    config = tmp_path / "gw.toml"
    config.write_text(
        f'[state]\nfolder = "{tmp_path}/state"\n'
        f'[places.disk2]\nurl = "file://{two}"\ndurability = "fast"\n'
        f'[places.main]\nurl = "file://{one}"\ndurability = "fast"\n'
        'layers = [{ layer = "mirror", places = ["disk2"], sync = false }]\n'
    )
    place = load(config, None, {}, services={}).open_place("main")
    assert isinstance(place, MirrorLayer)
    place.create()
    listener = Listener()
    failures = metric("backupgw_mirror_place_failures_total", "disk2") or 0
    with current.remember(Events([listener])):
        with place:
            assert metric("backupgw_mirror_place_state", "disk2") == 0
            place.store("item", b"x")
        assert listener.quiet, "an opening where all is well is no news"

        away = two.rename(tmp_path / "away")
        with place:
            failed = listener.next()
            assert isinstance(failed, PlaceFailed)
            assert (failed.place, failed.mirror) == ("disk2", "main")
            assert "does not exist" in failed.reason
            assert metric("backupgw_mirror_place_state", "disk2") == 2
            assert metric("backupgw_mirror_place_state", "main") == 0
            place.store("later", b"y")
            away.rename(two)
            place.replay()
            recovered = listener.next()
            assert isinstance(recovered, PlaceRecovered)
            assert (recovered.place, recovered.mirror) == ("disk2", "main")
            assert recovered.seconds is not None
            assert metric("backupgw_mirror_place_state", "disk2") == 0
            assert metric("backupgw_mirror_place_failures_total", "disk2") == failures + 1
        assert listener.quiet
    assert tree(one) == tree(two)


def test_nobody_listening_is_fine() -> None:
    closed = current.remember(Events())
    closed.close()
    assert current.publish(PlaceFailed(place="disk2", reason="gone")) is False


@pytest.mark.parametrize("services", [1, 2])
def test_an_event_reaches_the_service_that_still_runs(services: int) -> None:
    listener = Listener()
    with current.remember(Events([listener])):
        for _ in range(services - 1):
            current.remember(Events()).close()
        assert current.publish(PlaceFailed(place="disk2", reason="gone"))
        assert listener.next() == PlaceFailed(place="disk2", reason="gone")
