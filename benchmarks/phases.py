"""What is measured: each phase takes one sample from one server."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import dataset, load, process_tree
from benchmarks.dataset import MIB
from benchmarks.peers import Server
from benchmarks.wire import BadResponse

CONNECTIONS = 5
"""restic's default number of connections."""

PACK = 16 * MIB
SMALL = 20_000
REPO = "bench"


@dataclass(frozen=True)
class Sample:
    """One measurement: seconds, the amount of work done in them, and what it cost."""

    wall: float
    amount: float
    server_cpu: float
    client_cpu: float
    peak_mib: float
    peak_sum_mib: float
    details: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Work done per second, in the phase's unit."""
        return self.amount / self.wall


class Phase(ABC):
    """A workload.

    `one_folder`: all servers of the phase have the same folder. Where a folder lies on the disk
    was seen to change the cost of small uploads by half.
    """

    name: str
    title: str
    unit: str
    tls = False
    ceiling = True
    one_folder = True
    most_rounds = 1000

    def prepare(self, folder: Path) -> None:
        """Make the data that all servers read, in `folder`."""
        del folder

    def ready(self, server: Server) -> None:
        """Called once, when the server has been started."""
        del server

    def measure(self, server: Server, round_number: int) -> Sample:
        """Take a sample; the disk is quiet before it starts, and its traces are removed."""
        # What the server before left dirty in the page cache must not be written during this one.
        os.sync()
        process_tree.reset_peak(server.pid)
        before = process_tree.cpu_seconds(server.pid)
        wall, amount, client_cpu, details = self.work(server, round_number)
        sample = Sample(
            wall=wall,
            amount=amount,
            server_cpu=process_tree.cpu_seconds(server.pid) - before,
            client_cpu=client_cpu,
            peak_mib=process_tree.peak_mib(server.pid),
            peak_sum_mib=process_tree.peak_sum_mib(server.pid),
            details=details,
        )
        self.clean(server)
        return sample

    @abstractmethod
    def work(self, server: Server, number: int) -> tuple[float, float, float, dict[str, float]]:
        """Do it: wall seconds, amount, client's CPU seconds, further figures."""

    def clean(self, server: Server) -> None:
        """Remove what the sample left behind."""
        del server


class Uploads(Phase):
    """POST of distinct blobs, each verified by the server where it does that."""

    def __init__(self, size: int, each: int, *, tls: bool) -> None:
        self.size, self.each, self.tls = size, max(1, each), tls
        self.ceiling = not tls  # it would show how fast the stand-in encrypts
        large = size >= MIB
        self.name = ("up16" if large else "up20k") + ("-tls" if tls else "")
        self.title = f"uploads of {'16 MiB' if large else '20 kB'}" + (", TLS" if tls else "")
        self.unit = "MiB/s" if large else "requests/s"

    def ready(self, server: Server) -> None:
        load.create_repository(server.address, REPO)

    def work(self, server: Server, number: int) -> tuple[float, float, float, dict[str, float]]:
        tasks = [
            load.Upload(REPO, self.each, self.size, f"{self.name} {number} {connection}".encode())
            for connection in range(CONNECTIONS)
        ]
        outcome = load.run(server.address, tasks)
        if server.program.stores:
            self._verify(server, outcome.uploaded)
        done = outcome.body_bytes / MIB if self.size >= MIB else outcome.requests
        return outcome.wall, done, outcome.client_cpu, {}

    def _verify(self, server: Server, names: tuple[str, ...]) -> None:
        """Every blob is there in full length; a few are read and hashed."""
        data = server.store / REPO / "data"
        for name in names:
            if (data / name[:2] / name).stat().st_size != self.size:
                raise BadResponse(f"{server.program.name} acknowledged {name} but cut it short")
        for name in random.Random(len(names)).sample(names, min(8, len(names))):
            if hashlib.sha256((data / name[:2] / name).read_bytes()).hexdigest() != name:
                raise BadResponse(f"{server.program.name} stored wrong contents as {name}")

    def clean(self, server: Server) -> None:
        if server.program.stores:
            dataset.remove_blobs(server.store / REPO)


class Downloads(Phase):
    """GET of whole packs, or of ranges of packs, out of the page cache."""

    def __init__(self, span: int | None, each: int, *, tls: bool) -> None:
        self.span, self.each, self.tls = span, max(1, each), tls
        self.ceiling = not tls
        self.name = ("down16" if span is None else "range20k") + ("-tls" if tls else "")
        self.title = "downloads of 16 MiB" if span is None else "ranges of 20 kB"
        self.title += ", TLS" if tls else ""
        self.unit = "MiB/s" if span is None else "requests/s"
        self._blobs: list[load.Blob] = []

    def prepare(self, folder: Path) -> None:
        self._blobs = dataset.make_packs(folder, REPO, 8, PACK)

    def work(self, server: Server, number: int) -> tuple[float, float, float, dict[str, float]]:
        tasks = [
            load.Download(self._blobs, self.each, self.span, number * CONNECTIONS + connection)
            for connection in range(CONNECTIONS)
        ]
        outcome = load.run(server.address, tasks)
        done = outcome.body_bytes / MIB if self.span is None else outcome.requests
        return outcome.wall, done, outcome.client_cpu, {}


