"""Rates and connections by user and address, as clients notice them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from tests.restserver.client import Client
from tests.restserver.test_rules import Site

from backupgw.kvstore.layers.throttle_rate import timetable
from backupgw.restserver.rates import Allowed, Limiter, Rules
from backupgw.restserver.refusals import Refusal
from backupgw.runtime.between_workers import SHARED_VARIABLE
from backupgw.runtime.rates import SLOTS, Rates
from backupgw.runtime.settings import SettingsError, load

USER = '[[rest.rates.user]]\nwho = "ann"\n'


def test_a_user_has_so_many_requests_and_the_next_are_told_when_to_come(tmp_path: Path) -> None:
    """The workers count together: whichever of them a connection went to, the rate is one."""
    rates = f"{USER}requests = 1\nburst = 20\n"
    with Site(tmp_path, rates, "--workers", "2", "--prometheus", "--prometheus-no-auth") as site:
        ann, bob = site.user("ann"), site.user("bob")
        begun = time.monotonic()
        answers = [ann.call("HEAD", "/repo/config") for _ in range(40)]
        statuses = Counter(answer.status for answer in answers)
        passed = time.monotonic() - begun
        assert 20 <= statuses[404] <= 21 + passed
        assert statuses[404] + statuses[429] == 40
        refused = next(answer for answer in answers if answer.status == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert bob.status("HEAD", "/repo/config") == 404
        # A lock is renewed whatever else is going on.
        assert ann.save("repo", "locks")[0] == 200
        metrics = bob.call("GET", "/metrics").text
        assert f'backupgw_rest_limited_total{{by="user"}} {statuses[429]}.0' in metrics


def test_an_address_has_so_many_requests_with_or_without_a_password(tmp_path: Path) -> None:
    with Site(tmp_path, "[rest.rates.address]\nrequests = 0.1\nburst = 5\n") as site:
        clients = [site.user("ann"), Client(site.server), site.user("bob")]
        statuses = [clients[number % 3].status("HEAD", "/r/config") for number in range(9)]
        assert statuses == [404, 401, 404, 404, 401, 429, 429, 429, 429]
        assert Client(site.server).status("GET", "/healthz") == 200
        site.write('[rest.rates]\nexempt = ["127.0.0.0/8"]\n[rest.rates.address]\nrequests = 0.1\n')
        site.server.process.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while site.user("ann").status("HEAD", "/r/config") == 429:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_user_has_so_many_connections_at_a_time(tmp_path: Path) -> None:
    with Site(tmp_path, f"{USER}connections = 2\nupload = '100 kB/s'\n") as site:
        start = threading.Barrier(4, timeout=20)

        def save(_number: int) -> int:
            start.wait()
            return site.user("ann").save("repo", content=os.urandom(150_000))[0]

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(save, range(4))) == [200, 200, 429, 429]
        assert site.user("ann").save("repo")[0] == 200


@pytest.mark.parametrize("way", ["upload", "download"])
def test_a_users_bytes_come_at_their_rate_all_connections_together(
    tmp_path: Path, way: str
) -> None:
    size, rate = 1_500_000, 1_000_000
    rates = f'{USER}{way} = "{rate} B/s"\n'
    with Site(tmp_path, rates, "--workers", "2") as site:
        ann, bob = site.user("ann"), site.user("bob")
        contents = [os.urandom(size) for _ in range(2)]
        begun = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            saved = list(pool.map(lambda content: ann.save("repo", content=content), contents))
        assert [status for status, _ in saved] == [200, 200]
        if way == "download":
            begun = time.monotonic()
            with ThreadPoolExecutor(2) as pool:
                loaded = list(pool.map(lambda each: ann.call("GET", each[1]), saved))
            assert [answer.status for answer in loaded] == [200, 200]
        # Half a second's worth comes at once; what lies in the sockets' buffers is not waited for.
        took = time.monotonic() - begun
        assert 2 * size / rate - 1.2 < took < 30
        begun = time.monotonic()
        assert bob.save("repo", content=os.urandom(size))[0] == 200
        assert bob.call("GET", saved[0][1]).status == 200
        assert time.monotonic() - begun < took


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rest.rates.user]]\nwho = "@admins"\nrequests = 1\n', "not a group"),
        (f'{USER}upload = "fast"\n', "number of bytes"),
        (f'{USER}download = "100 B/s"\n', "restic gives up"),
        ("[rest.rates.address]\nrequests = 0\n", "more than 0"),
        ('[rest.rates]\nexempt = ["home"]\n', "home"),
    ],
)
def test_mistakes_in_the_settings_are_told(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "backupgw.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load(config)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_lets_as_much_through_as_it_says() -> None:
    clock = Clock()
    rates = Rates("test", clock=clock)
    taken = 0
    for _ in range(1000):  # ten seconds, a hundred tries in each
        taken += rates.take("ann", rate=5, burst=10) == 0
        clock.now += 0.01
    assert taken == 10 + 49
    assert rates.take("bob", rate=5, burst=10) == 0
    wait = next(filter(None, (rates.take("ann", rate=5, burst=10) for _ in range(20))))
    clock.now += wait
    assert rates.take("ann", rate=5, burst=10) == 0
    assert rates.take("ann", rate=5, burst=10) == pytest.approx(0.2)
    rates.close()


def test_processes_count_together_and_more_keys_than_there_is_room_for_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SHARED_VARIABLE, str(tmp_path))
    clock = Clock()
    one, other = Rates("test", clock=clock), Rates("test", clock=clock)
    assert [each.take("ann", rate=1, burst=3) for each in (one, other, one)] == [0, 0, 0]
    assert other.take("ann", rate=1, burst=3) == pytest.approx(1)
    for number in range(4 * SLOTS):
        one.take(f"stranger {number}", rate=100, burst=1)
    # Who owes most is forgotten last.
    assert other.take("ann", rate=1, burst=3) == pytest.approx(1)
    one.close()
    other.close()


def test_a_timetable_of_rates_is_kept_to() -> None:
    clock = Clock()
    table = timetable("upload", "08:00,10k 19:00,off")
    rules = Rules(users=((("*",), Allowed(upload=table)),))
    day = datetime.fromisoformat("2027-01-04")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def paced(hour: int) -> None:
        limiter = Limiter(rules, Rates("test", clock=clock), now=lambda: day.replace(hour=hour))
        pace = limiter.upload("ann")
        assert pace is not None

        async def move() -> None:
            await pace(102_400)

        asyncio.run(move())
        limiter.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        paced(12)
        paced(20)
    assert slept == [pytest.approx(9.5)]


def test_who_is_refused_gives_the_connection_back() -> None:
    limiter = Limiter(Rules(users=((("ann",), Allowed(connections=1)),)), Rates("test"))
    for _ in range(3):
        with limiter.connected("ann"), limiter.connected("bob"), limiter.connected("bob"):
            with pytest.raises(Refusal) as refusal, limiter.connected("ann"):
                pass
            assert refusal.value.status == 429
    limiter.close()
