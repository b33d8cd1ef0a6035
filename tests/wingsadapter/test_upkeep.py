"""Deletes, prune, retention and verification, by real restics and real jobs in one process."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.servers import peers
from tests.servers.panel import TOKEN, TOKEN_ID, Backup, Panel
from tests.servers.restic_key import make_cheap

from backupgw.runtime.database import open_database, sqlite_url
from backupgw.runtime.events.records import DamageFound, Event
from backupgw.runtime.jobs import Job, Jobs, State
from backupgw.runtime.restic import Restic, StopSignal, find_program
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings import load
from backupgw.runtime.settings_jobs import JobsSettings
from backupgw.wingsadapter.adapter import BackupRequest, BackupUnknown, Control, RestoreRequest
from backupgw.wingsadapter.node import Node, ResticPlan
from backupgw.wingsadapter.panel import Panel as PanelClient
from backupgw.wingsadapter.records import Records
from backupgw.wingsadapter.repositories import SHARED, Repositories
from backupgw.wingsadapter.restic_adapter import ResticAdapter
from backupgw.wingsadapter.settings import RetentionSettings, WingsSettings
from backupgw.wingsadapter.snapshots import SnapshotIndex
from backupgw.wingsadapter.upkeep import Upkeep

from .node_site import PASSWORD

pytestmark = [pytest.mark.peers(peers.RESTIC_NEW)]


class Site:
    """A repository with what looks after it, without a server in front."""

    def __init__(self, folder: Path, panel: PanelClient | None) -> None:
        config = folder / "backupgw.toml"
        config.write_text(f'[state]\nfolder = "{folder}/state"\n')
        state = folder / "state"
        state.mkdir()
        plan = ResticPlan(
            find_program(str(peers.get(peers.RESTIC_NEW).path)),
            str(folder / "repository"),
            None,
            Secret(PASSWORD),
            {},
            folder / "cache",
        )
        settings = load(config, environ={}, serving=())
        node = Node("", "", "", None, folder, folder, None, None)
        self.folder = folder
        self.repository = folder / "repository"
        self.records = Records(state / "wings.sqlite3")
        self.repositories = Repositories(settings, plan, state)
        self.repositories.start()
        self.restic: Restic = self.repositories.named(SHARED).restic
        self.restic.init()
        make_cheap(self.repository, PASSWORD)
        self.index = SnapshotIndex(self.repositories, self.records, 3600)
        self.index.start()
        self.adapter = ResticAdapter(self.repositories, self.index)
        self.told: list[Event] = []
        self.settings = WingsSettings(retention=RetentionSettings(last=1))
        self.upkeep = Upkeep(
            self.settings, node, self.repositories, self.index, self.records, panel, self
        )
        self.database = open_database(sqlite_url(state / "state.sqlite3"))
        self.jobs = Jobs(
            self.database, self.upkeep.handlers(), settings=JobsSettings(poll=0.1, here=4)
        )
        self.jobs.start()

    def publish(self, event: Event) -> bool:
        self.told.append(event)
        return True

    def run(self, what: str, arguments: dict[str, Any] | None = None) -> Job:
        job = self.jobs.submit(self.upkeep.kind(what), arguments)

        async def wait() -> Job:
            async with asyncio.timeout(60):
                return await self.jobs.wait(job.id)

        return asyncio.run(wait())

    def backup(self, server: str, backup: str | None = None) -> str:
        root = self.folder / "volumes" / server
        root.mkdir(parents=True, exist_ok=True)
        (root / "world").write_bytes(os.urandom(300_000))
        found = backup or str(uuid.uuid4())
        with StopSignal() as stop:
            self.adapter.create(BackupRequest(server, found, str(root)), Control(stop))
        return found

    def backups(self, server: str) -> list[str]:
        return [
            self.index.document(each, with_stats=False)["backup_uuid"]
            for each in self.index.of_server(server)
        ]

    def size(self) -> int:
        return sum(p.stat().st_size for p in (self.repository / "data").rglob("*") if p.is_file())

    def close(self) -> None:
        self.jobs.close()
        self.database.close()
        self.index.close()
        self.repositories.close()
        self.records.close()


@pytest.fixture
def double() -> Iterator[Panel]:
    with Panel() as found:
        yield found


@pytest.fixture
def site(tmp_path: Path, double: Panel) -> Iterator[Site]:
    client = PanelClient(double.url, TOKEN_ID, TOKEN)
    found = Site(tmp_path, client)
    yield found
    found.close()
    client.close()


def listed(double: Panel, backup: str, server: str) -> None:
    double.backups[backup] = Backup(backup, server, "restic", hidden=False, completed=1.0)


def test_a_delete_hides_at_once_forgets_then_and_frees_at_last(site: Site) -> None:
    server = str(uuid.uuid4())
    kept, gone = site.backup(server), site.backup(server)
    full = site.size()
    assert site.adapter.delete(server, gone)
    assert not site.adapter.delete(server, gone)
    assert site.backups(server) == [kept]
    assert len(site.restic.snapshots()) == 2
    # Others' looks do not bring it back, and a restart neither.
    site.index.look(site.repositories.named(SHARED))
    assert site.backups(server) == [kept]
    assert site.run("forget", {"repository": SHARED}).state is State.SUCCEEDED
    assert len(site.restic.snapshots()) == 1
    assert site.records.to_remove() == {}
    assert site.size() == full
    assert site.run("prune").state is State.SUCCEEDED
    assert site.size() < full * 0.7
    assert site.run("check").state is State.SUCCEEDED


def test_deletes_wait_for_backups(site: Site) -> None:
    server = str(uuid.uuid4())
    gone = site.backup(server)
    site.adapter.delete(server, gone)
    with StopSignal() as stop, site.repositories.named(SHARED).gate.together(stop):
        job = site.jobs.submit(site.upkeep.kind("forget"), {"repository": SHARED})
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(_wait(site.jobs, job.id), 1.0))
        assert len(site.restic.snapshots()) == 1
    done = asyncio.run(asyncio.wait_for(_wait(site.jobs, job.id), 30.0))
    assert done.state is State.SUCCEEDED
    assert site.restic.snapshots() == []


async def _wait(jobs: Jobs, job: str) -> Job:
    return await jobs.wait(job)


def test_retention_keeps_what_the_panel_lists(site: Site, double: Panel) -> None:
    server, other = str(uuid.uuid4()), str(uuid.uuid4())
    first, second, third = (site.backup(server) for _ in range(3))
    alone = site.backup(other)
    listed(double, first, server)
    done = site.run("retention")
    assert (done.state, done.result) == (State.SUCCEEDED, {"removed": 1})
    assert site.backups(server) == [first, third]
    assert site.backups(other) == [alone]
    assert second not in str(site.restic.snapshots())


def test_retention_removes_nothing_while_the_panel_is_away(site: Site, double: Panel) -> None:
    server = str(uuid.uuid4())
    made = [site.backup(server) for _ in range(2)]
    double.kill()
    assert site.run("retention").result == {"removed": 0}
    assert site.backups(server) == made


def test_damage_is_found_and_told(site: Site) -> None:
    server = str(uuid.uuid4())
    site.backup(server)
    largest = max((site.repository / "data").rglob("*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    largest.unlink()
    found = site.run("check")
    assert found.state is State.FAILED
    assert any(isinstance(event, DamageFound) for event in site.told)


def test_a_backup_that_was_made_already_is_not_made_again(site: Site) -> None:
    server, backup = str(uuid.uuid4()), str(uuid.uuid4())
    site.backup(server, backup)
    (snapshot,) = site.restic.snapshots()
    site.backup(server, backup)
    assert [each.id for each in site.restic.snapshots()] == [snapshot.id]


def test_a_tag_is_matched_exactly(site: Site) -> None:
    """What others have put into the repository is nobody's backup by accident."""
    server, backup = str(uuid.uuid4()), str(uuid.uuid4())
    root = site.folder / "volumes" / server
    root.mkdir(parents=True)
    (root / "x").write_text("x")
    for tags in (
        [f"backup_uuid:{backup}x", f"server_uuid:{server}"],
        [f"x-backup_uuid:{backup}", f"server_uuid:{server}"],
        [f"backup_uuid:{backup}", f"backup_uuid:{uuid.uuid4()}", f"server_uuid:{server}"],
        [f"backup_uuid:{backup.upper()}", f"server_uuid:{server}"],
    ):
        site.restic.backup([str(root)], tags=tags)
    site.index.look(site.repositories.named(SHARED))
    assert site.index.of_backup(backup, server) == []
    request = RestoreRequest(server, backup)
    with StopSignal() as stop, pytest.raises(BackupUnknown):
        site.adapter.find(request, Control(stop))
    mine = site.backup(server)
    stranger = replace(request, server=str(uuid.uuid4()), backup=mine, cross_server=False)
    with StopSignal() as stop:
        with pytest.raises(BackupUnknown):
            site.adapter.find(stranger, Control(stop))
        assert site.adapter.find(replace(stranger, cross_server=True), Control(stop)).size


def test_what_was_known_is_there_after_a_restart(site: Site) -> None:
    server = str(uuid.uuid4())
    made = site.backup(server)
    (snapshot,) = site.index.of_server(server)
    while site.index.size_of(snapshot) is None:
        site.index.wait_for_statistics([snapshot])
    again = SnapshotIndex(site.repositories, site.records, 3600)
    (site.repository / "config").rename(site.repository / "away")  # nobody can look just now
    try:
        again.start()
        (known,) = again.of_server(server)
        document = again.document(known, with_stats=True)
        assert document["backup_uuid"] == made
        assert document["size"] == 300_000
        assert document == site.index.document(snapshot, with_stats=True)
    finally:
        again.close()
        (site.repository / "away").rename(site.repository / "config")


def test_the_end_that_comes_just_before_a_look_is_not_missed(tmp_path: Path) -> None:
    repositories: Any = SimpleNamespace(per_server=True)  # of servers that are not known yet
    index = SnapshotIndex(repositories, Records(tmp_path / "wings.sqlite3"), 3600)

    class Early(threading.Event):
        """Whoever clears it is overtaken by who sets it."""

        def clear(self) -> None:
            index._closing.set()
            self.set()
            super().clear()

    index._wake = Early()
    index.start()
    index._threads[0].join(10)
    assert not index._threads[0].is_alive()
    index.close()
