"""rest-server, `rclone serve restic` and backupgw in turn, on the same data, in one run.

`python -m benchmarks.restserver --help`. How to read what it prints: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import load, peers, report
from benchmarks.peers import MissingPeer, Program, Server, Site
from benchmarks.phases import Phase, Sample, all_phases
from benchmarks.wire import BadResponse

SERVERS = ("rest-server", "rclone", "backupgw")
PHASES = ("up16", "down16", "range20k", "up20k", "list", "restic", "up16-tls", "down16-tls")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restserver", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="samples a server (default 5)")
    parser.add_argument(
        "--only", action="append", choices=PHASES, metavar="NAME", help=f"of {', '.join(PHASES)}"
    )
    parser.add_argument(
        "--servers",
        default=",".join(SERVERS),
        help="comma-separated; backupgw/N has N worker processes (default: %(default)s)",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary folder)")
    parser.add_argument("--no-ceiling", action="store_true", help="leave the client's limit out")
    parser.add_argument("--rclone-bcrypt", action="store_true", help="bcrypt password for rclone")
    for program in (*SERVERS, "restic"):
        parser.add_argument(f"--{program}", metavar="PATH", help=f"the {program} to use")
    parsed = parser.parse_args(argv)
    if parsed.rounds < 1 or parsed.scale <= 0:
        parser.error("--rounds and --scale must be positive")
    for name in parsed.servers.split(","):
        if name not in SERVERS and not re.fullmatch(r"backupgw/[1-9]\d?", name):
            parser.error(f"--servers: {name!r} is none of {', '.join(SERVERS)}, backupgw/N")
    return parsed


def programs(chosen: argparse.Namespace) -> list[Program]:
    """The servers asked for, found on this machine, in the order asked for."""
    found: list[Program] = []
    for name in chosen.servers.split(","):
        if name == "rest-server":
            path = chosen.rest_server or peers.find("rest-server", "restic-rest-server")
            found.append(peers.rest_server(path))
        elif name == "rclone":
            path = chosen.rclone or peers.find("rclone")
            found.append(peers.rclone(path, bcrypt_each_time=chosen.rclone_bcrypt))
        else:
            path = chosen.backupgw or str(Path(sys.executable).parent / "backupgw")
            workers = name.partition("/")[2]
            found.append(peers.backupgw(path, int(workers) if workers else None))
    return found


def run_phase(
    phase: Phase, servers: Sequence[Program], site: Site, work: Path, rounds: int
) -> dict[str, list[Sample]]:
    """Start all servers, then take one sample from each in turn, `rounds` times."""
    shared = work / "shared"
    shared.mkdir()
    phase.prepare(shared)
    samples: dict[str, list[Sample]] = {program.name: [] for program in servers}
    with ExitStack() as running:
        started = []
        for number, program in enumerate(servers):
            store = shared if phase.one_folder else work / f"store-{number}"
            store.mkdir(exist_ok=True)
            server = running.enter_context(Server(program, store, site, tls=phase.tls))
            phase.ready(server)
            started.append(server)
        for number in range(rounds):
            for server in started:
                try:
                    samples[server.program.name].append(phase.measure(server, number))
                except BadResponse as error:
                    print(f"{server.program.name} printed:\n{server.output()}", file=sys.stderr)
                    raise BadResponse(f"{phase.name}, {server.program.name}: {error}") from error
            print(f"  {phase.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return samples


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when a response was wrong or a program is missing."""
    chosen = arguments(argv)
    results: list[tuple[Phase, dict[str, list[Sample]]]] = []
    work = Path(tempfile.mkdtemp(prefix="backupgw-bench-", dir=chosen.dir))
    try:
        servers = programs(chosen)
        wanted = set(chosen.only or PHASES)
        restic = (chosen.restic or peers.find("restic")) if "restic" in wanted else None
        site = peers.make_site(work / "site")
        ceiling = None if chosen.no_ceiling else peers.ceiling()
        base = servers[0].name
        facts = report.machine(work)
        facts["clients"] = f"{load.__name__}, a process a connection"
        if restic:
            facts["restic"] = peers.version_of(restic, "version")
        print("\n".join(f"  {key}: {value}" for key, value in facts.items()))
        print(report.caveats([*servers, *([ceiling] if ceiling else [])]), flush=True)
        for phase in all_phases(restic, chosen.scale):
            if phase.name not in wanted:
                continue
            taking = [*servers, *([ceiling] if ceiling and phase.ceiling else [])]
            folder = work / phase.name
            folder.mkdir()
            samples = run_phase(phase, taking, site, folder, min(chosen.rounds, phase.most_rounds))
            shutil.rmtree(folder)
            results.append((phase, samples))
            print(report.table(phase, samples, base), flush=True)
        if chosen.json:
            data = report.as_json(facts, servers, results, base)
            chosen.json.write_text(json.dumps(data, indent=1) + "\n")
    except (BadResponse, MissingPeer) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
