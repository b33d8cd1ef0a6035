"""A program that must not start: what it says instead."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def refused_start(
    command: Sequence[str | Path],
    folder: Path,
    *,
    statuses: Sequence[int] = (1,),
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command in a folder until it has ended; return what it says of why it does not start.

    Raises:
        AssertionError: it ended otherwise than with one of these statuses, by a traceback, or with
            an answer.
    """
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode in statuses, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.stderr
