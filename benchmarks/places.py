"""restic's backup to a place, three ways in turn: its own backend, rclone's server, backupgw.

`python -m benchmarks.places --help`. All three reach the same server through the same line, in one
run, on the same data. How to read what it prints: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.servers.child import Child

from benchmarks import dataset, peers, process_tree, report
from benchmarks.peers import MissingPeer
from benchmarks.place_s3 import CephPlace, RclonePlace
from benchmarks.place_servers import Place, Route, SftpPlace, Way

WAYS = ("restic", "rclone", "backupgw")
ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "benchmark"
START_SECONDS = 30


@dataclass(frozen=True)
class Line:
    """What lies between: seconds there and back, and bytes per second each way; None: nothing."""

    round_trip: float = 0.0
    bandwidth: float | None = None

    @property
    def title(self) -> str:
        if not self.round_trip and self.bandwidth is None:
            return "no shaping"
        rate = "" if self.bandwidth is None else f", {self.bandwidth * 8 / 1e6:.0f} Mbit/s"
        return f"{self.round_trip * 1000:.0f} ms round trip{rate}"


PLACES: dict[str, Callable[[Path], Place]] = {
    "s3": RclonePlace,
    "ceph": CephPlace,
    "sftp": SftpPlace,
}
LINES = {"shaped": Line(0.02, 25e6), "plain": Line()}


@dataclass(frozen=True)
class Sample:
    """One backup: seconds, bytes that the place got, and CPU seconds of restic, of what stands
    between, and of the place's server."""

    wall: float
    stored: int
    restic_cpu: float
    way_cpu: float
    place_cpu: float

    @property
    def cpu_per_gb(self) -> float:
        """CPU seconds for 10⁹ bytes of everything on this side of the line."""
        return (self.restic_cpu + self.way_cpu) / self.stored * 1e9


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.places", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="backups a way (default 3)")
    parser.add_argument("--megabytes", type=int, default=300, help="of data (default 300)")
    parser.add_argument(
        "--place", action="append", choices=sorted(PLACES), help="default: s3 and sftp"
    )
    parser.add_argument("--line", action="append", choices=sorted(LINES), help="default: both")
    parser.add_argument("--ways", default=",".join(WAYS), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary folder)")
    parsed = parser.parse_args(argv)
    if parsed.rounds < 1 or parsed.megabytes < 1:
        parser.error("--rounds and --megabytes must be positive")
    for way in parsed.ways.split(","):
        if way not in WAYS:
            parser.error(f"--ways: {way!r} is none of {', '.join(WAYS)}")
    return parsed


@contextmanager
def line_to(port: int, line: Line) -> Iterator[int]:
    """Yield the port by which the server at `port` is reached over a line."""
    if line == Line():
        yield port
        return
    command = [sys.executable, "-m", "tests.servers.faulty_proxy", f"127.0.0.1:{port}"]
    command += ["--latency", str(line.round_trip / 2)]
    if line.bandwidth is not None:
        command += ["--bandwidth", str(line.bandwidth)]
    proxy = Child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert proxy.stdout is not None
    assert proxy.stdin is not None
    with proxy, proxy.stdout, proxy.stdin:
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.stdin.close()
            proxy.wait(START_SECONDS)


