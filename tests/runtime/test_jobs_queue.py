"""What gets into the queue, and in which order and how many at a time it comes out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from backupgw.runtime.jobs import (
    BadArguments,
    JobConflict,
    JobContext,
    JobHandler,
    State,
    UnknownJob,
    UnknownKind,
)
from tests.runtime.jobs_site import PATIENCE, Site, finish


class Copy(BaseModel):
    source: str
    size: int = 0


class Stage:
    """A handler that tells who runs, and lets nobody end before it is told to."""

    def __init__(self) -> None:
        self.change = threading.Condition()
        self.running: list[str] = []
        self.begun: list[str] = []
        self.most: Counter[str] = Counter()
        self.open = False
        self.overlaps: list[str] = []

    def __call__(self, context: JobContext, arguments: object) -> None:
        job = context.job
        with self.change:
            same = [other for other in self.running if other == job.key and job.key is not None]
            self.overlaps += same
            self.running.append(str(job.key))
            self.begun.append(job.id)
            self.most[job.kind] = max(self.most[job.kind], len(self.running))
            self.change.notify_all()
            self.change.wait_for(lambda: self.open or context.stopping, PATIENCE)
            self.running.remove(str(job.key))
            self.change.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(condition, PATIENCE), (self.running, self.begun)

    def let_go(self) -> None:
        with self.change:
            self.open = True
            self.change.notify_all()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_job_is_there_once_however_often_it_is_submitted(site: Site) -> None:
    jobs = site.jobs([JobHandler("a.copy", lambda *_: None, Copy)], start=False)
    first = jobs.submit("a.copy", Copy(source="x"), key="k", id="mine")
    assert jobs.submit("a.copy", {"source": "x"}, key="k", id="mine") == first
    for kind, arguments, key in (
        ("a.copy", {"source": "y"}, "k"),
        ("a.copy", {"source": "x"}, "other"),
    ):
        with pytest.raises(JobConflict, match="mine"):
            jobs.submit(kind, arguments, key=key, id="mine")
    assert [job.id for job in jobs.list()] == ["mine"]


def test_a_finished_job_is_not_done_again_for_the_same_id(site: Site) -> None:
    calls = []
    jobs = site.jobs([JobHandler("a.copy", lambda *_: calls.append(1))])
    job = jobs.submit("a.copy", id="mine")
    finish(jobs, [job.id])
    again = jobs.submit("a.copy", id="mine")
    assert (again.state, calls) == (State.SUCCEEDED, [1])


def test_unique_finds_the_unfinished_job_of_the_same_kind_and_key(site: Site) -> None:
    jobs = site.jobs(
        [JobHandler("a.copy", lambda *_: None), JobHandler("a.check", lambda *_: None)], start=False
    )
    first = jobs.submit("a.copy", key="k", unique=True)
    assert jobs.submit("a.copy", key="k", unique=True).id == first.id
    assert jobs.submit("a.copy", key="j", unique=True).id != first.id
    assert jobs.submit("a.check", key="k", unique=True).id != first.id
    jobs.cancel(first.id)
    assert jobs.submit("a.copy", key="k", unique=True).id != first.id


def test_many_who_submit_a_unique_job_at_once_get_the_same(site: Site) -> None:
    handler = JobHandler("a.copy", lambda *_: None)
    gateways = [
        site.jobs([handler], database=site.open() if number else None, start=False)
        for number in range(4)
    ]
    together = threading.Barrier(8)
    found: set[str] = set()

    def submit(number: int) -> None:
        together.wait()
        found.add(gateways[number % 4].submit("a.copy", key="k", unique=True).id)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_what_cannot_be_run_is_not_taken(site: Site) -> None:
    jobs = site.jobs([JobHandler("a.copy", lambda *_: None, Copy)], start=False)
    with pytest.raises(UnknownKind, match=r"a\.copi.*did you mean 'a\.copy'"):
        jobs.submit("a.copi")
    with pytest.raises(BadArguments, match="source: Field required"):
        jobs.submit("a.copy")
    with pytest.raises(BadArguments, match="characters of JSON"):
        jobs.submit("a.copy", {"source": "x" * 2_000_000})
    with pytest.raises(ValueError, match="key has 1 to 200"):
        jobs.submit("a.copy", {"source": "x"}, key="")
    with pytest.raises(UnknownJob, match="no job nothing"):
        jobs.find("nothing")
    assert jobs.list() == []


def test_one_job_of_a_key_runs_at_a_time_and_in_order(site: Site, stage: Stage) -> None:
    stage.open = True
    handlers = [JobHandler("a.copy", stage), JobHandler("a.check", stage)]
    jobs = site.jobs(handlers, here=4, running=8, start=False)
    other = site.jobs(handlers, here=4, running=8, database=site.open(), start=False)
    submitted = [
        jobs.submit(("a.copy", "a.check")[number % 2], key=f"key{number % 3}").id
        for number in range(24)
    ]
    jobs.start()
    other.start()
    finish(jobs, submitted)
    assert stage.overlaps == []
    for key in range(3):
        mine = submitted[key::3]
        assert [job for job in stage.begun if job in mine] == mine


def test_limits_hold_for_all_gateways_together(site: Site, stage: Stage) -> None:
    handlers = [JobHandler("a.copy", stage, limit=2), JobHandler("a.check", stage)]
    jobs = site.jobs(handlers, here=4, running=5)
    other = site.jobs(handlers, here=4, running=5, database=site.open())
    copies = [jobs.submit("a.copy").id for _ in range(6)]
    checks = [jobs.submit("a.check").id for _ in range(6)]
    stage.wait_for(lambda: len(stage.running) == 5)
    # Whoever rang for them has been heard when these are done: nothing more was begun.
    for gateway in (jobs, other):
        gateway.submit("a.check")
    counts = Counter(job.kind for job in jobs.list(states=[State.RUNNING]))
    assert counts == {"a.copy": 2, "a.check": 3}
    stage.let_go()
    finish(jobs, copies + checks)


def test_a_limit_in_the_settings_wins_over_the_kinds_own(site: Site, stage: Stage) -> None:
    jobs = site.jobs([JobHandler("a.copy", stage, limit=1)], limits={"a.copy": 3})
    ids = [jobs.submit("a.copy").id for _ in range(4)]
    stage.wait_for(lambda: len(stage.running) == 3)
    stage.let_go()
    finish(jobs, ids)
    assert stage.most["a.copy"] == 3


def test_a_later_job_waits_and_does_not_keep_others_waiting(site: Site) -> None:
    begun: list[str] = []
    jobs = site.jobs([JobHandler("a.copy", lambda context, _: begun.append(context.job.id))])
    now = time.time()
    later = jobs.submit("a.copy", key="k", not_before=now + 1.0)
    sooner = jobs.submit("a.copy", key="k")
    done = finish(jobs, [later.id, sooner.id])
    assert begun == [sooner.id, later.id]
    started = done[later.id].started
    assert started is not None
    assert started >= now + 1.0


def test_one_kind_that_waits_for_its_limit_does_not_hold_up_the_others(
    site: Site, stage: Stage
) -> None:
    jobs = site.jobs(
        [JobHandler("a.copy", stage, limit=1), JobHandler("a.check", lambda *_: None)], here=4
    )
    copies = [jobs.submit("a.copy").id for _ in range(30)]
    stage.wait_for(lambda: len(stage.running) == 1)
    check = jobs.submit("a.check")
    assert finish(jobs, [check.id])[check.id].state is State.SUCCEEDED
    for job in copies:
        jobs.cancel(job)


def test_a_clock_that_is_set_back_changes_neither_order_nor_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    if site.database.dialect == "postgresql":
        # All gateways go by the server's clock; one gateway's own is never asked.
        monkeypatch.setattr(time, "time", lambda: 0.0)
    begun: list[str] = []
    jobs = site.jobs(
        [JobHandler("a.copy", lambda context, _: begun.append(context.job.id))], here=1
    )
    jobs.close()
    jobs = site.jobs(
        [JobHandler("a.copy", lambda context, _: begun.append(context.job.id))], start=False
    )
    real = time.time()
    ids = []
    for offset in (86_400, 0, -86_400):
        if site.database.dialect == "sqlite":
            monkeypatch.setattr("backupgw.runtime.jobs.clock.time.time", lambda o=offset: real + o)
        ids += [jobs.submit("a.copy", key="k").id for _ in range(2)]
    jobs.start()
    finish(jobs, ids)
    assert begun == ids


def test_lists_are_filtered(site: Site) -> None:
    handlers = [JobHandler("a.copy", lambda *_: None), JobHandler("a.check", lambda *_: None)]
    jobs = site.jobs(handlers, start=False)
    copy = jobs.submit("a.copy", key="k")
    check = jobs.submit("a.check", key="k")
    jobs.cancel(copy.id)
    assert [job.id for job in jobs.list()] == [check.id, copy.id]
    assert [job.id for job in jobs.list(kind="a.copy")] == [copy.id]
    assert [job.id for job in jobs.list(states=[State.QUEUED])] == [check.id]
    assert [job.id for job in jobs.list(key="k", limit=1)] == [check.id]
    assert jobs.list(key="j") == []
