"""Gateways are killed while they run jobs; every job's effects happen, once, and in order."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backupgw.runtime.database.tables.jobs import jobs as table
from backupgw.runtime.jobs import State
from tests.runtime.jobs_site import Site, WorkerProcess, finish, work
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.alone


@contextlib.contextmanager
def gateways(site: Site, lease: float) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """Two gateways; what is killed of one is replaced."""
    with site.worker("east", lease=lease) as east, site.worker("west", lease=lease) as west:
        yield east, west


def submit_all(site: Site, *, jobs: int, lanes: int, pause: float) -> list[str]:
    """Submit to all lanes in turn, each job twice, as a client does that got no answer."""
    client = site.client()
    ids = []
    for number in range(jobs):
        lane, place = f"lane{number % lanes}", number // lanes
        for _ in range(2):
            job = client.submit(
                "test.work", work(lane, place, pause=pause), key=lane, id=f"{lane}-{place}"
            )
        ids.append(job.id)
    return ids


def check(site: Site, ids: list[str], *, lanes: int) -> int:
    """All have succeeded, each effect once and in its lane's order; return the losses."""
    done = finish(site.client(), ids)
    assert {job.state for job in done.values()} == {State.SUCCEEDED}, [
        (job.id, job.error) for job in done.values() if job.state is not State.SUCCEEDED
    ]
    places = len(ids) // lanes
    assert site.effects() == {f"lane{lane}": list(range(places)) for lane in range(lanes)}
    assert site.outside() == dict.fromkeys(ids, 1)
    assert site.violations == ""
    return sum(job.losses for job in done.values())


def kill_at_random(
    site: Site, *, jobs: int, lanes: int, kills: int, lease: float, pause: float, seed: int
) -> None:
    chance = random.Random(seed)
    done = killed = 0
    client = site.client()
    with gateways(site, lease) as running:
        ids = submit_all(site, jobs=jobs, lanes=lanes, pause=pause)
        for _, job in client.watch(ids):
            assert job is not None
            done += job.state.finished
            if killed == kills or done < killed * jobs * 0.9 / kills:
                continue
            for at_work in client.list(states=[State.RUNNING], limit=1):
                gateway = running[0] if str(at_work.runner).startswith("east/") else running[1]
                # Somewhere between two of the stages that a job tells of.
                gateway.give_time_for(chance.randrange(3))
                gateway.replace()
                killed += 1
        losses = check(site, ids, lanes=lanes)
    print(f"{jobs} jobs on {lanes} keys, {killed} kills, {losses} attempts lost")
    # Otherwise the kills hit nothing, and the test shows nothing.
    assert killed == kills
    assert losses >= kills // 3


