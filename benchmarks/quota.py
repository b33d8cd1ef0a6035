"""What a quota costs an upload over HTTP: the same uploads with --max-size and without, in one run.

    python -m benchmarks.quota [--rounds N] [--uploads N] [--size BYTES] [--workers N] [--dir DIR]
        [--config FILE] [--most RATIO]

How the figure is made believable:

- Three servers have the same folder, so that all meet the same directories on the same part of the
  disk: one with a quota and two without. The second one without is the control: what it differs
  from the first by is what this machine's noise makes of nothing.
- They take short turns, in another order each round, and a ratio is always taken within a round,
  so that a drift of the machine meets both. Shown are the median, the range that has the true one
  in it with 95 % confidence (whatever the distribution), and the extremes.
- Nothing is removed until the end: ext4 avoids inodes that were freed within the last seconds, and
  looking for others made each creation up to half a millisecond dearer, for all alike. A disk that
  other programs remove files from is as bad: --dir on a file system made for this, with a journal
  (docs/ledger.md).
- With several workers it is chance which of them a connection meets, and it stays so: one pair of
  servers says little then, and --workers 1 is the default.

What the ledger costs without HTTP: benchmarks/ledger.py.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import comb
from pathlib import Path
from statistics import median

from benchmarks import load, peers
from benchmarks.peers import Launch, MissingPeer, Program, Server
from benchmarks.phases import CONNECTIONS, SMALL
from benchmarks.turns import REPO, Load, Turn
from benchmarks.wire import BadResponse

LIMIT = 1 << 50
"""Bytes of the quota: never near, as for most uploads."""


WARM_UP = 3
"""Rounds that are not counted: caches, and what SQLite makes at first."""

ORDERS = ((0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2))
"""Of the servers in a round; each pair is in either order equally often."""


def with_flags(program: Program, name: str, flags: Sequence[str]) -> Program:
    """The same server under another name, with more flags."""

    def command(launch: Launch) -> list[str]:
        return [*program.command(launch), *flags]

    return replace(program, name=name, command=command)


def run(work: Path, program: Program, chosen: argparse.Namespace) -> dict[str, list[Turn]]:
    """Let each server have `rounds` turns."""
    site = peers.make_site(work / "site")
    store = work / "store"
    store.mkdir()
    quota = ["--max-size", str(LIMIT)]
    if chosen.config is not None:
        quota += ["--config", str(chosen.config)]
    programs = [
        with_flags(program, "without", []),
        with_flags(program, "with quota", quota),
        with_flags(program, "control", []),
    ]
    turns: dict[str, list[Turn]] = {each.name: [] for each in programs}
    with ExitStack() as running:
        servers = [running.enter_context(Server(p, store, site, tls=False)) for p in programs]
        load.create_repository(servers[0].address, REPO)
        uploads = Load(servers, size=chosen.size, each=max(1, chosen.uploads // CONNECTIONS))
        running.enter_context(uploads.running(CONNECTIONS))
        for number in range(-WARM_UP, chosen.rounds):
            for index in ORDERS[number % len(ORDERS)]:
                turn = uploads.turn(index)
                if number >= 0:
                    turns[programs[index].name].append(turn)
        uploads.check(store)
    return turns


def confidence(values: Sequence[float]) -> tuple[float, float]:
    """Return between which of the values the median of their distribution lies, with 95 %.

    By order statistics: how many values lie below the true median is a matter of tossing coins.
    """
    ordered = sorted(values)
    count, outside, cut = len(ordered), 0.0, 0
    while cut < (count - 1) // 2 and outside + 2 * comb(count, cut) / 2**count <= 0.05:
        outside += 2 * comb(count, cut) / 2**count
        cut += 1
    first = max(0, cut - 1)
    return ordered[first], ordered[count - 1 - first]


def line(title: str, values: Sequence[float]) -> str:
    """One ratio as text."""
    low, high = confidence(values)
    return (
        f"  {title:34} {median(values):.3f}   95 %: {low:.3f} to {high:.3f}   "
        f"all: {min(values):.3f} to {max(values):.3f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when a response was wrong, a program is missing or the ratio too high."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--uploads", type=int, default=250, help="of a turn")
    parser.add_argument("--size", type=int, default=SMALL, help="bytes of a blob")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary folder)")
    parser.add_argument("--config", type=Path, help="settings of the server with the quota")
    parser.add_argument("--most", type=float, help="fail where the median ratio of time is higher")
    chosen = parser.parse_args(argv)
    program = peers.backupgw(str(Path(sys.executable).parent / "backupgw"), chosen.workers)
    work = Path(tempfile.mkdtemp(prefix="backupgw-bench-", dir=chosen.dir))
    try:
        turns = run(work, program, chosen)
    except (BadResponse, MissingPeer) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name, taken in turns.items():
        wall = median(turn.wall for turn in taken) * 1e6
        cpu = median(turn.server_cpu for turn in taken) * 1e6
        print(f"  {name:10}  {wall:6.0f} us an upload, {cpu:6.0f} us of the server's processors")
    base = turns["without"]
    walls, cpus = {}, {}
    for name in ("with quota", "control"):
        pairs = list(zip(base, turns[name], strict=True))
        walls[name] = [b.wall / a.wall for a, b in pairs]
        cpus[name] = [b.server_cpu / a.server_cpu for a, b in pairs]
        print(line(f"time, {name} / without:", walls[name]))
        print(line(f"processor time, {name} / without:", cpus[name]))
    return int(chosen.most is not None and median(walls["with quota"]) > chosen.most)


if __name__ == "__main__":
    sys.exit(main())
