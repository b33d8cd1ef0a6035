"""Metrics of repositories: right, the same at every worker, and cheap."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.restserver.client import Client
from tests.servers.gateway import Gateway

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.restserver import survey
from backupgw.restserver.counters import BlobCounters
from backupgw.restserver.paths import TYPES, parse
from backupgw.restserver.survey import Memory

Found = dict[tuple[str, ...], float]


def repositories(client: Client, name: str) -> Found:
    """What a metric of repositories says, by repository, owner and type."""
    text = client.call("GET", "/metrics").text
    return {
        tuple(sample.labels[key] for key in ("repo", "owner", "type") if key in sample.labels): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"backupgw_rest_{name}"
    }


def until(client: Client, name: str, wanted: Found) -> None:
    end = time.monotonic() + 30
    while (found := repositories(client, name)) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.1)


def site(folder: Path, more: str) -> Gateway:
    config = folder / "backupgw.toml"
    config.write_text(f'[state]\nfolder = "{folder}/state"\n[rest.repository_metrics]\n{more}\n')
    flags = ["--config", str(config), "--prometheus", "--prometheus-no-auth", "--workers", "2"]
    return Gateway(folder / "data", flags=flags)


def test_what_repositories_hold_is_shown_by_every_worker(tmp_path: Path) -> None:
    with site(tmp_path, 'refresh = "1 s"') as server:
        client = Client(server)
        before = time.time()
        assert client.save("ann/laptop", content=bytes(700))[0] == 200
        assert client.save("ann/laptop", "snapshots", bytes(30))[0] == 200
        assert client.save("ann/laptop", "locks", bytes(40))[0] == 200
        assert client.status("POST", "/ann/laptop/config", b"config") == 200
        assert client.save("bob", content=bytes(5))[0] == 200
        label = ("ann/laptop", "ann")
        until(client, "repository_bytes", {
            **{(*label, kind): 0 for kind in ("index", "keys")},
            **{("bob", "bob", kind): 0 for kind in ("config", *TYPES)},
            (*label, "config"): 6, (*label, "data"): 700, (*label, "snapshots"): 30,
            (*label, "locks"): 40, ("bob", "bob", "data"): 5,
        })  # fmt: skip
        for _ in range(6):  # any worker may answer
            assert repositories(client, "repositories") == {(): 2}
            assert repositories(client, "repository_objects")[*label, "data"] == 1
            for name in ("last_write", "last_snapshot", "oldest_lock"):
                found = repositories(client, f"repository_{name}_timestamp_seconds")
                assert before - 2 < found[label] < time.time() + 2
            assert ("bob", "bob") not in repositories(
                client, "repository_last_snapshot_timestamp_seconds"
            )
        # What is removed is not shown any longer.
        assert client.save("ann/laptop", "locks")[0] == 200
        for file in (tmp_path / "data/ann/laptop/locks").iterdir():
            file.unlink()
        end = time.monotonic() + 30
        while repositories(client, "repository_oldest_lock_timestamp_seconds"):
            assert time.monotonic() < end
            time.sleep(0.1)


def test_bytes_that_were_removed_are_counted(tmp_path: Path) -> None:
    with site(tmp_path, 'refresh = "1 s"') as server:
        client = Client(server)
        for size in (700, 30):
            status, path = client.save("ann/laptop", content=bytes(size))
            assert status == 200
            for _ in range(2):  # the second finds nothing, and counts nothing
                assert client.status("DELETE", path) == 200
        end = time.monotonic() + 10
        wanted = "blob_delete_total", 2.0, "blob_delete_bytes_total", 730.0
        while (found := removed(client)) != wanted:
            assert time.monotonic() < end, found
            time.sleep(0.1)


def removed(client: Client) -> tuple[object, ...]:
    text = client.call("GET", "/metrics").text
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name.removeprefix("rest_server_")] += sample.value  # type: ignore[assignment]
    return tuple(
        part
        for name in ("blob_delete_total", "blob_delete_bytes_total")
        for part in (name, sums[name])
    )


def test_no_more_are_shown_than_the_settings_say(tmp_path: Path) -> None:
    with site(tmp_path, 'refresh = "1 s"\nmost = 2') as server:
        client = Client(server)
        for number in range(5):
            assert client.save(f"user{number}/repo", content=bytes([number] * 10))[0] == 200
        end = time.monotonic() + 30
        while repositories(client, "repositories") != {(): 5}:
            assert time.monotonic() < end
            time.sleep(0.1)
        found = repositories(client, "repository_objects")
        shown = {repo for repo, _owner, _kind in found}
        assert shown == {"user0/repo", "user1/repo", "(others)"}
        assert found["(others)", "", "data"] == 3


def test_counters_of_clients_who_make_ever_new_repositories_are_bounded() -> None:
    registry = CollectorRegistry()
    counters = BlobCounters(registry, most=3)
    for number in range(1000):
        target = parse(f"/repo{number}/config".encode())
        assert target is not None
        counters.written("ann", target, 10)
    counters.publish()
    written = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "rest_server_blob_write_bytes_total"
    ]
    assert {sample.labels["repo"]: sample.value for sample in written} == {
        "repo0": 10, "repo1": 10, "repo2": 10, "(others)": 9970,
    }  # fmt: skip


class Watched(PosixFS):
    """Counts the folders that are listed."""

    looks: Counter[str]

    def list(self, name: str) -> Iterator[ItemInfo]:
        self.looks[name] += 1
        return super().list(name)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Watched]:
    place = Watched(str(tmp_path / "place"), durability="fast")
    place.looks = Counter()
    place.create()
    with place:
        for number in range(40):
            place.store(f"r/data/{number:02x}/{number:02x}{'0' * 62}", bytes(number))
        place.store(f"r/snapshots/{'a' * 64}", b"snapshot")
        yield place


def age(folder: Path, seconds: float) -> None:
    """Let the folders' times be as old as if nothing had happened for so long."""
    for path, _, _ in os.walk(folder):
        then = os.stat(path).st_mtime - seconds
        os.utime(path, (then, then))


def test_what_has_not_changed_is_not_listed_again(place: Watched, tmp_path: Path) -> None:
    age(tmp_path, 10)
    memory = Memory()
    first = survey.count(place, "r", memory)
    assert first.total.objects == 41
    place.looks.clear()
    assert survey.count(place, "r", memory) == first
    assert set(place.looks) == {"r", "r/data"}
    place.store(f"r/data/07/07{'1' * 62}", b"one more")
    place.delete(f"r/snapshots/{'a' * 64}")
    place.looks.clear()
    second = survey.count(place, "r", memory)
    assert (second.types["data"].objects, second.types["snapshots"].objects) == (41, 0)
    assert second.last_snapshot is None
    assert set(place.looks) == {"r", "r/data", "r/data/07", "r/snapshots"}


def test_a_folder_that_changed_just_now_is_not_trusted(place: Watched, tmp_path: Path) -> None:
    """Two changes within a tick of the file system's clock leave one time."""
    memory = Memory()
    survey.count(place, "r", memory)
    folder = tmp_path / "place/r/data/07"
    before = folder.stat().st_mtime_ns
    place.store(f"r/data/07/07{'1' * 62}", b"in the same tick")
    os.utime(folder, ns=(before, before))
    assert survey.count(place, "r", memory).types["data"].objects == 41
