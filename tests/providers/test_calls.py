"""Requests of other processes are counted when these have ended, however they ended."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

from backupgw.providers.calls import CallLog, read_logs
from tests.servers.child import Child

SENDER = """
import os, pickle, sys
log = pickle.load(sys.stdin.buffer)
for call in ("Put", "Get", "Put"):
    log(call)
print("sent", flush=True)
signal = __import__("signal")
signal.pause()
"""


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    process = Child([sys.executable, "-c", SENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(CallLog(folder), process.stdin)
        process.stdin.close()
        assert process.stdout.readline() == b"sent\n"
        assert read_logs(folder) == {}, "it goes on"
        process.send_signal(signal.SIGKILL)
    assert read_logs(folder) == {"Get": 1, "Put": 2}
    assert read_logs(folder) == {}, "they were counted twice"
    assert [*folder.iterdir()] == []
