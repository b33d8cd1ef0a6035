"""A child process of a test: it ends with its block, and with us, whatever becomes of either.

`with subprocess.Popen(…)` waits without limit for a child that does not end, when a time limit has
already ended the test, too. No test uses that class; the style check refuses it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, AnyStr, Literal, overload

from .orphans import ends_with_us

PATIENCE = 120.0
"""Seconds; well below the time limit of a test."""


class Child(subprocess.Popen[AnyStr]):
    """As `subprocess.Popen`, but:

    - a block that an exception leaves kills it, with its process group where it leads one;
    - no wait is without limit: each ends after PATIENCE seconds where no other time is given,
      with subprocess.TimeoutExpired; at the end of a block the child is killed then;
    - it ends when this process does, however that ends.
    """

    @overload
    def __init__(
        self: Child[str], args: Sequence[str | Path], *, text: Literal[True], **options: Any
    ) -> None: ...

    @overload
    def __init__(self: Child[bytes], args: Sequence[str | Path], **options: Any) -> None: ...

    def __init__(self, args: Sequence[str | Path], **options: Any) -> None:
        super().__init__(args, **options)
        ends_with_us(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        return super().wait(PATIENCE if timeout is None else timeout)

    def communicate(
        self,
        input: AnyStr | None = None,  # noqa: A002 - its name there
        timeout: float | None = None,
    ) -> tuple[AnyStr, AnyStr]:
        timeout = PATIENCE if timeout is None else timeout
        # mypy loses what a constrained type variable stands for in super().
        return super().communicate(input, timeout)  # type: ignore[return-value, arg-type]

    def end(self) -> None:
        """End it with SIGKILL, with its process group where it leads one; idempotent."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    self.kill()
        self.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.end()
        try:
            super().__exit__(kind, value, traceback)
        except BaseException:
            self.end()
            raise