def restic(route: Route, *words: str, folder: Path, home: Path) -> tuple[float, float]:
    """Run restic; return wall and CPU seconds. Raises RuntimeError with what it printed."""
    environment = {
        **os.environ,
        **route.environment,
        "RESTIC_PASSWORD": PASSWORD,
        "RESTIC_CACHE_DIR": str(home / "cache"),
        "HOME": str(home),
    }
    before = os.times()
    started = time.monotonic()
    done = subprocess.run(
        [peers.find("restic"), "-r", route.repository, *route.options, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - started
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"restic {' '.join(words)}: {done.stderr or done.stdout}")
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def sample(place: Place, way: Way, port: int, tree: Path, work: Path) -> Sample:
    """Back the tree up into a new repository, check it, and remove it."""
    home = work / "home"
    home.mkdir()
    folder = place.fresh_folder()
    with way.started(place, port, folder, home) as (route, pid):
        restic(route, "init", folder=tree, home=home)
        os.sync()
        between = process_tree.cpu_seconds(pid) if pid else 0.0
        served = place.cpu_seconds()
        wall, cpu = restic(route, "backup", ".", folder=tree, home=home)
        between = process_tree.cpu_seconds(pid) - between if pid else 0.0
        served = place.cpu_seconds() - served
        restic(route, "check", folder=tree, home=home)
    stored = place.stored(folder)
    place.remove(folder)
    shutil.rmtree(home)
    return Sample(wall, stored, cpu, between, served)


def measure(
    place: Place, ways: Sequence[Way], line: Line, tree: Path, work: Path, rounds: int
) -> dict[str, list[Sample]]:
    """Take one sample of each way in turn, `rounds` times."""
    samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
    with line_to(place.port, line) as port:
        for number in range(rounds):
            for way in ways:
                samples[way.name].append(sample(place, way, port, tree, work))
            done = f"round {number + 1} of {rounds}"
            print(f"  {place.name}, {line.title}: {done}", file=sys.stderr, flush=True)
    return samples


def table(title: str, samples: dict[str, list[Sample]]) -> str:
    """One place over one line as text; ratios are of wall times, round by round."""
    heads = ["way", "wall s", "MB/s", *(f"wall / {way}'s" for way in samples)]
    rows = [[*heads, "CPU s/GB", "restic", "between", "place's server"]]
    for way, taken in samples.items():
        ratios = [
            f"{median(a.wall / b.wall for a, b in zip(taken, others, strict=True)):.2f}"
            for others in samples.values()
        ]
        costs = [(each.restic_cpu, each.way_cpu, each.place_cpu) for each in taken]
        per_gb = [
            median(cost[part] / each.stored * 1e9 for cost, each in zip(costs, taken, strict=True))
            for part in range(3)
        ]
        rows.append(
            [
                way,
                report.spread([each.wall for each in taken], 2),
                f"{median(each.stored / each.wall / 1e6 for each in taken):.1f}",
                *ratios,
                f"{median(each.cpu_per_gb for each in taken):.1f}",
                *(f"{seconds:.1f}" for seconds in per_gb),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([f"\n{title}", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when a program is missing or one of them failed."""
    chosen = arguments(argv)
    work = Path(tempfile.mkdtemp(prefix="backupgw-bench-", dir=chosen.dir))
    found = []
    try:
        ways = [Way.named(name) for name in chosen.ways.split(",")]
        facts = report.machine(work)
        facts["client"] = peers.version_of(peers.find("restic"), "version")
        facts["data"] = f"{chosen.megabytes} MB, a quarter of it text"
        facts |= {way.name: way.caveats for way in ways if way.caveats}
        print("\n".join(f"  {key}: {value}" for key, value in facts.items()), flush=True)
        tree = work / "tree"
        dataset.make_tree(tree, chosen.megabytes * 1_000_000 // 2)
        for name in chosen.place or ("s3", "sftp"):
            with ExitStack() as running:
                place = running.enter_context(PLACES[name](work / name))
                for line_name in chosen.line or list(LINES):
                    line = LINES[line_name]
                    samples = measure(place, ways, line, tree, work, chosen.rounds)
                    title = f"{place.name}, {line.title}, {chosen.rounds} rounds"
                    print(table(title, samples), flush=True)
                    found.append((title, samples))
        if chosen.json:
            data = {
                title: {way: [asdict(each) for each in taken] for way, taken in samples.items()}
                for title, samples in found
            }
            chosen.json.write_text(json.dumps({"machine": facts, "runs": data}, indent=1) + "\n")
    except (MissingPeer, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