def test_killed_gateways_lose_no_job_and_repeat_none(site: Site) -> None:
    kill_at_random(site, jobs=60, lanes=12, kills=8, lease=2.5, pause=0.2, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_kills_among_five_hundred_jobs(site: Site) -> None:
    kill_at_random(site, jobs=500, lanes=20, kills=100, lease=4, pause=0.2, seed=2)


def test_postgresql_that_crashes_in_between_costs_time_and_nothing_else(
    postgres_programs: None, tmp_path: Path
) -> None:
    with Postgres() as server:
        site = Site(server.new_database(), tmp_path / "site")
        try:
            client = site.client()
            with gateways(site, 2):
                ids = submit_all(site, jobs=60, lanes=12, pause=0.03)
                done = stops = 0
                for _, job in client.watch(ids):
                    assert job is not None
                    done += job.state.finished
                    if stops < 3 and done > 10 * (stops + 1):
                        server.restart("immediate")
                        stops += 1
                assert stops == 3
                check(site, ids, lanes=12)
        finally:
            site.close()


def stall(site: Site, gateway: WorkerProcess) -> None:
    """SIGSTOP, but not in the middle of a write to SQLite: nobody could take its lock away.

    So the lock is ours while it is stopped.
    """
    if not site.url.startswith("sqlite"):
        os.kill(gateway.current, signal.SIGSTOP)
        return
    path = site.url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        os.kill(gateway.current, signal.SIGSTOP)
        status = Path(f"/proc/{gateway.current}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        file.execute("ROLLBACK")


def test_a_gateway_that_wakes_up_late_has_no_effect_and_turns_no_order(site: Site) -> None:
    """It was alive all the time, and its successor cannot know that: what it still does is late."""
    client = site.client()
    with site.worker("sleeper", lease=3) as sleeper:
        first, second = (
            client.submit("test.work", work("lane", place, pause=0.5), key="lane")
            for place in range(2)
        )
        sleeper.wait_for_line(f"begin {first.id} 1")
        stall(site, sleeper)
        with site.worker("other", lease=3) as other:
            other.wait_for_line(f"begin {first.id} 2")
            os.kill(sleeper.current, signal.SIGCONT)
            done = finish(client, [first.id, second.id])
    assert {job.state for job in done.values()} == {State.SUCCEEDED}
    # Once each, in their order, although two processes had the first one in hand.
    assert site.effects() == {"lane": [0, 1]}
    assert site.outside() == {first.id: 1, second.id: 1}
    assert f"middle {first.id} 1" not in sleeper.output
    assert f"end {first.id} 1" not in sleeper.output
    assert done[first.id].losses >= 1
    # On a machine that is late with everything the successor may be taken for dead, too.
    if done[first.id].losses == 1:
        assert str(done[first.id].runner).startswith("other/")


def test_a_gateway_that_slept_past_its_lease_writes_nothing_any_more(site: Site) -> None:
    client = site.client()
    with site.worker("sleeper", lease=3) as sleeper:
        job = client.submit("test.stubborn", work("lane", 0, pause=0.5), key="lane")
        follower = client.submit("test.work", work("lane", 1), key="lane")
        sleeper.wait_for_line(f"begin {job.id} 1")
        stall(site, sleeper)
        with site.worker("other", lease=3) as other:
            other.wait_for_line(f"over {job.id} 2")
            assert finish(client, [job.id])[job.id].state is State.SUCCEEDED
            os.kill(sleeper.current, signal.SIGCONT)
            sleeper.wait_for_line(f"stopped-lost {job.id} 1")
            finish(client, [follower.id])
    # Its step was done by the other alone, and what it returned changed nothing.
    assert site.outside()[job.id] == 1
    assert client.find(job.id).losses == 1
    assert str(client.find(job.id).runner).startswith("other/")


def test_a_service_that_is_stopped_hands_its_jobs_over(site: Site) -> None:
    client = site.client()
    with site.worker("old", lease=30, grace=10) as old:
        jobs = [
            client.submit("test.work", work(f"lane{n}", 0, pause=60), key=f"lane{n}")
            for n in range(3)
        ]
        for job in jobs:
            old.wait_for_line(f"outside {job.id}")
        assert old.stop() == 0
        assert "closed" in old.output
    for job in jobs:
        found = client.find(job.id)
        # As if it had not been started: neither failed, nor an attempt less.
        assert (found.state, found.attempts, found.losses) == (State.QUEUED, 0, 0)
    client.cancel(jobs[2].id)
    with site.worker("new", lease=30) as new:
        for job in jobs[:2]:
            # At once: nobody waits for a lease of 30 seconds.
            new.wait_for_line(f"begin {job.id} 1", timeout=10)
    # What was done before the stop was not done again.
    assert site.outside() == {job.id: 1 for job in jobs}


@pytest.mark.parametrize("state_url", ["sqlite"], indirect=True)
def test_what_does_not_stop_in_time_keeps_its_key_until_the_lease_ends(site: Site) -> None:
    client = site.client()
    with site.worker("old", lease=2, grace=0.2) as old:
        job = client.submit("test.stubborn", work("lane", 0, pause=60), key="lane")
        behind = client.submit("test.work", work("lane", 1), key="lane")
        old.wait_for_line(f"begin {job.id}")
        assert old.stop() == 0
    assert client.find(job.id).state is State.QUEUED
    with site.database.read() as connection:
        held = connection.execute(sa.select(table.c.held).where(table.c.id == job.id))
        assert held.scalar_one(), "its handler may be at work, and another may begin"
    with site.worker("new", lease=2) as new:
        new.wait_for_line(f"begin {job.id} 1")
        client.cancel(behind.id)
        assert client.find(job.id).losses == 0
