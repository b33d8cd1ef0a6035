"""The double of Drime in a process of its own: its memory and its time are not the client's."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Self

from .process import ServerFailed


class DrimeProcess:
    """A running double. A context manager.

    Args:
        latency: seconds before each answer.
        any_size: simple uploads of any size are taken.

    Attributes:
        url: base of the API.
        key: one that it accepts.
    """

    def __init__(self, *, latency: float = 0.0, any_size: bool = False) -> None:
        command = [sys.executable, "-m", "tests.servers.drime_double", "--latency", str(latency)]
        self._process = subprocess.Popen(
            [*command, *(["--any-size"] if any_size else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if len(words) != 2:
            raise ServerFailed("the double of Drime did not start")
        self.url, self.key = words

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def counts(self, *, forget: bool = False) -> dict[str, int]:
        """Return how many requests came so far, by kind, and those to the storage as `storage`.

        Args:
            forget: count from here on; what is returned is then of no use.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("forget\n" if forget else "counts\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
