"""`backupgw job`, as an operator uses it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupgw.runtime import cli
from backupgw.runtime.database.state import open_state
from backupgw.runtime.jobs import JobContext, JobFailed, JobHandler, Jobs
from backupgw.runtime.jobs.start import start
from backupgw.runtime.settings import load
from tests.runtime.jobs_site import PATIENCE, finish
from tests.servers.child import Child

Run = Callable[..., int]


def fail(*_: object) -> None:
    raise JobFailed("the place said\nno")


def wait(context: JobContext, _: object) -> None:
    context.progress(512, 2048, unit="bytes", message="copying")
    context.wait(PATIENCE)
    context.check()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gw.toml"
    path.write_text(f'[state]\nfolder = "{tmp_path}/state"\n[jobs]\npoll = 0.1\nlease = 60\n')
    return path


@pytest.fixture
def jobs(config: Path) -> Iterator[Jobs]:
    """A gateway that runs jobs beside the command."""
    settings = load(config)
    with open_state(settings) as database:
        running = start(
            settings,
            database,
            [
                JobHandler("a.copy", lambda *_: {"size": 5}),
                JobHandler("a.fail", fail),
                JobHandler("a.wait", wait),
            ],
        )
        yield running
        running.close(grace=1)


@pytest.fixture
def run(config: Path) -> Run:
    return lambda *words: cli.main(["--config", str(config), "job", *words])


def test_jobs_are_listed_and_shown(
    jobs: Jobs, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    good = jobs.submit("a.copy", key="web1", id="good")
    bad = jobs.submit("a.fail", id="bad")
    finish(jobs, [good.id, bad.id])
    assert run("list") == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["id", "kind", "key", "state", "tries", "created", "took", "what"]
    assert first.split()[:5] == ["bad", "a.fail", "-", "failed", "1"]
    # One line, whatever the error says.
    assert first.endswith("the place said no")
    assert second.split()[:5] == ["good", "a.copy", "web1", "succeeded", "1"]
    assert run("list", "--state", "failed", "--json") == 0
    assert [job["id"] for job in json.loads(capsys.readouterr().out)] == ["bad"]
    assert run("list", "--key", "web1", "--kind", "a.copy", "--limit", "1") == 0
    assert "good" in capsys.readouterr().out
    assert run("show", "good", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["result"], shown["attempts"]) == ("succeeded", {"size": 5}, 1)
    assert run("show", "bad") == 0
    assert "error:            the place said no" in capsys.readouterr().out


def test_jobs_are_cancelled_and_the_status_says_how_many(
    jobs: Jobs, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    going = jobs.submit("a.wait", id="going")
    for _, job in jobs.watch([going.id]):
        if job is not None and job.progress is not None:
            break
    jobs.submit("a.copy", id="later", not_before=time.time() + 3600)
    finish(jobs, [jobs.submit("a.copy", id="over").id])
    assert run("show", "going") == 0
    assert "[#####...............] 25% 512 B of 2.0 KiB copying" in capsys.readouterr().out
    assert run("cancel", "going", "later", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "would ask to stop going (a.wait)",
        "would cancel later (a.copy)",
    ]
    assert jobs.find("later").state.value == "queued"
    assert run("cancel", "going", "later", "over", "nothing") == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["asked to stop going (a.wait)", "cancelled later (a.copy)"]
    assert "the job over has succeeded already" in captured.err
    assert "there is no job nothing" in captured.err
    assert finish(jobs, ["going", "later"])["going"].state.value == "cancelled"
    assert run("cancel", "nothing") == 1
    assert run("cancel", "later") == 1
    assert "the job later is cancelled already" in capsys.readouterr().err


def test_watch_follows_to_the_end_and_tells_how_it_went(
    jobs: Jobs, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.submit("a.wait", id="going")
    jobs.submit("a.copy", id="good")

    def cancel() -> None:
        for _, job in jobs.watch(["going"]):
            if job is not None and job.progress is not None:
                jobs.cancel("going")

    thread = threading.Thread(target=cancel)
    thread.start()
    assert run("watch", "going", "good", "--json") == 3
    thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    last = {line["id"]: line["state"] for line in lines}
    assert last == {"going": "cancelled", "good": "succeeded"}
    assert run("watch", "good") == 0
    assert "good a.copy: succeeded" in capsys.readouterr().out
    assert run("watch", "going") == 1
    assert run("watch", "good", "nothing") == 3
    assert "there is no job nothing" in capsys.readouterr().err
    # Nothing is left to be watched.
    assert run("watch") == 0


def test_watch_draws_bars_on_a_terminal(jobs: Jobs, config: Path) -> None:
    jobs.submit("a.wait", id="going")
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "backupgw.runtime.cli", "--config", str(config)]
    with Child([*command, "job", "watch", "going"], stdout=end) as process:
        os.close(end)
        shown = ""
        while "25%" not in shown:
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:
                pytest.fail(f"it ended before the job did: {shown!r}")
        jobs.cancel("going")
        # Linux ends a terminal whose other side is closed by an error.
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 4096):
                shown += part.decode()
    os.close(terminal)
    assert process.returncode == 1
    assert "[#####...............] 25% 512 B of 2.0 KiB copying" in shown
    # The bar goes, the last word stays.
    assert shown.splitlines()[-1].endswith("\x1b[1F\x1b[Jgoing a.wait: cancelled")


def test_a_users_mistake_is_told_in_a_line(
    run: Run, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    assert run("show", "nothing") == 1
    assert capsys.readouterr().err == (
        "backupgw: there is no job nothing; see: backupgw job list\n"
    )
    for words in (("list", "--state", "asleep"), ("list", "--limit", "0"), ("cancel",)):
        assert run(*words) == 2
    capsys.readouterr()
    config.write_text("[jobs]\nrunning = 0\n")
    assert run("list") != 0
    assert "gw.toml:2" in capsys.readouterr().err
