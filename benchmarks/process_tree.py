"""Processor time and memory of a server and all its children, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def processes(root: int) -> list[int]:
    """The process `root` and everything below it that is alive."""
    found = [root]
    for pid in found:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except FileNotFoundError:
            continue
        for task in tasks:
            try:
                children = Path(f"/proc/{pid}/task/{task}/children").read_text()
            except FileNotFoundError:
                continue
            found.extend(int(child) for child in children.split())
    return found


def cpu_seconds(root: int) -> float:
    """User and system seconds of the tree, children that have ended included.

    The kernel counts in ticks (10 ms on most machines): samples must last much longer.
    """
    ticks = 0
    for pid in processes(root):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The command's name, in brackets, may hold spaces: count from its end.
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
    return ticks / TICKS_PER_SECOND


def cpu_nanoseconds(root: int) -> int:
    """User and system time of the tree's threads that are alive, as the scheduler counts it.

    Exact where `cpu_seconds` counts ticks; what a thread spent that has ended is not in it.
    """
    spent = 0
    for pid in processes(root):
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            for task in tasks:
                spent += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return spent


def reset_peak(root: int) -> None:
    """Make VmHWM of every process of the tree start again from what it holds now."""
    for pid in processes(root):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(root: int) -> float:
    """Sum over the tree of the peak resident memory in MiB since `reset_peak`.

    Pages that processes share are counted once for each of them, so this is an upper bound for a
    server of several processes, and exact for one process.
    """
    return sum(_status_kib(pid, "VmHWM") for pid in processes(root)) / 1024


def peak_process_mib(root: int) -> float:
    """The largest peak of a single process of the tree in MiB."""
    return max(_status_kib(pid, "VmHWM") for pid in processes(root)) / 1024


def _status_kib(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in lines:
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0
