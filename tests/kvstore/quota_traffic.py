"""A gateway's process under quota, for tests that kill it: many threads, random bodies.

    python -m tests.kvstore.quota_traffic FOLDER SEED THREADS OPERATIONS [LOG]

LOG: bytes of the ledger's log, which is full the sooner the shorter it is.
Prints a line for each operation that came to an end, so that who reads them can kill it at any
point; ends with an exit code other than 0 when a limit was passed.
"""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

from tests.kvstore import quota_place

from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound, QuotaExceeded
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.quota_writer import UNRESERVED
from backupgw.kvstore.ledger import Ledger, LedgerError, sqlite_log

NAMES = 400


class LimitPassedError(Exception):
    """What must never happen."""


class Client(threading.Thread):
    """Uploads bodies of a size that nobody knows beforehand, and changes what is there.

    A ledger that is away for a moment is the client's misfortune: it is told, and goes on.
    """

    def __init__(self, place: QuotaLayer, ledger: Ledger, seed: int, operations: int) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._place = place
        self._ledger = ledger
        self._random = random.Random(seed)
        self._operations = operations

    def run(self) -> None:
        try:
            for _ in range(self._operations):
                done = self._operate()
                self._check()
                print(done, flush=True)
        except BaseException as error:
            self.failure = error
            raise

    def _pick(self) -> str:
        number = self._random.randrange(NAMES)
        return f"user{number % 3}/repo{number % 2}/data/{number % 7:02}/{number}"

    def _operate(self) -> str:
        try:
            match self._random.randrange(10):
                case 0:
                    self._place.delete(self._pick())
                case 1:
                    self._place.move(self._pick(), self._pick())
                case 2:
                    self._place.copy(self._pick(), self._pick())
                case 3:
                    self._die()
                case _:
                    self._upload()
        except ObjectNotFound:
            return "found nothing"
        except ObjectExists:
            return "was there"
        except QuotaExceeded:
            return "refused"
        except LedgerError as error:
            if not error.retryable:
                raise
            return "away"
        return "done"

    def _body(self) -> list[bytes]:
        """Chunks of 0 bytes to a few steps of the reservation, mostly small."""
        size = int(self._random.paretovariate(0.7) * 2000) % (5 * UNRESERVED)
        chunk = 1 + self._random.randrange(UNRESERVED)
        return [bytes(min(chunk, size - start)) for start in range(0, size, chunk)]

    def _upload(self) -> None:
        """Half of them are what most clients do: something new, of a size that they tell."""
        body = self._body()
        new = self._random.random() < 0.5
        size = sum(map(len, body)) if new else None
        with self._place.open_writer(self._pick(), size=size, if_absent=new) as writer:
            for chunk in body:
                writer.write(chunk)

    def _die(self) -> None:
        """Be a client that goes away: mostly seen by the gateway, sometimes not."""
        writer = self._place.open_writer(self._pick())
        body = self._body()
        for chunk in body[: 1 + len(body) // 2]:
            writer.write(chunk)
        if self._random.randrange(3):
            writer.abort()

    def _check(self) -> None:
        try:
            usage = self._ledger.usage("server")
        except LedgerError as error:
            if not error.retryable:
                raise
            return
        limit = usage.limit.hard_bytes
        if limit is not None and usage.used.bytes + usage.reserved.bytes > limit:
            raise LimitPassedError(usage)


def play(place: QuotaLayer, ledger: Ledger, seed: int, threads: int, operations: int) -> int:
    """Run the clients to their end; returns the exit code."""
    clients = [Client(place, ledger, seed * 1000 + number, operations) for number in range(threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return 1 if any(client.failure for client in clients) else 0


def serve(folder: Path, seed: int, threads: int, operations: int) -> int:
    with quota_place.ledger_of(folder) as ledger, quota_place.layer_of(folder, ledger) as place:
        return play(place, ledger, seed, threads, operations)


if __name__ == "__main__":
    if len(sys.argv) > 5:
        sqlite_log.SIZE = int(sys.argv[5])
    sys.exit(serve(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
