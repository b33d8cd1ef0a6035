"""The cache, permissions and slow places of the Store, against borgstore 0.7's."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from borgstore.backends.errors import (  # type: ignore[import-untyped]
    QuotaExceeded as BorgQuotaExceeded,
)
from borgstore.store import Store as BorgStore  # type: ignore[import-untyped]
from borgstore.store import get_backend as borg_get_backend
from tests.kvstore.test_store_like_borgstore import Pair

from backupgw.kvstore import Store
from backupgw.kvstore.backends.errors import QuotaExceeded
from backupgw.kvstore.store import CacheMode, get_backend

CONFIG: dict[str, dict[str, Any]] = {
    "archives/": {"levels": [0], "cache": "mirror"},
    "packs/": {"levels": [1], "cache": "writethrough", "size": 500},
    "index/": {"levels": [0], "cache": CacheMode.C_WRITETHROUGH},
    "config/": {"levels": [0]},
    "keys/": {"levels": [0], "cache": "OFF"},
    "moving/": {"levels": [0, 2], "cache": "Writethrough", "max_age": 3600, "size": 300},
}
SPACES = [namespace.rstrip("/") for namespace in CONFIG]
KEYS = ["00112233", "00aabbcc", "ff00ff00", "manifest"]


def _for_borgstore(config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        namespace: {
            key: value.value if isinstance(value, CacheMode) else value
            for key, value in settings.items()
        }
        for namespace, settings in config.items()
    }


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    folders = (tmp_path / "ours", tmp_path / "theirs")
    caches = (tmp_path / "our cache", tmp_path / "their cache")
    url, cache = (f"file://{folders[0]}", f"file://{caches[0]}")
    ours = Store(url=url, config=CONFIG, cache_url=cache)
    theirs = BorgStore(
        url=f"file://{folders[1]}", config=_for_borgstore(CONFIG), cache_url=f"file://{caches[1]}"
    )
    pair = Pair(ours, theirs, folders)
    pair.same(lambda store: store.create())
    with ours, theirs:
        yield pair


def _cached(store: Any) -> list[str]:
    """The names in a store's cache."""

    def below(folder: str) -> Iterator[str]:
        for info in store.cache_backend.list(folder):
            name = f"{folder}/{info.name}"
            if info.directory:
                yield from below(name)
            else:
                yield name

    found: list[str] = []
    for space in SPACES:
        if store.cache_backend.info(space).exists:
            found += below(space)
    return sorted(found)


def _counts(store: Any) -> dict[str, Any]:
    return {
        key: value
        for key, value in store.stats.items()
        if not key.endswith(("_time", "_throughput")) and (value or key.startswith("cache"))
    }


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_gives_the_same(pair: Pair, seed: int) -> None:
    """Results, what is cached, and every statistic but times."""
    dice = random.Random(seed)
    for space in SPACES:
        pair.same(methodcaller("store", f"{space}/stays", b"a value of at least 20 bytes"))
    for _ in range(250):
        space, key, other = dice.choice(SPACES), dice.choice(KEYS), dice.choice(KEYS)
        name = f"{space}/{key}"
        deleted = dice.random() < 0.2
        call = dice.choice(
            [
                methodcaller("store", name, dice.randbytes(dice.choice([20, 50, 100, 200]))),
                methodcaller("load", name, deleted=deleted),
                methodcaller("load", name, offset=dice.randint(-20, 20), size=dice.randint(1, 50)),
                methodcaller("info", name, deleted=deleted),
                methodcaller("delete", name, deleted=deleted),
                methodcaller("move", name, delete=True),
                methodcaller("move", name, undelete=True),
                methodcaller("move", name, f"{space}/{other}"),
                methodcaller("gather", [(key, 0, 5), (other, 2, 3)], namespace=space),
                methodcaller("hash", name),
                methodcaller("list", space),
                methodcaller("cache_invalidate", dice.choice([name, name, space, ""])),
            ]
        )
        if "'move'" in repr(call):
            # Moved while it is not cached, borgstore's cache keeps the old value of the target.
            pair.same(methodcaller("load", name, deleted="undelete" in repr(call)))
        pair.same(call)
        assert _cached(pair.ours) == _cached(pair.theirs), call
    pair.same_folders()
    ours, theirs = _counts(pair.ours), _counts(pair.theirs)
    assert ours == theirs


def test_what_is_too_large_is_not_cached(pair: Pair) -> None:
    for size in (100, 600, 500, 501):
        pair.same(methodcaller("store", "packs/00112233", bytes(size)))
        assert _cached(pair.ours) == _cached(pair.theirs)
        pair.same(methodcaller("load", "packs/00112233", offset=10, size=20))
        assert _cached(pair.ours) == _cached(pair.theirs)
    assert _counts(pair.ours) == _counts(pair.theirs)


