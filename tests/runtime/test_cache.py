"""The cache in process: bounded, honest about time, and never anybody's shared object."""

from __future__ import annotations

import threading

import pytest

from backupgw.runtime import metrics
from backupgw.runtime.cache import CacheSettings, Json, MemoryCache, open_cache
from backupgw.runtime.cache.breaker import Breaker
from backupgw.runtime.cache.memory import cost
from backupgw.runtime.command import CommandError
from backupgw.runtime.secrets import Secret


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_value_lives_as_long_as_it_was_given() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    cache.set("a", 1, ttl=10)
    clock.now += 9.9
    assert cache.get("a") == 1
    clock.now += 0.2
    assert cache.get("a") is None
    assert cache.get("a", default="none") == "none"


def test_what_was_used_least_recently_makes_room() -> None:
    cache = MemoryCache(entries=3)
    for key in "abc":
        cache.set(key, key, ttl=60)
    assert cache.get("a") == "a"
    cache.set("d", "d", ttl=60)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]


def test_bytes_are_bounded_and_given_back() -> None:
    one = cost(("", "k0"), b'"' + b"x" * 1000 + b'"')
    cache = MemoryCache(size=10 * one)
    for round_ in range(3):
        for number in range(10):
            cache.set(f"k{number}", "x" * 1000, ttl=60)
        assert all(cache.get(f"k{number}") for number in range(10)), round_
    cache.set("ka", "x" * 1000, ttl=60)
    assert cache.get("k0") is None
    assert cache.get("k1") is not None


def test_a_value_too_large_is_not_kept_and_neither_is_the_old_one() -> None:
    cache = MemoryCache(size=1 << 16)
    cache.set("a", "old", ttl=60)
    cache.set("a", "x" * (1 << 17), ttl=60)
    assert cache.get("a") is None


def test_a_caller_that_changes_its_copy_changes_nobody_elses() -> None:
    cache = MemoryCache()
    value: dict[str, Json] = {"users": ["alice"]}
    cache.set("a", value, ttl=60)
    value["users"] = []
    first = cache.get("a")
    assert first == {"users": ["alice"]}
    assert isinstance(first, dict)
    first.clear()
    assert cache.get("a") == {"users": ["alice"]}


def test_namespaces_do_not_see_each_other() -> None:
    cache = MemoryCache()
    left, right = cache.namespace("left"), cache.namespace("right")
    inner = left.namespace("inner")
    for number, each in enumerate((cache, left, right, inner)):
        each.set("a", number, ttl=60)
    assert [each.get("a") for each in (cache, left, right, inner)] == [0, 1, 2, 3]
    left.clear()
    assert [each.get("a") for each in (cache, left, right, inner)] == [0, None, 2, None]
    with pytest.raises(ValueError, match="namespace"):
        cache.namespace("a:b")


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, float("nan")])
def test_only_json_is_taken(value: Json) -> None:
    with pytest.raises((TypeError, ValueError)):
        MemoryCache().set("a", value, ttl=1)


@pytest.mark.parametrize("ttl", [0, -1, 86_401, float("inf"), float("nan")])
def test_nothing_is_kept_for_ever(ttl: float) -> None:
    with pytest.raises(ValueError, match="time to live"):
        MemoryCache().set("a", 1, ttl=ttl)


def test_many_threads_leave_the_account_right() -> None:
    cache = MemoryCache(entries=50)
    wrong: list[Json] = []

    def work(seed: int) -> None:
        for number in range(2000):
            key = str((number * seed) % 100)
            if number % 3 == 0:
                cache.delete(key)
            elif number % 3 == 1:
                cache.set(key, key, ttl=60)
            elif (found := cache.get(key)) not in (None, key):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    cache.clear()
    assert cache._shelf.size == 0


def test_look_ups_are_counted() -> None:
    cache = MemoryCache()
    before = sample('get",result="hit'), sample('get",result="miss')
    cache.set("a", 1, ttl=60)
    cache.get("a")
    cache.get("b")
    assert sample('get",result="hit') == before[0] + 1
    assert sample('get",result="miss') == before[1] + 1


def sample(labels: str) -> float:
    for line in metrics.exposition().decode().splitlines():
        if line.startswith("backupgw_cache_requests_total") and labels in line and "memory" in line:
            return float(line.rpartition(" ")[2])
    return 0.0


def test_the_default_is_in_process() -> None:
    assert isinstance(open_cache(CacheSettings.model_validate({})), MemoryCache)


def test_a_wrong_url_is_told_without_its_password() -> None:
    with pytest.raises(CommandError) as caught:
        open_cache(CacheSettings.model_validate({"url": Secret("http://u:hunter2@host")}))
    assert "hunter2" not in str(caught.value)
    assert "redis://" in str(caught.value)


def test_a_breaker_lets_one_try_pass_after_each_pause() -> None:
    clock = Clock()
    breaker = Breaker(failures=2, first=10, longest=30, clock=clock)
    assert breaker.allows()
    assert not breaker.failed()
    assert breaker.failed(), "the second failure in a row opens it"
    assert not breaker.allows()
    clock.now += 10
    assert breaker.allows()
    assert not breaker.allows(), "one at a time"
    assert not breaker.failed(), "it was open already"
    clock.now += 4.9
    assert not breaker.allows(), "a pause is at least half as long as stated"
    clock.now += 30
    assert breaker.allows()
    assert breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()
