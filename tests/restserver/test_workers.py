"""How many processes serve a place where nobody says so, and what they take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from benchmarks import process_tree
from tests.servers.gateway import Gateway

from backupgw.restserver.workers import MOST, options
from backupgw.runtime.settings import load

CORES = min(MOST, len(os.sched_getaffinity(0)))
DISK = '[places.default]\nurl = "file:///srv/restic"\n'


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        (DISK, CORES),
        (DISK + "[rest]\nworkers = 0\n", CORES),
        (DISK + "[rest]\nworkers = 7\n", 7),
        (DISK + '[rest]\ncpu_profile = "/tmp/profile"\n', 1),
        (DISK + 'layers = [{ layer = "throttle", upload = "1M" }]\n', 1),
        (DISK + 'layers = [{ layer = "trash", keep = "30 days" }]\n', CORES),
        ('[places.default]\nurl = "memory:"\n', 1),
    ],
)
def test_a_disk_is_served_by_as_many_processes_as_there_are_cores(
    text: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKUPGW_REST__WORKERS", raising=False)
    file = tmp_path / "backupgw.toml"
    file.write_text(text)
    assert options(load(file, {}, serving={"rest"})).workers == workers


def test_a_machine_of_many_cores_gets_no_more_than_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKUPGW_REST__WORKERS", raising=False)
    file = tmp_path / "backupgw.toml"
    file.write_text(DISK)
    settings = load(file, {}, serving={"rest"})
    for cores, workers in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, n=cores: set(range(n)))
        assert options(settings).workers == workers


def test_what_workers_have_in_common_is_in_memory_once(tmp_path: Path) -> None:
    flags = ["--prometheus", "--workers", "4"]
    with Gateway(tmp_path / "data", flags=flags) as server:
        root = server.process.pid
        assert len(process_tree.processes(root)) == 5
        process_tree.reset_peak(root)
        alone = process_tree.peak_sum_mib(root) / 5
        # Each further process costs a fraction of the first.
        assert process_tree.peak_mib(root) < 2.5 * alone
