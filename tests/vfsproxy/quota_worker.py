"""A gateway's process as tests of limits need it: many writers into one folder, told when to begin.

    python -m tests.vfsproxy.quota_worker CONFIG FOLDER WRITERS SIZE PREFIX

prints `ready`, begins at the first line of its standard input, and prints what became of the
writers as JSON: how many had their file stored, how many were refused, and what else went wrong.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from pathlib import Path

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.ledger import LimitExceeded
from backupgw.runtime.settings import load
from backupgw.vfsproxy.core import Core
from backupgw.vfsproxy.folders.records import Permission
from backupgw.vfsproxy.identity import MANAGER

CHUNK = 64 << 10


def main(arguments: list[str]) -> None:
    config, folder, writers, size, prefix = arguments
    outcomes: Counter[str] = Counter()
    counting = threading.Lock()
    with Core(load(Path(config)), lambda _event: True) as core:
        begin = threading.Barrier(int(writers) + 1)

        def write(number: int) -> None:
            access = core.folders.resolve(MANAGER, folder, Permission.READ_WRITE)
            begin.wait()
            try:
                with access.files.open_writer(f"{prefix}{number}", size=int(size)) as writer:
                    for _ in range(0, int(size), CHUNK):
                        writer.write(bytes(CHUNK))
                found = "stored"
            except LimitExceeded:
                found = "refused"
            except BackendError as error:
                found = repr(error)
            with counting:
                outcomes[found] += 1

        threads = [threading.Thread(target=write, args=(n,)) for n in range(int(writers))]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.readline()
        begin.wait()
        for thread in threads:
            thread.join()
    print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