def test_what_makes_no_cached_store(tmp_path: Path) -> None:
    folder = f"file://{tmp_path}/x"
    for config, options in (
        ({"a/": {"levels": [0], "cache": "nonsense"}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": 7}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": "mirror", "size": -1}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": "mirror", "size": 1.5}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": "mirror", "max_age": -1}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": "mirror", "max_age": "1"}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": "mirror", "other": 1}}, {"cache_url": folder}),
        ({"a/": {"levels": [0], "cache": "mirror"}}, {}),
        (
            {"a/": {"levels": [0]}},
            {"cache_url": folder, "cache_backend": get_backend("memory:")},
        ),
    ):
        for kind in (Store, BorgStore):
            with pytest.raises(ValueError):
                kind(url=f"file://{tmp_path}/place", config=config, **options)


def test_permissions_as_a_store_takes_them(tmp_path: Path) -> None:
    rules = {"": "lr", "packs": "lrw", "locks": "lrwWD"}
    config = {name: {"levels": [0]} for name in ("packs/", "locks/", "config/")}
    folders = (tmp_path / "ours", tmp_path / "theirs")
    for folder in folders:
        with_all = Store(url=f"file://{folder}", config=config)
        with_all.create()
        with with_all:
            for name in ("packs/old", "locks/old", "config/old"):
                with_all.store(name, b"old")
    ours = Store(f"file://{folders[0]}", None, config, rules)
    theirs = BorgStore(f"file://{folders[1]}", None, config, rules)
    pair = Pair(ours, theirs, folders)
    with ours, theirs:
        for space in ("packs", "locks", "config"):
            for call in (
                methodcaller("load", f"{space}/old"),
                methodcaller("info", f"{space}/old"),
                methodcaller("list", space),
                methodcaller("store", f"{space}/new", b"new"),
                methodcaller("store", f"{space}/old", b"replaced"),
                methodcaller("move", f"{space}/old", f"{space}/moved"),
                methodcaller("delete", f"{space}/new"),
                methodcaller("hash", f"{space}/old"),
            ):
                pair.same(call)
    pair.same_folders()
    with pytest.raises(ValueError, match="file:"):
        Store("memory:", config=config, permissions=rules)


def test_quota_as_a_folder_has_it(tmp_path: Path) -> None:
    config = {"packs/": {"levels": [0]}}
    folders = (tmp_path / "ours", tmp_path / "theirs")
    ours = Store(backend=get_backend(f"file://{folders[0]}", quota=1000), config=config)
    theirs = BorgStore(backend=borg_get_backend(f"file://{folders[1]}", quota=1000), config=config)
    pair = Pair(ours, theirs, folders)
    pair.same(lambda store: store.create())

    def refused(store: Any) -> None:
        with pytest.raises(QuotaExceeded if store is ours else BorgQuotaExceeded):
            store.store("packs/b", bytes(500))

    with ours, theirs:
        for call in (
            methodcaller("store", "packs/a", bytes(600)),
            methodcaller("quota"),
            refused,
            methodcaller("store", "packs/a", bytes(900)),
            methodcaller("quota"),
            methodcaller("delete", "packs/a"),
            methodcaller("store", "packs/b", bytes(500)),
            methodcaller("quota"),
        ):
            pair.same(call)
        assert ours.quota() == {"limit": 1000, "usage": 500}
    with ours:
        assert ours.quota() == {"limit": 1000, "usage": 500}, "forgotten at the next opening"
    ours.destroy()
    with pytest.raises(ValueError, match="file:"):
        get_backend("memory:", quota=1)


def test_a_place_is_made_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user of borgstore's variables sees: no call to the place takes less than they say."""
    monkeypatch.setenv("BORGSTORE_LATENCY", "20000")
    monkeypatch.setenv("BORGSTORE_BANDWIDTH", "800000")
    store = Store("memory:", config={"packs/": {"levels": [0]}})
    assert (store.latency, store.bandwidth) == (0.02, 100_000)
    store.create()
    with store:
        for call, least in (
            (methodcaller("store", "packs/a", bytes(5000)), 0.07),
            (methodcaller("load", "packs/a"), 0.07),
            (methodcaller("info", "packs/a"), 0.02),
            (methodcaller("hash", "packs/a"), 0.02),
            (methodcaller("gather", [("a", 0, 1000)], namespace="packs"), 0.03),
            (lambda store: [*store.list("packs")], 0.02),
            (methodcaller("move", "packs/a", "packs/b"), 0.02),
            (methodcaller("delete", "packs/b"), 0.02),
        ):
            start = time.perf_counter()
            call(store)
            assert time.perf_counter() - start >= least
    monkeypatch.setenv("BORGSTORE_LATENCY", "soon")
    with pytest.raises(ValueError, match="BORGSTORE_LATENCY must be a number"):
        Store("memory:", config={"packs/": {"levels": [0]}})
