"""Clients that do to a server what users do, all at once, until it is gone.

They note in `Promises` what they ask and what they are told. Bodies and choices come from a seed;
the order in which several clients get their turn does not.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from tests.faults.promises import Promises
from tests.faults.protocol import BROKEN, KINDS, Client, blob_name

SIZES = (1, 17, 4096, 5000, 65536, 300_000, 2 << 20)

UNIQUE = 16
"""Bytes from which on two random bodies are never the same."""


class Workload:
    """One server's clients: with `busy` six of them, else one."""

    def __init__(self, port: int, promises: Promises, seed: int, *, busy: bool) -> None:
        self._port = port
        self._promises = promises
        self._seed = seed
        self.configs: dict[str, bytes] = {}
        jobs: list[Callable[[Client, random.Random], None]] = [self._one_blob]
        if busy:
            jobs += [self._one_blob, self._one_blob, self._new_repository, self._twin, self._twin]
        self._threads = [
            threading.Thread(target=self._until_broken, args=(job, number))
            for number, job in enumerate(jobs)
        ]
        self._twins = threading.Barrier(2)
        self._mine = threading.local()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self._twins.abort()
        for thread in self._threads:
            thread.join()

    def _until_broken(self, job: Callable[[Client, random.Random], None], number: int) -> None:
        # Two clients that happen on the same blob could not know whose request came last, so only
        # one of them has bodies so short that chance repeats them.
        self._mine.smallest = 1 if number == 0 else UNIQUE
        # Twins share a seed, so that both make the same bodies.
        name = "twin" if job == self._twin else str(number)
        generator = random.Random(f"{self._seed}/{name}")
        with Client(self._port) as client:
            try:
                while True:
                    job(client, generator)
            except (*BROKEN, threading.BrokenBarrierError) as error:
                if not self._promises.is_cut.is_set():
                    self._promises.surprise(f"{job.__name__}: {error!r}")

    def _one_blob(self, client: Client, generator: random.Random) -> None:
        """Mostly new blobs; sometimes one is removed, uploaded once more, or brought back."""
        stored: dict[str, bytes] = self._mine.__dict__.setdefault("stored", {})
        removed: dict[str, bytes] = self._mine.__dict__.setdefault("removed", {})
        choice = generator.random()
        if choice < 0.12 and stored:
            path = generator.choice(list(stored))
            self._remove(client, path)
            removed[path] = stored.pop(path)
        elif choice < 0.2 and removed:
            path = generator.choice(list(removed))
            stored[path] = removed.pop(path)
            self._upload(client, path, stored[path])
        elif choice < 0.25 and stored:
            path = generator.choice(list(stored))
            self._upload(client, path, stored[path])
        else:
            body = _body(generator, self._mine.smallest)
            kind = "data" if generator.random() < 0.7 else generator.choice(KINDS)
            path = f"main/{kind}/{blob_name(body)}"
            stored[path] = body
            self._upload(client, path, body)

    def _twin(self, client: Client, generator: random.Random) -> None:
        """Two clients upload the same blob at once: whichever is told 200 was promised it."""
        body = _body(generator)
        self._twins.wait(60)
        path = f"main/data/{blob_name(body)}"
        self._promises.begin(path, present=True)
        status = client.upload("main", "data", body)
        if status == 200:
            self._promises.acknowledged(path, present=True)
        else:
            self._promises.surprise(f"twin {path}: {status} {client.said}")

    def _new_repository(self, client: Client, generator: random.Random) -> None:
        """Folders that did not exist must last, too: made by create, or by the first blob."""
        repository = f"{generator.randrange(1 << 30):08x}/inner"
        if generator.random() < 0.7:
            status = client.create(repository)
            if status != 200:
                self._promises.surprise(f"create: {status} {client.said}")
            config = generator.randbytes(155)
            self.configs[repository] = config
            path = f"{repository}/config"
            self._promises.begin(path, present=True)
            status = client.save_config(repository, config)
            if status == 200:
                self._promises.acknowledged(path, present=True)
            else:
                self._promises.surprise(f"config: {status} {client.said}")
        body = generator.randbytes(100)
        self._upload(client, f"{repository}/keys/{blob_name(body)}", body)

    def _upload(self, client: Client, path: str, body: bytes) -> None:
        repository, kind, _ = path.rsplit("/", 2)
        self._promises.begin(path, present=True)
        status = client.upload(repository, kind, body)
        if status == 200:
            self._promises.acknowledged(path, present=True)
        else:
            self._promises.surprise(f"upload {path}: {status} {client.said}")

    def _remove(self, client: Client, path: str) -> None:
        self._promises.begin(path, present=False)
        status = client.delete(path)
        if status == 200:
            self._promises.acknowledged(path, present=False)
        else:
            self._promises.surprise(f"delete {path}: {status} {client.said}")


def _body(generator: random.Random, smallest: int = UNIQUE) -> bytes:
    # Small ones are the rule: the more answers a second, the closer the cut comes to one.
    size = generator.choices(SIZES, (4, 4, 8, 8, 4, 2, 1))[0]
    return generator.randbytes(max(smallest, size - generator.randrange(size)))
