"""Nothing that hangs keeps a test run from its end: no child, no clean-up, no thread."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import peers
from .child import Child

HANGS = """
import threading, pytest

@pytest.fixture
def stuck():
    yield
    threading.Event().wait()

def test_stuck(stuck):
    threading.Event().wait()

def test_other():
    pass
"""
GOES_ON = """
import threading

def test_done():
    threading.Thread(target=threading.Event().wait).start()
"""
DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"


def run(tmp_path: Path, tests: str, *arguments: str, at_the_end: float = 60) -> tuple[int, str]:
    """Run tests with a time limit of a second; return the status and what was printed."""
    (tmp_path / "test_it.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 1\n")
    program = (
        "import sys, pytest\nfrom tests import last_guard\n"
        f"last_guard.AT_THE_END = {at_the_end}\nsys.exit(pytest.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-p", "tests.last_guard", *arguments, tmp_path],
        cwd=peers.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_test_and_its_clean_up_that_hang_end_their_process(tmp_path: Path) -> None:
    status, printed = run(tmp_path, HANGS, "-p", "no:xdist")
    assert status == 1
    assert "Timeout (0:00:" in printed
    assert f'"{tmp_path}/test_it.py", line 7 in stuck' in printed


@pytest.mark.soak
def test_with_several_workers_the_test_is_named_and_the_others_run(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"test_of_one_{number}.py").write_text("def test_one():\n    pass\n")
    status, printed = run(
        tmp_path, HANGS, "-n", "1", "--dist", "loadfile", "-p", "tests.sharing_out"
    )
    assert status == 1
    assert "line 7 in stuck" in printed
    assert printed.count("crashed while running 'test_it.py::test_stuck'") == 1
    assert "2 failed, 4 passed" in printed  # it failed by its limit, and then ended its worker


def test_a_thread_that_goes_on_does_not_keep_the_process(tmp_path: Path) -> None:
    status, printed = run(tmp_path, GOES_ON, "-p", "no:xdist", at_the_end=1)
    assert "1 passed" in printed
    assert status == 1


def deaf(**options: bool) -> Child[bytes]:
    """A child that no SIGTERM ends."""
    child = Child([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, **options)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def test_a_child_ends_with_its_block_when_that_fails() -> None:
    child = deaf()
    with pytest.raises(ZeroDivisionError), child:
        raise ZeroDivisionError
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    child = deaf(start_new_session=True)
    monkeypatch.setattr("tests.servers.child.PATIENCE", 0.3)
    with pytest.raises(subprocess.TimeoutExpired), child:
        child.terminate()
    assert child.returncode == -signal.SIGKILL
