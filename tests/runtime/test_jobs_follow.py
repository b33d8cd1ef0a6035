"""Waiting for jobs, as services do for a request and for a browser's stream of events."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from backupgw.runtime.jobs import Job, JobContext, JobHandler, State, UnknownJob
from tests.runtime.jobs_site import PATIENCE, Site, finish


def test_many_wait_for_jobs_that_another_gateway_runs(site: Site) -> None:
    handler = JobHandler("a.job", lambda context, _: context.job.id)
    client = site.jobs([handler], start=False)
    site.jobs([handler], database=site.open())

    async def ask() -> str:
        job = client.submit("a.job")
        return (await client.wait(job.id)).result  # type: ignore[no-any-return]

    async def all_of_them() -> list[str]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*(ask() for _ in range(20)))

    assert len(set(asyncio.run(all_of_them()))) == 20


def test_a_stream_shows_the_way_of_a_job_to_its_end(site: Site) -> None:
    go_on = threading.Event()

    def work(context: JobContext, _: object) -> None:
        context.progress(1, 2)
        go_on.wait(PATIENCE)

    jobs = site.jobs([JobHandler("a.job", work)])

    async def stream() -> list[Job]:
        seen: list[Job] = []
        async with asyncio.timeout(PATIENCE):
            job = jobs.submit("a.job")
            async for found in jobs.follow(job.id):
                seen.append(found)
                if found.progress is not None:
                    go_on.set()
        return seen

    seen = asyncio.run(stream())
    assert seen[-1].state is State.SUCCEEDED
    assert any(job.state is State.RUNNING and job.progress for job in seen)
    assert [job.version for job in seen] == sorted({job.version for job in seen})


def test_who_waits_for_nothing_is_told_so(site: Site) -> None:
    jobs = site.jobs(start=False)
    with pytest.raises(UnknownJob, match="no job nothing"):
        asyncio.run(jobs.wait("nothing"))


def test_a_wait_that_is_given_up_leaves_nothing_behind(site: Site) -> None:
    handler = JobHandler("a.job", lambda *_: None)
    jobs = site.jobs([handler], start=False)
    job = jobs.submit("a.job", not_before=time.time() + 3600)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await jobs.wait(job.id)

    asyncio.run(give_up())
    # The loop it would have been told on is gone; others are told all the same.
    other = jobs.submit("a.job")
    jobs.cancel(job.id)
    jobs.start()
    assert len(finish(jobs, [job.id, other.id])) == 2


def test_who_waits_while_jobs_are_closed_is_told(site: Site) -> None:
    jobs = site.jobs([JobHandler("a.job", lambda *_: None)], start=False)
    job = jobs.submit("a.job", not_before=time.time() + 3600)
    waiting = threading.Event()

    async def wait() -> None:
        async for _ in jobs.follow(job.id):
            waiting.set()

    thread = threading.Thread(target=lambda: asyncio.run(wait()))
    thread.start()
    assert waiting.wait(PATIENCE)
    jobs.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_who_is_slow_is_told_of_the_end_that_comes_right_behind_a_change(site: Site) -> None:
    begun = threading.Event()

    def work(context: JobContext, _: object) -> None:
        begun.wait(PATIENCE)
        context.progress(1, 2)
        context.wait(PATIENCE)
        context.check()

    jobs = site.jobs([JobHandler("a.job", work)])
    job = jobs.submit("a.job")

    async def follow() -> None:
        async with asyncio.timeout(PATIENCE):
            following = jobs.follow(job.id)
            await anext(following)
            begun.set()
            # The loop stands still until the change was told, and the end behind it.
            for _, found in jobs.watch([job.id]):
                if found is None or found.progress is not None:
                    break
            jobs.close()
            async for _ in following:
                pass

    asyncio.run(follow())


def test_no_thread_is_left_when_jobs_are_closed(site: Site) -> None:
    before = threading.active_count()
    jobs = site.jobs([JobHandler("a.job", lambda *_: None)])
    finish(jobs, [jobs.submit("a.job").id])
    jobs.close()
    assert threading.active_count() == before


def test_finished_jobs_are_kept_as_many_as_the_settings_say(site: Site) -> None:
    jobs = site.jobs([JobHandler("a.job", lambda context, _: context.step("s", lambda: 1))])
    ids = [jobs.submit("a.job", key="k").id for _ in range(5)]
    finish(jobs, ids)
    jobs.close()
    waiting = site.jobs([JobHandler("a.job", lambda *_: None)], start=False)
    later = waiting.submit("a.job", not_before=time.time() + 3600)
    cleaned = site.jobs([JobHandler("b.job", lambda *_: None)], keep_count=2)
    # Cleaning is what a gateway begins with; its first job ends after that or before, so look.
    for job_id, found in cleaned.watch(ids[:3]):
        assert found is None or found.state.finished, job_id
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        left = {job.id for job in waiting.list()}
        if len(left) == 3:
            break
        pause.wait(0.05)
    assert left == {later.id, *ids[3:]}
