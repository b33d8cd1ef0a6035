"""Eight values of 64 MiB written and read at once in a process of its own, and what it took.

    peak("gs://bucket/place", {"endpoint": …}, folder)        # MiB of resident memory

The options go by standard input: there may be secrets among them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.conformance import values

SIZE = 64 << 20
WRITERS = 8
CEILING = 120
"""MiB that a worker may take."""


def peak(url: str, options: Mapping[str, object], folder: Path) -> int:
    """Return the most resident memory in MiB; every value was read back and compared."""
    done = subprocess.run(
        [sys.executable, __file__, url],
        input=json.dumps(dict(options)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=folder,
    )
    found = int(done.stdout) >> 10
    print(f"{WRITERS} values of {SIZE >> 20} MiB: peak {found} MiB")
    return found


def _work(place: Backend, number: int, done: list[int]) -> None:
    name, digest = f"item{number}", values.stream_hash(SIZE)
    with place.open_writer(name, size=SIZE, expected_hash=digest) as writer:
        for piece in values.stream(SIZE):
            writer.write(piece)
    if place.hash(name) == digest:
        done.append(number)


def _main() -> None:
    done: list[int] = []
    with open_place(sys.argv[1], **json.load(sys.stdin)) as place:
        threads = [threading.Thread(target=_work, args=(place, n, done)) for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == WRITERS, f"only {done} came back as they were written"
    with open("/proc/self/status", encoding="ascii") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")))


if __name__ == "__main__":
    _main()
