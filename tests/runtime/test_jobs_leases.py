"""Who dies, sleeps or loses the database gives its jobs up, and no job waits for ever."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from backupgw.runtime.database import DatabaseUnavailable, DatabaseUncertain
from backupgw.runtime.database.tables.jobs import jobs as table
from backupgw.runtime.jobs import (
    Backoff,
    JobContext,
    JobHandler,
    JobStopped,
    Progress,
    State,
    Stop,
    claims,
    holding,
)
from backupgw.runtime.jobs.claims import Claim, Rules
from backupgw.runtime.jobs.handlers import Handlers
from tests.runtime.jobs_site import PATIENCE, Site, finish
from tests.runtime.jobs_worker import EFFECTS
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.alone

RULES = Rules("dead", lease=600, running=100, losses=3, queued_for=7 * 86_400, on_time=300)


def claim(site: Site, handler: JobHandler, rules: Rules = RULES) -> Claim:
    """Claim the next job, as a process does that dies before it does anything else."""
    found = site.database.run(
        lambda connection: claims.look(connection, Handlers([handler]), rules, 1)
    )
    return found.claims[0]


def look(connection: sa.Connection, handler: JobHandler, runner: str) -> claims.Round:
    """Look for work once, as another process."""
    return claims.look(connection, Handlers([handler]), replace(RULES, runner=runner), 9)


def test_a_job_whose_process_keeps_dying_ends_as_failed(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    job = jobs.submit("a.job")
    for _ in range(RULES.losses):
        claim(site, handler, replace(RULES, lease=-1))
    # Whoever looks next gives it up.
    site.jobs([handler], losses=RULES.losses)
    done = finish(jobs, [job.id])[job.id]
    assert (done.state, done.attempts, done.losses) == (State.FAILED, 3, 3)
    assert done.error == "the process that ran it ended without a word 3 times"


def test_a_job_that_was_cancelled_and_whose_process_died_is_cancelled(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    job = jobs.submit("a.job")
    claim(site, handler, replace(RULES, lease=-1))
    jobs.cancel(job.id)
    jobs.start()
    assert finish(jobs, [job.id])[job.id].state is State.CANCELLED


def test_a_lease_that_goes_on_is_not_taken_whatever_a_gateways_clock_says(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    held = jobs.submit("a.job", key="k")
    claim(site, handler)
    for offset in (365 * 86_400.0, -365 * 86_400.0):
        real = time.time() + offset
        monkeypatch.setattr(time, "time", lambda real=real: real)
        found = site.database.run(functools.partial(look, handler=handler, runner="other"))
        assert (found.claims, found.lost) == ([], [])
    assert jobs.find(held.id).state is State.RUNNING


def test_a_lease_from_before_a_restart_of_the_machine_has_ended(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    job = jobs.submit("a.job")
    claim(site, handler)
    with site.database.begin() as connection:
        connection.execute(sa.update(table).values(lease_clock="another machine, or boot"))
    jobs.start()
    assert finish(jobs, [job.id])[job.id].losses == 1


def test_nothing_is_written_with_an_epoch_that_is_over(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    jobs.submit("a.job")
    old = claim(site, handler, replace(RULES, lease=-1))
    new = claim(site, handler)

    def attempt(connection: sa.Connection) -> list[object]:
        return [
            holding.confirm(connection, old, 600),
            holding.finish(connection, old, State.FAILED, error="mine"),
            holding.again(connection, old, 1, "mine"),
            holding.hand_over(connection, old, ended=True),
            holding.overdue(connection, old, "mine"),
            holding.report(connection, old, Progress(1)),
        ]

    assert site.database.run(attempt) == [False, None, None, None, None, False]
    site.database.run(lambda connection: holding.let_go(connection, old))
    found = jobs.find(new.job.id)
    assert (found.state, found.error, found.progress) == (State.RUNNING, None, None)
    assert site.database.run(
        lambda connection: holding.finish(connection, new, State.SUCCEEDED, result="1")
    )


def test_a_lease_that_has_ended_writes_nothing_although_nobody_took_the_job(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    jobs.submit("a.job")
    mine = claim(site, handler, replace(RULES, lease=-1))
    assert not site.database.run(lambda connection: holding.confirm(connection, mine, 600))
    assert site.database.run(lambda c: holding.finish(c, mine, State.SUCCEEDED)) is None


def test_the_answer_that_got_lost_is_given_when_the_end_is_written_again(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    site.jobs([handler], start=False).submit("a.job")
    mine = claim(site, handler)
    for _ in range(2):
        done = site.database.run(lambda c: holding.finish(c, mine, State.SUCCEEDED, result="1"))
        assert done is not None
        assert done.result == 1


def test_what_a_lost_answer_had_claimed_goes_back_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    handler = JobHandler("a.job", lambda context, _: ran.append(context.attempt))
    jobs = site.jobs([handler], start=False, lease=600)
    job = jobs.submit("a.job")
    run = site.database.run
    lost: list[object] = []

    def lose_first_claim(work, **options):  # type: ignore[no-untyped-def]
        answer = run(work, **options)
        if isinstance(answer, tuple) and answer[1].claims and not lost:
            lost.append(answer)
            raise DatabaseUncertain("the connection broke")
        return answer

    monkeypatch.setattr(site.database, "run", lose_first_claim)
    jobs.start()
    assert finish(jobs, [job.id])[job.id].losses == 0
    assert (len(lost), ran) == (1, [1])


def test_jobs_of_a_kind_that_no_gateway_runs_end_as_failed(site: Site) -> None:
    old = JobHandler("an.old", lambda *_: None)
    jobs = site.jobs([old, JobHandler("a.job", lambda *_: None)], start=False)
    job = jobs.submit("an.old", key="k")
    behind = jobs.submit("a.job", key="k")
    eight_days = 8 * 86_400
    with site.database.begin() as connection:
        connection.execute(sa.update(table).values(due=table.c.due - eight_days))
    newer = site.jobs([JobHandler("a.job", lambda *_: None)])
    done = finish(newer, [job.id, behind.id])
    assert done[job.id].error == "for 7 days no gateway ran jobs of this kind"
    assert done[behind.id].state is State.SUCCEEDED


def test_who_cannot_renew_its_lease_stops_and_writes_nothing(
    postgres_programs: None, tmp_path: Path
) -> None:
    stops: list[Stop] = []
    begun = threading.Event()
    stopped = threading.Event()

    def work(context: JobContext, _: object) -> None:
        if context.attempt > 1:
            return
        begun.set()
        context.wait(PATIENCE)
        try:
            context.transact(
                "late", lambda c: c.execute(sa.insert(EFFECTS), {"lane": "x"}).rowcount
            )
        except JobStopped as reason:
            stops.append(reason.reason)
            raise
        finally:
            stopped.set()

    with Postgres() as server:
        site = Site(server.new_database(), tmp_path / "site")
        try:
            jobs = site.jobs([JobHandler("a.job", work, backoff=Backoff(first=0.1))], lease=1)
            job = jobs.submit("a.job")
            assert begun.wait(PATIENCE)
            server.stop("immediate")
            # By itself: nobody can tell it anything.
            assert stopped.wait(PATIENCE)
            server.start()
            done = finish(jobs, [job.id])[job.id]
            # Without a restart of the gateway.
            assert (done.state, done.attempts, done.losses) == (State.SUCCEEDED, 2, 1)
            assert stops == [Stop.LOST]
            assert site.effects() == {}
        finally:
            site.close()


@pytest.mark.parametrize("state_url", ["postgresql"], indirect=True)
def test_who_freezes_in_the_middle_of_a_transaction_holds_nobody_up_for_long(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupgw.runtime.jobs.clock.IDLE", 0.5)
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    job = jobs.submit("a.job")

    def freeze() -> None:
        with site.open().begin() as frozen:
            assert len(look(frozen, handler, "frozen").claims) == 1
            # It has the lock under which jobs are taken, and says nothing more.
            jobs.start()
            assert finish(jobs, [job.id])[job.id].attempts == 1
            frozen.execute(sa.select(table.c.number))

    with pytest.raises(DatabaseUnavailable):
        freeze()
