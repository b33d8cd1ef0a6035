"""Jobs that start by the calendar: when, how often, and once among several gateways."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from backupgw.runtime.database.tables.jobs import job_schedules
from backupgw.runtime.jobs import (
    BadArguments,
    BadSchedule,
    Job,
    JobContext,
    JobHandler,
    Schedule,
    State,
    UnknownKind,
    claims,
)
from backupgw.runtime.jobs.claims import Rules
from backupgw.runtime.jobs.handlers import Handlers
from backupgw.runtime.jobs.schedules import following
from tests.runtime.jobs_site import PATIENCE, Site, finish

PRUNE = Schedule(name="prune", kind="a.prune", cron="30 3 * * *", zone="Europe/Berlin")
HANDLER = JobHandler("a.prune", lambda *_: None)


def times(cron: str, after: str, count: int, zone: str = "Europe/Berlin") -> list[str]:
    """Return the next times of an expression, as a clock on the wall there shows them."""
    place = ZoneInfo(zone)
    moment = datetime.fromisoformat(after).replace(tzinfo=place).timestamp()
    found = []
    for _ in range(count):
        upcoming = following(cron, zone, moment)
        assert upcoming is not None
        moment = upcoming
        found.append(datetime.fromtimestamp(moment, place).strftime("%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # 2027-03-28: from 02:00 straight to 03:00; 2027-10-31: 02:00 to 03:00 comes twice.
        ("30 2 * * *", "2027-03-27T12:00", ["28 03:00", "29 02:30"]),
        ("30 2 * * *", "2027-10-30T12:00", ["31 02:30", "01 02:30"]),
        ("0 * * * *", "2027-03-28T00:30", ["28 01:00", "28 03:00", "28 04:00"]),
        ("0 * * * *", "2027-10-31T01:30", ["31 02:00", "31 02:00", "31 03:00"]),
        ("*/20 2 * * *", "2027-03-28T01:00", ["29 02:00", "29 02:20"]),
        ("0 4 * * MON-FRI", "2027-01-01T05:00", ["04 04:00", "05 04:00"]),
        ("0 4 31 * *", "2027-01-31T05:00", ["31 04:00", "31 04:00"]),
    ],
)
def test_when_a_schedule_comes(cron: str, after: str, expected: list[str]) -> None:
    assert times(cron, after, len(expected)) == expected


def test_a_time_that_comes_twice_is_followed_by_the_next_day_from_within_it() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    second = datetime(2027, 10, 31, 2, 10, tzinfo=berlin, fold=1)
    upcoming = following("30 2 * * *", "Europe/Berlin", second.timestamp())
    assert upcoming is not None
    assert datetime.fromtimestamp(upcoming, berlin).day == 1


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("every day", "UTC", "write five fields"),
        ("0 0 0 * * *", "UTC", "write five fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("0 4 * * *", "Europe/Berlim", "no time zone 'Europe/Berlim'"),
        ("0 4 * * *", "../etc/passwd", "no time zone"),
        ("0 4 31 2 *", "UTC", "bad day-of-month"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(
    site: Site, cron: str, zone: str, message: str
) -> None:
    jobs = site.jobs([HANDLER], start=False)
    with pytest.raises(BadSchedule, match=message):
        jobs.set_schedules("test", [Schedule(name="x", kind="a.prune", cron=cron, zone=zone)])


def test_a_schedule_whose_job_could_not_run_is_refused(site: Site) -> None:
    jobs = site.jobs([HANDLER], start=False)
    with pytest.raises(UnknownKind):
        jobs.set_schedules("test", [Schedule(name="x", kind="a.prun", cron="0 4 * * *")])
    with pytest.raises(BadArguments):
        jobs.set_schedules(
            "test", [Schedule(name="x", kind="a.prune", cron="0 4 * * *", arguments={"y": 1})]
        )
    with pytest.raises(ValueError, match="name twice"):
        jobs.set_schedules("test", [PRUNE, PRUNE])


def stored(site: Site) -> dict[str, float]:
    with site.database.read() as connection:
        return {row.name: row.next for row in connection.execute(sa.select(job_schedules))}


def move(site: Site, seconds: float) -> None:
    """Let the time of each schedule be so many seconds ago."""
    now = site.database.now()
    with site.database.begin() as connection:
        connection.execute(sa.update(job_schedules).values(next=now - seconds))


def test_a_schedule_said_again_keeps_its_time_and_one_not_said_is_gone(site: Site) -> None:
    jobs = site.jobs([HANDLER], start=False)
    other = Schedule(name="other", kind="a.prune", cron="0 5 * * *")
    jobs.set_schedules("test", [PRUNE, other])
    jobs.set_schedules("another", [Schedule(name="theirs", kind="a.prune", cron="0 5 * * *")])
    move(site, 10)
    before = stored(site)
    jobs.set_schedules("test", [PRUNE])
    assert stored(site) == {"prune": before["prune"], "theirs": before["theirs"]}
    jobs.set_schedules("test", [Schedule(name="prune", kind="a.prune", cron="0 6 * * *")])
    upcoming = datetime.fromtimestamp(stored(site)["prune"], UTC)
    assert (upcoming.hour, upcoming > datetime.now(UTC)) == (6, True)


def look(site: Site) -> None:
    """Look for work once, as a gateway that has no thread free."""
    rules = Rules("test", lease=60, running=9, losses=3, queued_for=86_400, on_time=300)
    site.database.run(lambda c: claims.look(c, Handlers([HANDLER]), rules, 0))


def test_each_time_is_one_job_however_many_gateways_there_are(site: Site) -> None:
    lock = threading.Lock()
    ran: list[str] = []
    all_ran = threading.Event()

    def prune(context: JobContext, _: object) -> None:
        with lock:
            ran.append(str(context.job.schedule))
            if len(ran) >= 20:
                all_ran.set()

    handler = JobHandler("a.prune", prune)
    gateways = [site.jobs([handler], database=site.open(), start=False) for _ in range(2)]
    for gateway in gateways:
        gateway.set_schedules("test", [replace(PRUNE, name=f"prune{n}") for n in range(20)])
    move(site, 10)
    for gateway in gateways:
        gateway.start()
    assert all_ran.wait(PATIENCE)
    done = finish(gateways[0], [job.id for job in gateways[0].list()])
    assert sorted(job.schedule or "" for job in done.values()) == sorted(ran)
    assert sorted(ran) == sorted(f"prune{n}" for n in range(20))
    now = site.database.now()
    assert all(now < upcoming < now + 86_400 * 1.1 for upcoming in stored(site).values())


def test_times_that_nobody_was_there_for_are_made_up_for_once(site: Site) -> None:
    jobs = site.jobs([HANDLER], start=False)
    jobs.set_schedules("test", [PRUNE, replace(PRUNE, name="never mind", catch_up=False)])
    move(site, 3 * 86_400)
    look(site)
    look(site)
    assert [job.schedule for job in jobs.list()] == ["prune"]
    assert all(upcoming > site.database.now() for upcoming in stored(site).values())


def test_while_the_last_job_has_not_finished_there_is_no_other(site: Site) -> None:
    jobs = site.jobs([HANDLER], start=False)
    jobs.set_schedules("test", [PRUNE])
    for seconds in (30, 20, 10):
        move(site, seconds)
        look(site)
    [job] = jobs.list()
    jobs.cancel(job.id)
    move(site, 5)
    look(site)
    assert [job.state for job in jobs.list()] == [State.QUEUED, State.CANCELLED]


def test_a_schedule_of_a_service_that_does_not_run_here_is_left_to_others(site: Site) -> None:
    other = JobHandler("another", lambda *_: None)
    jobs = site.jobs([other], start=False)
    jobs.set_schedules("other", [Schedule(name="theirs", kind="another", cron="0 5 * * *")])
    move(site, 10)
    before = stored(site)
    look(site)
    assert (jobs.list(), stored(site)) == ([], before)
    jobs.start()
    assert wait_for_job(site).schedule == "theirs"


def wait_for_job(site: Site) -> Job:
    """Return the first job that there is, finished; a follower cannot know its id before."""
    jobs = site.jobs(start=False)
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        if found := jobs.list():
            return finish(jobs, [found[0].id])[found[0].id]
        pause.wait(0.05)
    raise AssertionError("no job was submitted")
