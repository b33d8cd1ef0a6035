"""Processor time and memory of a server and all its children, from /proc."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
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
    """The peak resident memory of the tree in MiB since `reset_peak`.

    That is the sum of the processes' peaks, less what they share when this is asked: a page that
    several of them map is memory once. For one process it is its peak.
    """
    return peak_sum_mib(root) - shared_mib(root)


def peak_sum_mib(root: int) -> float:
    """Sum over the tree of the peaks, a page that processes share counted for each of them."""
    return sum(_status_kib(pid, "VmHWM") for pid in processes(root)) / 1024


def shared_mib(root: int) -> float:
    """How much smaller the tree's resident memory is than the sum of its processes' now, in MiB.

    Pages of no file are shared by forks alone, hence within the tree: of them the kernel tells each
    process its part (PSS). Pages of files other programs may map, too, so each is looked for and
    counted once. Not PSS for these, or a server would seem smaller the more of its kind run beside.
    """
    sizes: list[int] = []
    parts: list[int] = []
    files: list[set[tuple[str, int]]] = []
    for pid in processes(root):
        try:
            rollup = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
            files.append(_file_pages(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes.append(rollup["Anonymous"])
        parts.append(rollup["Pss_Anon"])
    mapped = sum(map(len, files)) - len(set().union(*files))
    return (sum(sizes) - sum(parts)) / 1024 + mapped * PAGE / MIB


def _file_pages(pid: int) -> set[tuple[str, int]]:
    """The pages of files that a process has in memory: file and number of each.

    Of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst): bit 63 is set where a page is
    present, bit 61 where it is a file's, and not a copy that the process has made of it.
    """
    found: set[tuple[str, int]] = set()
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in maps:
            span, _, offset, device, inode, *_ = line.split(maxsplit=5)
            if inode == "0":
                continue
            start, end = (int(text, 16) // PAGE for text in span.split("-"))
            first = int(offset, 16) // PAGE
            entries = array("Q", os.pread(pagemap.fileno(), (end - start) * 8, start * 8))
            found.update(
                (f"{device} {inode}", first + number)
                for number, entry in enumerate(entries)
                if entry >> 61 & 0b101 == 0b101
            )
    return found


def _status_kib(pid: int, field: str) -> int:
    try:
        return _fields(Path(f"/proc/{pid}/status").read_text()).get(field, 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _fields(text: str) -> dict[str, int]:
    """Sizes in KiB by name."""
    pairs = (line.split(":", 1) for line in text.splitlines() if line.endswith(" kB"))
    return {name: int(value.split()[0]) for name, value in pairs}
