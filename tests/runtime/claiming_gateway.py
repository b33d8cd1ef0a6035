"""A process that changes items of a place in the settings when it is told, as a gateway would.

    python -m tests.runtime.claiming_gateway CONFIG SETTLING

SETTLING: seconds that what a dead process had sent takes to arrive. It reads lines of JSON,
`{"do": "store", "seed": …, "size": …, "at": …}` or `"delete"`, and answers each with a word.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError, ObjectExists, ObjectNotFound
from tests.servers.child import Child


def content(seed: str, size: int) -> bytes:
    """Return the value that goes with a seed."""
    return hashlib.shake_128(seed.encode()).digest(size)


def name_of(seed: str, size: int) -> str:
    """Return its name: as in a repository, the hash of what it holds, in a folder that the part of
    the seed before a slash names."""
    folder = seed.rpartition("/")[0] or "data"
    return f"{folder}/{hashlib.sha256(content(seed, size)).hexdigest()}"


class ClaimingGateway:
    """The process, from outside. A context manager.

    Args:
        config: the settings; the place is called "far".
        environ: what they refer to.
    """

    def __init__(self, config: Path, environ: Mapping[str, str], settling: float = 1.0) -> None:
        self._process = Child(
            [sys.executable, "-m", __name__, str(config), str(settling)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environ),
            text=True,
        )

    def __enter__(self) -> Self:
        try:
            if (answer := self.answer()) != "ready":
                raise RuntimeError(f"it did not start: {answer}")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.__exit__(kind, error, traceback)  # closes its input, at which it ends

    def tell(self, do: str, seed: str, size: int, *, at: float | None = None) -> None:
        """Tell it what to do, at a time of the monotonic clock where one is given."""
        assert self._process.stdin is not None
        told = {"do": do, "seed": seed, "size": size, "at": at or time.monotonic()}
        self._process.stdin.write(f"{json.dumps(told)}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Return what came of it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._process.kill()
        with self._process:
            pass


def _done(place: Backend, do: str, seed: str, size: int, at: float) -> str:
    name = name_of(seed, size)
    if do == "delete":
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            place.delete(name)
        except ObjectNotFound:
            return "missing"
        return "deleted"
    value = content(seed, size)
    writer = place.open_writer(
        name, size=size, if_absent=True, expected_hash=name.rpartition("/")[2]
    )
    try:
        writer.write(value)
        time.sleep(max(0.0, at - time.monotonic()))
        writer.commit()
    except ObjectExists:
        writer.abort()
        return "exists" if place.load(name) == value else "another value"
    return "stored"


def _main(config: str, settling: str) -> None:
    from backupgw.runtime import place_claims, settings

    place_claims.SETTLING = float(settling)
    place = settings.load(Path(config), serving=()).open_place("far")
    with contextlib.suppress(BackendError):
        place.create()
    with place:
        print("ready", flush=True)
        for line in sys.stdin:
            told: dict[str, Any] = json.loads(line)
            try:
                print(_done(place, **told), flush=True)
            except BackendError as error:
                print(f"{type(error).__name__}, retryable {error.retryable}: {error}", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