class Listing(Phase):
    """One GET of data/ in a repository of very many blobs, in restic's v2 form."""

    name, unit, ceiling, most_rounds = "list", "blobs/s", False, 3

    def __init__(self, count: int) -> None:
        self.count = max(1000, count)
        self.title = f"listing of {self.count:,} blobs"
        self._target = ""

    def prepare(self, folder: Path) -> None:
        self._target = dataset.make_listing(folder, REPO, self.count)
        for sub in os.scandir(folder / REPO / "data"):  # inodes and folders into the caches
            for blob in os.scandir(sub.path):
                blob.stat()

    def work(self, server: Server, number: int) -> tuple[float, float, float, dict[str, float]]:
        del number
        before = time.process_time()
        first, last, head, body = load.read_list(server.address, self._target)
        client_cpu = time.process_time() - before
        kind = head.headers.get(b"content-type", b"")
        if b"vnd.x.restic.rest.v2" not in kind:
            raise BadResponse(f"{server.program.name} answered the list as {kind!r}")
        megabytes = len(body) / MIB
        entries = json.loads(body)
        del body
        if len({entry["name"] for entry in entries}) != self.count or len(entries) != self.count:
            raise BadResponse(f"{server.program.name} listed {len(entries)} entries")
        if any(entry["size"] < PACK for entry in entries):
            raise BadResponse(f"{server.program.name} listed wrong sizes")
        return last, self.count, client_cpu, {"first byte, s": first, "body, MiB": megabytes}


class ResticCycle(Phase):
    """A real restic: init, backup, check --read-data, restore, forget --prune."""

    name, unit, ceiling, one_folder, most_rounds = "restic", "MiB/s", False, False, 5

    def __init__(self, restic: str, total: int) -> None:
        self.total = max(8 * MIB, total)
        self.title = f"restic cycle over {self.total / MIB:.0f} MiB"
        self._restic = restic
        self._tree = Path()
        self._work = Path()
        self._digest = ""

    def prepare(self, folder: Path) -> None:
        self._work = folder.parent / "restic"
        self._tree = self._work / "tree"
        dataset.make_tree(self._tree, self.total)
        self._digest = dataset.tree_digest(self._tree)

    def work(self, server: Server, number: int) -> tuple[float, float, float, dict[str, float]]:
        repo = f"{REPO}{number}"
        cache, target = self._work / "cache", self._work / "restored"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._work),
            "RESTIC_REPOSITORY": f"rest:http://{load.USER}:{load.PASSWORD}@"
            f"{server.address.host}:{server.address.port}/{repo}/",
            "RESTIC_PASSWORD": "restic",
            "RESTIC_CACHE_DIR": str(cache),
            "RESTIC_PROGRESS_FPS": "0.1",
        }
        steps = (
            ("init", ["init"]),
            ("backup", ["backup", "first", "second"]),
            ("check", ["check", "--read-data"]),
            ("restore", ["restore", "latest", "--target", str(target)]),
            ("backup 2", ["backup", "second"]),
            ("prune", ["forget", "--keep-last", "1", "--group-by", "host", "--prune"]),
        )
        spent = {}
        client_before = os.times()
        for step, arguments in steps:
            start = time.monotonic()
            done = subprocess.run(
                [self._restic, "--quiet", *arguments],
                cwd=self._tree,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            spent[f"{step}, s"] = time.monotonic() - start
            if done.returncode:
                raise BadResponse(f"restic {step} on {server.program.name}: {done.stderr[-800:]}")
        client_after = os.times()
        client_cpu = (
            client_after.children_user
            + client_after.children_system
            - client_before.children_user
            - client_before.children_system
        )
        if dataset.tree_digest(target) != self._digest:
            raise BadResponse(f"restic restored another tree from {server.program.name}")
        for rest in (cache, target, server.store / repo):
            shutil.rmtree(rest)
        return sum(spent.values()), self.total / MIB, client_cpu, spent


def all_phases(restic: str | None, scale: float) -> list[Phase]:
    """Every phase, its amount of work multiplied by `scale`; without restic, all the others."""
    phases: list[Phase] = [
        Uploads(PACK, round(8 * scale), tls=False),
        Downloads(None, round(40 * scale), tls=False),
        Downloads(SMALL, round(4000 * scale), tls=False),
        Uploads(SMALL, round(1000 * scale), tls=False),
        Listing(round(1_000_000 * scale)),
    ]
    if restic is not None:
        phases.append(ResticCycle(restic, round(1_000_000_000 * scale)))
    return [
        *phases,
        Uploads(PACK, round(8 * scale), tls=True),
        Downloads(None, round(40 * scale), tls=True),
    ]
