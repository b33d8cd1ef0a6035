"""Events of the Wings behind us are told among our own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from tests.servers.panel import TOKEN
from tests.servers.wings_double import WingsDouble
from tests.telling_lock import TellingLock

from backupgw.wingsadapter import upstream_events
from backupgw.wingsadapter.event_hub import EventHub, Listening
from backupgw.wingsadapter.upstream import Upstream
from backupgw.wingsadapter.upstream_events import UpstreamEvents

SERVER = "342dd230-48d3-4b39-a7fe-ba0fb5e62e80"
OTHER = "342dd230-48d3-4b39-a7fe-ba0fb5e62e81"


@pytest.fixture
def wings() -> Iterator[WingsDouble]:
    with WingsDouble(events=True) as wings:
        yield wings


async def heard(client: Listening, count: int) -> list[bytes]:
    frames: list[bytes] = []
    async with asyncio.timeout(60):
        while len(frames) < count:
            frames += (await client.next(60)).split(b"\n\n")[:-1]
    return frames


def test_events_of_the_servers_asked_for_are_handed_on(
    wings: WingsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_events, "FIRST_PAUSE", 0.01)

    async def listen() -> None:
        hub = EventHub()
        client = hub.join(frozenset({SERVER}), None)
        assert client is not None
        upstream = Upstream(wings.url)
        following = asyncio.create_task(UpstreamEvents(upstream, TOKEN).follow([SERVER], client))
        await asyncio.to_thread(wings.wait_for_listener, SERVER)
        wings.tell("status", {"server_id": SERVER, "status": "running"})
        wings.tell("status", {"server_id": OTHER, "status": "running"})
        wings.tell("backup completed", {"server_id": SERVER, "is_successful": False})
        wings.tell("console output", {"server_id": SERVER, "line": "déjà\nvu"})
        hub.publish("backup completed", SERVER, {"is_successful": True})
        frames = await heard(client, 3)
        names = sorted(frame.partition(b"event: ")[2].partition(b"\n")[0] for frame in frames)
        assert names == [b"backup completed", b"console output", b"status"]
        assert not any(b"false" in frame for frame in frames)
        # It is restarted, and heard again.
        await asyncio.to_thread(wings.restart)
        await asyncio.to_thread(wings.wait_for_listener, SERVER)
        wings.tell("status", {"server_id": SERVER, "status": "offline"})
        assert b"offline" in (await heard(client, 1))[0]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await upstream.aclose()

    asyncio.run(listen())


def test_events_that_come_at_once_are_told_in_the_order_of_their_ids() -> None:
    hub = EventHub()
    told: list[bytes] = []
    overtaken = threading.Event()

    def publish_another() -> None:
        hub.publish("backup completed", SERVER, {})
        overtaken.set()

    other = threading.Thread(target=publish_another)

    class Slow(Listening):
        def add(self, frame: bytes) -> None:
            if not told and other.ident is None:
                other.start()
                assert overtaken.wait(60)
            told.append(frame)

    async def listen() -> None:
        hub._clients.add(Slow(frozenset({SERVER}), []))

    vars(hub)["_lock"] = TellingLock(overtaken)
    asyncio.run(listen())
    hub.publish("backup completed", SERVER, {})
    other.join(60)
    ids = [int(frame.split(b"\n")[0].removeprefix(b"id: ")) for frame in told]
    assert ids == sorted(ids)
    assert len(ids) == 2


def test_a_wings_without_events_tells_nothing() -> None:
    async def listen(url: str) -> None:
        client = EventHub().join(frozenset({SERVER}), None)
        assert client is not None
        upstream = Upstream(url)
        async with asyncio.timeout(60):
            await UpstreamEvents(upstream, TOKEN).follow([SERVER], client)
        await upstream.aclose()

    with WingsDouble(events=False) as wings:
        asyncio.run(listen(wings.url))
        assert len(wings.calls) == 1
