"""How much memory a process needed at most, as the kernel counted it."""

from __future__ import annotations

from pathlib import Path


def reset_peak(pid: int) -> None:
    """Let the peak start again from what is resident now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """Peak resident memory in bytes since the last reset."""
    return _kibibytes(pid, "VmHWM") << 10


def _kibibytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(f"process {pid} has no {field}")
