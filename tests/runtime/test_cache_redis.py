"""The cache in a real Redis, and Redis stopped, killed and frozen in the middle of traffic."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from backupgw.runtime import metrics
from backupgw.runtime.cache import Json
from backupgw.runtime.cache.breaker import Breaker
from backupgw.runtime.cache.redis import PREFIX, RedisCache
from tests.servers.redis import Redis

pytestmark = pytest.mark.root("redis-server")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def cache(server: Redis) -> Iterator[RedisCache]:
    made = connect(server)
    yield made
    made.close()


def connect(server: Redis, breaker: Breaker | None = None) -> RedisCache:
    # Never pausing, so that a test need not wait for a return; `timeout` fits a loaded machine.
    breaker = breaker or Breaker(failures=1_000_000)
    return RedisCache(server.url, timeout=1.0, breaker=breaker)


def sample(operation: str, result: str) -> float:
    wanted = f'cache="redis",operation="{operation}",result="{result}"'
    for line in metrics.exposition().decode().splitlines():
        if line.startswith("backupgw_cache_requests_total") and wanted in line:
            return float(line.rpartition(" ")[2])
    return 0.0


def test_gateways_share_what_they_know(server: Redis, cache: RedisCache) -> None:
    other = connect(server)
    value: dict[str, Json] = {"n": 1, "list": [1, 2.5, None, True, "ä\ud800"]}
    cache.set("key", value, ttl=60)
    assert other.get("key") == value
    other.delete("key")
    assert cache.get("key") is None
    other.close()


def test_values_end_by_themselves(server: Redis, cache: RedisCache) -> None:
    cache.namespace("n").set("key", 1, ttl=12.5)
    with redis.Redis.from_url(server.url) as client:
        [key] = client.keys("*")
        assert key == f"{PREFIX}:n:=key".encode()
        assert 0 < client.pttl(key) <= 12_500


def test_namespaces_do_not_see_each_other(cache: RedisCache) -> None:
    left, right = cache.namespace("left"), cache.namespace("right")
    inner = left.namespace("inner")
    for number, each in enumerate((cache, left, right, inner)):
        each.set("a", number, ttl=60)
    cache.set("left:=a", "no", ttl=60)
    assert [each.get("a") for each in (cache, left, right, inner)] == [0, 1, 2, 3]
    left.clear()
    assert [each.get("a") for each in (cache, left, right, inner)] == [0, None, 2, None]
    assert cache.get("left:=a") == "no"


def test_emptying_leaves_what_others_keep_there(server: Redis, cache: RedisCache) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("somebody", "else")
        for number in range(1200):
            cache.set(f"k{number}", number, ttl=60)
        cache.clear()
        assert client.keys("*") == [b"somebody"]


def test_long_keys_and_large_values(cache: RedisCache) -> None:
    cache.set("k" * 10_000, 1, ttl=60)
    cache.set("k" * 9_999, 2, ttl=60)
    assert [cache.get("k" * 10_000), cache.get("k" * 9_999)] == [1, 2]
    cache.set("big", "old", ttl=60)
    cache.set("big", "x" * (2 << 20), ttl=60)
    assert cache.get("big") is None


def test_somebody_elses_bytes_under_our_key_are_a_miss(server: Redis, cache: RedisCache) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set(f"{PREFIX}:=key", b"\x80\x04not json")
        assert cache.get("key", default="none") == "none"
        assert client.get(f"{PREFIX}:=key") is None, "it is cleared away"
        client.rpush(f"{PREFIX}:=list", "1")
    assert cache.get("list") is None


def test_a_redis_that_never_was_there_costs_misses_only(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    server.port = 1  # nothing listens there
    breaker = Breaker(failures=3, first=1000)
    cache = connect(server, breaker)
    for number in range(20):
        cache.set("a", number, ttl=60)
        assert cache.get("a", default="none") == "none"
        cache.delete("a")
        cache.clear()
    assert breaker.open, "it is left alone"
    cache.close()


def test_values_come_back_with_redis_and_deleted_ones_do_not(server: Redis) -> None:
    cache = connect(server)
    cache.set("kept", 1, ttl=600)
    cache.set("withdrawn", 2, ttl=600)
    cache.set("replaced", 3, ttl=600)
    server.kill()
    assert cache.get("kept") is None
    cache.delete("withdrawn")
    cache.set("replaced", 4, ttl=600)
    server.start()
    assert cache.get("kept") == 1
    assert cache.get("withdrawn") is None, "withdrawn while Redis was away"
    assert cache.get("replaced") is None, "the old value is not true any more"
    cache.close()


def test_more_deletions_than_are_remembered_empty_the_cache(server: Redis) -> None:
    cache = connect(server)
    cache.set("kept", 1, ttl=600)
    cache.set("w1001", 1, ttl=600)
    server.stop()
    for number in range(1002):
        cache.delete(f"w{number}")
    server.start()
    assert cache.get("w1001") is None
    assert cache.get("kept") is None, "forgetting too much costs speed, too little is wrong"
    cache.set("kept", 2, ttl=600)
    assert cache.get("kept") == 2
    cache.close()


def test_clearing_while_redis_is_away_is_made_up_for(server: Redis) -> None:
    cache = connect(server)
    cache.namespace("n").set("a", 1, ttl=600)
    server.stop()
    cache.namespace("n").clear()
    server.start()
    assert cache.namespace("n").get("a") is None
    cache.close()


def test_a_frozen_redis_holds_nobody_up_for_long(server: Redis) -> None:
    breaker = Breaker(failures=2, first=1000)
    cache = RedisCache(server.url, timeout=0.2, breaker=breaker)
    cache.set("a", 1, ttl=600)
    server.freeze()
    skipped = sample("get", "skipped")
    for _ in range(100):
        assert cache.get("a") is None
    assert breaker.open
    assert sample("get", "skipped") >= skipped + 97, "it was asked as long as the breaker allows"
    server.thaw()
    cache.close()


def test_a_full_redis_costs_misses_only(tmp_path: Path) -> None:
    with Redis(
        tmp_path / "redis", flags=("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    ) as s:
        cache = connect(s)
        cache.set("a", 1, ttl=60)
        assert cache.get("a") is None
        cache.close()


def test_stopped_and_restarted_under_traffic(server: Redis) -> None:
    """Eight threads read and write while Redis goes and comes back three times."""
    cache = connect(server, Breaker(failures=3, first=0.01, longest=0.05))
    ending = threading.Event()
    errors: list[BaseException] = []
    rounds = [0] * 8
    progress = threading.Condition()

    def work(number: int) -> None:
        try:
            while not ending.is_set():
                cache.set(f"k{number}", [number, rounds[number]], ttl=60)
                found = cache.get(f"k{number}")
                # A key has one writer: either what it wrote last, or nothing.
                assert found in (None, [number, rounds[number]]), found
                with progress:
                    rounds[number] += 1
                    progress.notify_all()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)
            with progress:
                progress.notify_all()

    def wait_for_more(operations: int) -> None:
        with progress:
            goal = sum(rounds) + operations
            assert progress.wait_for(lambda: sum(rounds) >= goal or errors, 60)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for end in (server.stop, server.kill, server.stop):
            wait_for_more(200)
            end()
            wait_for_more(200)
            server.start()
        hits = sample("get", "hit")
        with progress:
            assert progress.wait_for(lambda: sample("get", "hit") > hits + 50 or errors, 60)
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)
    cache.close()
    assert errors == []
    with redis.Redis.from_url(server.url) as client:
        # Only this client's own connection is left.
        assert len(client.client_list()) == 1
