"""What becomes of a job when its handler ends, fails, is cancelled or does not stop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import prometheus_client
import pytest
import sqlalchemy as sa

from backupgw.runtime.database import DatabaseError
from backupgw.runtime.events import JobFinished, JobGivenUp
from backupgw.runtime.events.records import Event
from backupgw.runtime.jobs import (
    Backoff,
    Job,
    JobContext,
    JobFailed,
    JobHandler,
    Jobs,
    JobStopped,
    State,
    Stop,
    holding,
)
from backupgw.runtime.jobs.claims import Claim
from backupgw.runtime.jobs.runner import Runner
from tests.runtime.jobs_site import PATIENCE, Site, finish
from tests.runtime.jobs_worker import EFFECTS

Handle = Callable[[JobContext, Any], object]
SOON = Backoff(first=0.01)


class Told:
    """Stands where events are published."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def publish(self, event: Event) -> bool:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
        return True

    def events(self, count: int) -> list[Event]:
        """Return all when there are so many: a job has ended before it is told of."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) >= count, PATIENCE)
            return self._events[:]


def one(site: Site, handle: Handle, **more: Any) -> Job:
    """Run one job to its end."""
    jobs = site.jobs([JobHandler("a.job", handle, backoff=SOON, **more)])
    job = jobs.submit("a.job")
    return finish(jobs, [job.id])[job.id]


def test_what_a_handler_returns_is_the_jobs_result(site: Site) -> None:
    job = one(site, lambda *_: {"files": [1, 2]})
    assert (job.state, job.result, job.error, job.attempts) == (
        *(State.SUCCEEDED, {"files": [1, 2]}),
        *(None, 1),
    )


def test_a_failure_is_tried_again_until_the_attempts_are_used_up(site: Site) -> None:
    tries: list[int] = []

    def fail(context: JobContext, _: object) -> None:
        tries.append(context.attempt)
        raise OSError(f"the place is away: https://user:word@host/{context.attempt}")

    told = Told()
    jobs = site.jobs([JobHandler("a.job", fail, backoff=SOON, attempts=3)], events=told)
    job = jobs.submit("a.job", key="k")
    behind = jobs.submit("a.job", key="k")
    done = finish(jobs, [job.id, behind.id])
    assert done[job.id].state is State.FAILED
    assert done[job.id].attempts == 3
    assert done[job.id].error == "OSError: the place is away: https://***@host/3"
    # The job behind had to wait for all three.
    assert tries == [1, 2, 3, 1, 2, 3]
    events = told.events(2)
    assert [type(event) for event in events] == [JobGivenUp, JobGivenUp]
    assert events[0].data()["job"] == job.id


def test_a_failure_that_a_retry_helps_is_forgotten(site: Site) -> None:
    def fail_once(context: JobContext, _: object) -> str:
        if context.attempt == 1:
            raise JobFailed("not yet", retry=True)
        return "well"

    job = one(site, fail_once)
    assert (job.state, job.result, job.error, job.attempts) == (State.SUCCEEDED, "well", None, 2)


def test_a_handler_can_say_that_trying_again_is_of_no_use(site: Site) -> None:
    def refuse(*_: object) -> None:
        raise JobFailed("the backup is not there")

    job = one(site, refuse)
    assert (job.state, job.error, job.attempts) == (State.FAILED, "the backup is not there", 1)


@pytest.mark.parametrize(
    ("handle", "error"),
    [
        (lambda *_: sys.exit(3), "SystemExit: 3"),
        (lambda *_: object(), "what the handler returned cannot be written as JSON"),
        (lambda *_: float("nan"), "what the handler returned cannot be written as JSON"),
        (lambda *_: "x" * 2_000_000, "takes 2000002 characters of JSON"),
    ],
    ids=["exit", "object", "nan", "too long"],
)
def test_what_a_handler_must_not_do_fails_its_job_alone(
    site: Site, handle: Handle, error: str
) -> None:
    job = one(site, handle, attempts=1)
    assert job.state is State.FAILED
    assert error in str(job.error)


def waits(context: JobContext, _: object) -> None:
    """Ends when it is asked to, and not before."""
    context.wait(PATIENCE)
    context.check()


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(site: Site) -> None:
    ran = []
    told = Told()
    jobs = site.jobs([JobHandler("a.job", lambda *_: ran.append(1))], start=False, events=told)
    job = jobs.submit("a.job")
    assert jobs.cancel(job.id).state is State.CANCELLED
    assert jobs.cancel(job.id).state is State.CANCELLED
    jobs.start()
    other = jobs.submit("a.job")
    finish(jobs, [other.id])
    assert ran == [1]
    assert jobs.cancel(other.id).state is State.SUCCEEDED
    assert [type(event) for event in told.events(2)] == [JobFinished, JobFinished]


def running(jobs: Jobs, job_id: str) -> None:
    for _, job in jobs.watch([job_id]):
        if job is not None and job.state is State.RUNNING:
            return
    raise AssertionError("it never ran")


def test_a_running_job_is_cancelled_from_another_gateway(site: Site) -> None:
    handler = JobHandler("a.job", waits)
    jobs = site.jobs([handler])
    job = jobs.submit("a.job")
    running(jobs, job.id)
    elsewhere = site.jobs([handler], start=False, database=site.open())
    assert elsewhere.cancel(job.id).cancel_requested
    done = finish(elsewhere, [job.id])[job.id]
    assert (done.state, done.attempts) == (State.CANCELLED, 1)


def test_a_job_that_is_cancelled_just_when_it_begins_hears_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing would be looked at by itself for longer than the test waits.
    jobs = site.jobs([JobHandler("a.job", waits)], poll=60, lease=3600)
    other = jobs.submit("a.job")
    running(jobs, other.id)
    jobs.cancel(other.id)
    finish(jobs, [other.id])
    begin = Runner._begin

    def cancelled_first(runner: Runner, claim: Claim, begun: float) -> None:
        assert jobs.cancel(claim.job.id).cancel_requested
        begin(runner, claim, begun)

    monkeypatch.setattr(Runner, "_begin", cancelled_first)
    job = jobs.submit("a.job")
    ended = threading.Event()

    def follow() -> None:
        finish(jobs, [job.id])
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    assert ended.wait(30)
    assert jobs.find(job.id).state is State.CANCELLED


def test_what_a_handler_waits_for_is_ended_when_it_is_to_stop(site: Site) -> None:
    calls = []

    def handle(context: JobContext, _: object) -> None:
        ended = threading.Event()
        context.on_stop(lambda: calls.append("first"))
        context.on_stop(ended.set)
        assert ended.wait(PATIENCE)
        context.on_stop(lambda: calls.append("late"))
        context.check()

    jobs = site.jobs([JobHandler("a.job", handle)])
    job = jobs.submit("a.job")
    running(jobs, job.id)
    jobs.cancel(job.id)
    assert finish(jobs, [job.id])[job.id].state is State.CANCELLED
    assert calls == ["first", "late"]


def test_a_job_that_waits_for_its_next_attempt_is_cancelled(site: Site) -> None:
    def fail(*_: object) -> None:
        raise OSError

    jobs = site.jobs([JobHandler("a.job", fail, backoff=Backoff(first=600))])
    job = jobs.submit("a.job")
    for _, found in jobs.watch([job.id]):
        assert found is not None
        if found.state is State.QUEUED and found.attempts:
            jobs.cancel(job.id)
    done = jobs.find(job.id)
    assert (done.state, done.error) == (State.CANCELLED, "OSError:")


def test_a_job_that_fails_because_it_was_cancelled_is_cancelled(site: Site) -> None:
    def fail(context: JobContext, _: object) -> None:
        context.wait(PATIENCE)
        raise OSError("the connection was closed")

    jobs = site.jobs([JobHandler("a.job", fail)])
    job = jobs.submit("a.job")
    running(jobs, job.id)
    jobs.cancel(job.id)
    assert finish(jobs, [job.id])[job.id].state is State.CANCELLED


def test_who_has_finished_the_work_has_succeeded_although_it_was_cancelled(site: Site) -> None:
    def finish_anyway(context: JobContext, _: object) -> str:
        assert context.wait(PATIENCE)
        assert context.cancelled
        return "done"

    jobs = site.jobs([JobHandler("a.job", finish_anyway)])
    job = jobs.submit("a.job")
    running(jobs, job.id)
    jobs.cancel(job.id)
    assert finish(jobs, [job.id])[job.id].result == "done"


def test_a_job_that_is_too_late_ends_as_failed(site: Site) -> None:
    for deadline in (0.3, 3, 30):
        job = one(site, waits, deadline=deadline)
        if job.attempts:
            break  # otherwise it has not even begun before its deadline, on a busy machine
    assert (job.state, job.error) == (State.FAILED, "its deadline passed while it ran")


def test_a_job_that_nobody_began_in_time_never_runs(site: Site) -> None:
    jobs = site.jobs([JobHandler("a.job", waits), JobHandler("a.late", waits)], here=1)
    first = jobs.submit("a.job")
    running(jobs, first.id)
    late = jobs.submit("a.late", deadline=0.3)
    done = finish(jobs, [late.id])[late.id]
    assert (done.state, done.attempts) == (State.FAILED, 0)
    assert done.error == "its deadline passed before it was done"


def test_who_does_not_stop_keeps_the_key_of_the_job_that_has_failed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupgw.runtime.jobs.jobs.DEADLINE_GRACE", 0.2)
    release = threading.Event()
    order: list[str] = []

    def stubborn(context: JobContext, _: object) -> None:
        order.append(f"{context.job.id} begins")
        release.wait(PATIENCE)
        order.append(f"{context.job.id} ends")

    jobs = site.jobs([JobHandler("a.job", stubborn)])
    for deadline in (0.2, 2, 20):
        first = jobs.submit("a.job", key="k", deadline=deadline)
        done = finish(jobs, [first.id])[first.id]
        if order:
            break  # otherwise it has not even begun before its deadline, on a busy machine
    assert done.error == "its deadline passed, and its handler does not stop"
    second = jobs.submit("a.job", key="k")
    # It would have begun by now, were the key free.
    other = jobs.submit("a.job", key="another")
    running(jobs, other.id)
    assert jobs.find(second.id).state is State.QUEUED
    release.set()
    finish(jobs, [second.id, other.id])
    assert order.index(f"{first.id} ends") < order.index(f"{second.id} begins")
    # What it returned at last does not undo that it was too late.
    assert jobs.find(first.id).state is State.FAILED


def test_who_does_not_stop_has_failed_although_that_could_not_be_written_at_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupgw.runtime.jobs.jobs.DEADLINE_GRACE", 0.2)
    overdue = holding.overdue
    refused: list[str] = []

    def full_once(connection: sa.Connection, claim: Claim, error: str) -> Job | None:
        if len(refused) < 2:
            refused.append(error)
            raise DatabaseError("the database's disk is full")
        return overdue(connection, claim, error)

    monkeypatch.setattr(holding, "overdue", full_once)
    release = threading.Event()
    jobs = site.jobs([JobHandler("a.job", lambda *_: release.wait(PATIENCE))])
    for deadline in (0.2, 2, 20):
        job = jobs.submit("a.job", deadline=deadline)
        done = finish(jobs, [job.id])[job.id]
        if refused:
            break  # otherwise it has not even begun before its deadline, on a busy machine
    release.set()
    assert (done.state, len(refused)) == (State.FAILED, 2)
    assert done.error == "its deadline passed, and its handler does not stop"


def test_progress_is_seen_from_elsewhere_while_the_job_runs(site: Site) -> None:
    seen = threading.Event()

    def copy(context: JobContext, _: object) -> None:
        for done in range(1000):
            context.progress(done, 1000, unit="files", message="copying")
        seen.wait(PATIENCE)
        context.progress(1000, 1000, unit="files", message="done")

    jobs = site.jobs([JobHandler("a.job", copy)])
    elsewhere = site.jobs(start=False, database=site.open())
    job = jobs.submit("a.job")
    for _, found in elsewhere.watch([job.id]):
        assert found is not None
        if found.progress is not None and not seen.is_set():
            assert found.state is State.RUNNING
            assert found.progress.fraction == 0.999
            # A thousand reports are a few writes.
            assert found.version < 10
            seen.set()
    last = jobs.find(job.id).progress
    assert last is not None
    assert last.message == "done"


def test_steps_that_are_done_are_not_done_again(site: Site) -> None:
    calls: list[str] = []

    def note(name: str) -> int:
        calls.append(name)
        return len(calls)

    def insert_effect(connection: sa.Connection, place: int) -> int:
        connection.execute(sa.insert(EFFECTS).values(lane="x", place=place))
        return place

    def work(context: JobContext, _: object) -> list[int]:
        first = context.step("first", lambda: note("first"))
        second = context.transact(
            "second",
            lambda connection: insert_effect(connection, first),
        )
        if context.attempt == 1:
            raise OSError
        third = context.step("third", lambda: note("third"))
        return [first, second, third]

    job = one(site, work)
    assert job.result == [1, 1, 2]
    assert calls == ["first", "third"]
    assert site.effects() == {"x": [1]}


def test_a_transaction_that_fails_leaves_neither_effect_nor_step(site: Site) -> None:
    def work(context: JobContext, _: object) -> None:
        def change(connection: sa.Connection) -> None:
            connection.execute(sa.insert(EFFECTS).values(lane="x", place=context.attempt))
            if context.attempt == 1:
                raise OSError

        context.transact("only", change)

    assert one(site, work).state is State.SUCCEEDED
    assert site.effects() == {"x": [2]}


def test_a_step_that_may_have_had_its_effect_is_looked_into(site: Site) -> None:
    sent: list[str] = []

    def send(context: JobContext) -> str:
        sent.append(context.once("mail"))
        raise OSError("no answer")

    def work(context: JobContext, _: object) -> str:
        return context.step("mail", lambda: send(context), unsure=lambda: f"sent {len(sent)}")

    job = one(site, work)
    assert job.result == "sent 1"
    assert sent == [f"{job.id}/mail"]


def test_after_a_stop_was_asked_for_no_further_step_begins(site: Site) -> None:
    calls: list[str] = []
    reasons: list[Stop] = []
    begun = threading.Event()

    def first(context: JobContext) -> bool:
        begun.set()
        return context.wait(PATIENCE)

    def work(context: JobContext, _: object) -> None:
        context.step("first", lambda: first(context))
        try:
            context.step("second", lambda: calls.append("second"))
        except JobStopped as stopped:
            reasons.append(stopped.reason)
            raise

    jobs = site.jobs([JobHandler("a.job", work)])
    job = jobs.submit("a.job")
    assert begun.wait(PATIENCE)
    jobs.close()
    assert (calls, reasons) == ([], [Stop.HANDED_OVER])
    assert jobs.find(job.id).attempts == 0
    # The step that was going on came to its end, and counts.
    again = site.jobs([JobHandler("a.job", work)])
    assert finish(again, [job.id])[job.id].state is State.SUCCEEDED
    assert calls == ["second"]


def test_metrics_count_jobs_and_attempts(site: Site) -> None:
    def sample(name: str, **labels: str) -> float:
        return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0

    kind = f"metrics.{site.database.dialect}"

    def fail_once(context: JobContext, _: object) -> None:
        assert sample("backupgw_jobs_running", kind=kind) == 1
        if context.attempt == 1:
            raise OSError

    jobs = site.jobs([JobHandler(kind, fail_once, backoff=SOON)])
    finish(jobs, [jobs.submit(kind).id])
    jobs.close()
    assert sample("backupgw_jobs_finished_total", kind=kind, outcome="succeeded") == 1
    assert sample("backupgw_jobs_attempts_total", kind=kind, outcome="failed") == 1
    assert sample("backupgw_jobs_attempts_total", kind=kind, outcome="done") == 1
    assert sample("backupgw_jobs_running", kind=kind) == 0
