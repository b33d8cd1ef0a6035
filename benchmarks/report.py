"""How a run is shown: medians with their spread, ratios, and the facts a reader needs to judge."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers import Program
from benchmarks.phases import Phase, Sample

Samples = Mapping[str, Sequence[Sample]]
"""The samples of one phase by server, in the order of the rounds."""


def machine(folder: Path) -> dict[str, str]:
    """Kernel, processors, memory, and what kind of disk `folder` lies on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{memory / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "store": file_system(folder),
    }


def file_system(folder: Path) -> str:
    """Type of the file system that `folder` lies on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        inside = str(folder.resolve()).startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def spread(values: Sequence[float], digits: int) -> str:
    """`median (least to most)`."""
    middle, low, high = median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def ratios(samples: Samples, server: str, base: str) -> list[float]:
    """Rate of `server` over the rate of `base`, round by round, so that drift cancels out."""
    return [
        own.rate / other.rate for own, other in zip(samples[server], samples[base], strict=True)
    ]


def table(phase: Phase, samples: Samples, base: str) -> str:
    """One phase as text."""
    heads = [
        "server", phase.unit, "wall s", f"x {base}", "CPU s", "client CPU s", "peak MiB", "sum MiB"
    ]  # fmt: skip
    rows = [heads]
    for server, taken in samples.items():
        digits = 0 if median(s.rate for s in taken) >= 100 else 1
        rows.append(
            [
                server,
                spread([s.rate for s in taken], digits),
                spread([s.wall for s in taken], 2),
                spread(ratios(samples, server, base), 2) if base in samples else "",
                f"{median(s.server_cpu for s in taken):.2f}",
                f"{median(s.client_cpu for s in taken):.2f}",
                f"{median(s.peak_mib for s in taken):.0f}",
                f"{median(s.peak_sum_mib for s in taken):.0f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = [f"\n{phase.name}: {phase.title}, {len(next(iter(samples.values())))} rounds"]
    lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for server, taken in samples.items():
        if taken[0].details:
            figures = (
                f"{key} {median(s.details[key] for s in taken):.2f}" for key in taken[0].details
            )
            lines.append(f"  {server}: " + " · ".join(figures))
    return "\n".join(lines)


def caveats(programs: Sequence[Program]) -> str:
    """Versions, and what each server leaves out that others do."""
    lines = []
    for program in programs:
        caveat = f"; {program.caveats}" if program.caveats else ""
        lines.append(f"  {program.name}: {program.version}{caveat}")
    return "\n".join(lines)


def as_json(
    facts: Mapping[str, str],
    programs: Sequence[Program],
    results: Sequence[tuple[Phase, Samples]],
    base: str,
) -> dict[str, Any]:
    """Everything that was measured, for a program to read (seconds, MiB)."""
    return {
        "machine": dict(facts),
        "servers": {p.name: {"version": p.version, "caveats": p.caveats} for p in programs},
        "base": base,
        "phases": {
            phase.name: {
                "title": phase.title,
                "unit": phase.unit,
                "servers": {
                    server: {
                        "median_rate": median(s.rate for s in taken),
                        "median_wall": median(s.wall for s in taken),
                        "median_server_cpu": median(s.server_cpu for s in taken),
                        "median_peak_mib": median(s.peak_mib for s in taken),
                        "median_peak_sum_mib": median(s.peak_sum_mib for s in taken),
                        "ratio": median(ratios(samples, server, base)) if base in samples else None,
                        "samples": [{**asdict(s), "rate": s.rate} for s in taken],
                    }
                    for server, taken in samples.items()
                },
            }
            for phase, samples in results
        },
    }
