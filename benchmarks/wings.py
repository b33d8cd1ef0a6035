"""How fast a node lists snapshots and tells of one while its restics work.

    python -m benchmarks.wings [--servers 20] [--seconds 20]

A node with a repository on its own storage backs up all servers, three at a time, again and again;
meanwhile one client asks for a server's list, for the list with statistics, and for the status of a
backup, one after the other. Medians and the slowest of each, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from tests.servers.panel import TOKEN, Backup, Panel
from tests.wingsadapter.node_site import NodeSite

LIMIT = 50.0
"""Milliseconds that a median may be."""


def main() -> int:
    """Measure, print, and return 1 where a median is too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backupgw-wings-") as folder, Panel() as panel:
        site = NodeSite(Path(folder), panel=panel, more="running = 3")
        site.make_repository()
        with site:
            return measure(site, panel, options.servers, options.seconds)


def measure(site: NodeSite, panel: Panel, count: int, seconds: float) -> int:
    """Back up and ask meanwhile."""
    servers = [site.add_server(files=4, size=2 << 20) for _ in range(count)]
    rows = [panel.create_backup(server) for server in servers]
    if not all(panel.wait_for_backup(row) for row in rows):
        print("a backup failed")
        return 1
    times: dict[str, list[float]] = {"list": [], "list with statistics": [], "status": []}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    end = time.monotonic() + seconds
    made = 0
    with httpx.Client(base_url=site.url, headers=headers, timeout=60, trust_env=False) as client:
        working: list[Backup] = []
        number = 0
        while time.monotonic() < end:
            working = [row for row in working if row.completed is None]
            while len(working) < 4:
                server = servers[made % count]
                (site.root(server) / "world" / "new").write_bytes(os.urandom(2 << 20))
                working.append(panel.create_backup(server))
                made += 1
            row = rows[number % count]
            number += 1
            base = f"/api/servers/{row.server}/backup"
            for what, path in (
                ("list", f"{base}/snapshots"),
                ("list with statistics", f"{base}/snapshots?include_stats=true"),
                ("status", f"{base}/{row.uuid}/status"),
            ):
                began = time.perf_counter()
                answer = client.get(path)
                times[what].append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200:
                    print(f"{what}: {answer.status_code} {answer.text}")
                    return 1
        for row in working:
            panel.wait_for_backup(row)
    print(f"{count} servers; {made} more backups in {seconds:.0f} s while {number} rounds asked")
    print(f"{'':<22}{'median':>9}{'p95':>9}{'slowest':>9}   ms")
    slow = False
    for what, found in times.items():
        median = statistics.median(found)
        late = sorted(found)[int(len(found) * 0.95)]
        slow = slow or median > LIMIT
        print(f"{what:<22}{median:>9.1f}{late:>9.1f}{max(found):>9.1f}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
