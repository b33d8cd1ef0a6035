"""Ctrl-C while a command's work is on threads: the work is asked to end, and is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from backupgw.runtime.interrupts import attended, held_back
from tests.ctrl_c import INTERRUPTED, at_every_step
from tests.servers.child import Child


def press() -> None:
    """Send Ctrl-C as a terminal does: to the process, whose main thread gets it."""
    os.kill(os.getpid(), signal.SIGINT)


def nobody() -> None:
    raise AssertionError("there was no Ctrl-C")


def test_a_result_comes_back() -> None:
    assert attended(lambda: threading.current_thread() is threading.main_thread(), nobody) is False


def test_a_failure_comes_back() -> None:
    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        attended(fail, nobody)


def test_ctrl_c_waits_for_the_work() -> None:
    stop = threading.Event()
    tidied = False

    def work() -> None:
        nonlocal tidied
        press()
        assert stop.wait(60)
        tidied = True

    with pytest.raises(KeyboardInterrupt):
        attended(work, stop.set)
    assert tidied


def test_a_second_ctrl_c_does_not_wait() -> None:
    released, ended = threading.Event(), threading.Event()

    def work() -> None:
        press()
        released.wait(60)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        attended(work, lambda: signal.raise_signal(signal.SIGINT))
    assert not ended.is_set()
    released.set()
    assert ended.wait(60)


def test_no_work_goes_on_after_an_interrupt_at_any_step() -> None:
    at_work = False

    def work() -> int:
        nonlocal at_work
        at_work = True
        try:
            return int(stop.wait(0.01))
        finally:
            at_work = False

    def command() -> int:
        stop.clear()
        try:
            attended(work, stop.set)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            assert not at_work
        return 0

    stop = threading.Event()
    at_every_step(command, "runtime/interrupts.py")


ENDLESS = """
import threading
from backupgw.runtime.interrupts import attended

def work():
    print("begun", flush=True)
    threading.Event().wait()

attended(work, lambda: print("asked to end", flush=True))
"""


def test_a_second_ctrl_c_ends_the_process() -> None:
    command = [sys.executable, "-c", ENDLESS]
    with Child(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for said in ("begun\n", "asked to end\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def test_held_back_takes_effect_at_the_end() -> None:
    reached = []

    def block() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached
