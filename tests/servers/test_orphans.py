"""Whoever starts servers may be killed at any moment: nothing of theirs goes on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .child import Child
from .process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]

STARTER = """
import sys
from tests.servers.process import ServerProcess
servers = [ServerProcess([sys.executable, "-c", each], ready="ready") for each in sys.argv[1:]]
print(*(server.match.string.split()[1] for server in servers), flush=True)
sys.stdin.read()
"""

POLITE = "import os, time; print('ready', os.getpid(), flush=True); time.sleep(1000)"
WITH_A_WORKER = """
import os, time
worker = os.fork()
if worker:
    print("ready", worker, flush=True)
time.sleep(1000)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", os.getpid(), flush=True)
time.sleep(1000)
"""


def started(*programs: str) -> tuple[Child[str], list[int]]:
    """Run the starter; return it with descriptors of what it says that runs."""
    starter = Child(
        [sys.executable, "-c", STARTER, *programs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert starter.stdout is not None
    return starter, [os.pidfd_open(int(pid)) for pid in starter.stdout.readline().split()]


def have_ended(descriptors: list[int], seconds: float) -> bool:
    return all(select.select([each], [], [], seconds)[0] for each in descriptors)


@pytest.mark.parametrize("group", [False, True], ids=["the starter", "its group"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_servers_end_with_a_starter_that_is_killed(number: signal.Signals, group: bool) -> None:
    """As `timeout` does it, with the group, too."""
    starter, descriptors = started(POLITE, WITH_A_WORKER)
    with starter:
        assert not have_ended(descriptors[:1], 0)
        (os.killpg if group else os.kill)(starter.pid, number)
        assert have_ended(descriptors, 10)
    for each in descriptors:
        os.close(each)


def test_a_server_that_does_not_listen_is_killed() -> None:
    starter, descriptors = started(DEAF)
    with starter:
        starter.kill()
        assert have_ended(descriptors, 20)
    os.close(descriptors[0])


def test_a_server_stays_while_its_starter_runs_whatever_became_of_others() -> None:
    ends = [sys.executable, "-c", "print('ready', flush=True)"]
    with ServerProcess([sys.executable, "-c", POLITE], ready="ready") as stays:
        for _ in range(3):
            ServerProcess(ends, ready="ready").stop()
        assert stays.running
