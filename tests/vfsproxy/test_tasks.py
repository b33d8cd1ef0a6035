"""What takes long: purge, clone, snapshots, other owners, scans; done, or told why not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.faults.volumes import held, sharing

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.walking import walk
from backupgw.runtime.jobs import Job, JobStopped, State, Stop
from backupgw.vfsproxy.event_records import DriftCorrected, FolderPurged
from backupgw.vfsproxy.folders import catalogue, people, snapshots
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.records import Folder, Holder, Kind, Limits, Permission, Status
from backupgw.vfsproxy.identity import MANAGER
from backupgw.vfsproxy.problems import FolderChanged, Problem
from backupgw.vfsproxy.tasks import snapshots as snapshot_tasks
from backupgw.vfsproxy.tasks.arguments import CleanupTask, TransferTask
from backupgw.vfsproxy.tasks.cloning import submit_clone
from backupgw.vfsproxy.tasks.ending import submit_purge
from backupgw.vfsproxy.tasks.scanning import submit_orphans, submit_scan
from backupgw.vfsproxy.tasks.transfer import Transfer, submit_transfer

from .conftest import Inside, user

ALICE, BOB = user("alice"), user("bob")


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Inside]:
    """A core that runs tasks; nothing by the calendar."""
    never = 'schedule = { scan = "", cleanup = "", orphans = "" }'
    found = Inside(tmp_path, vfs=never)
    with found.core:
        found.core.tasks.start()
        yield found


def done(inside: Inside, job: Job, state: State = State.SUCCEEDED) -> Job:
    last = job
    for _, told in inside.core.tasks.jobs.watch([job.id]):
        assert told is not None
        last = told
    assert last.state is state, last.error
    return last


def made(inside: Inside, name: str = "docs", **wanted: object) -> tuple[Folder, Backend]:
    folder = inside.lifecycle.create(ALICE, Wanted(name=name, **wanted))  # type: ignore[arg-type]
    return folder, files_of(inside, folder)


def files_of(inside: Inside, folder: Folder) -> Backend:
    return inside.core.folders.resolve(MANAGER, folder.id, Permission.OWNER).files


def content(place: Backend) -> dict[str, bytes]:
    return {found.path: place.load(found.path) for found in walk(place) if not found.info.directory}


def found(inside: Inside, folder: Folder) -> Folder | None:
    with inside.core.database.read() as connection:
        return catalogue.find(connection, folder.id)


def used(inside: Inside, scope: str) -> tuple[int, int]:
    usage = inside.core.accounts.usage(scope)
    assert usage.reserved == (0, 0)
    return usage.used.bytes, usage.used.objects


def test_a_purge_leaves_nothing_and_follows_no_link(working: Inside, tmp_path: Path) -> None:
    folder, files = made(working)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for number in range(20):
        files.store(f"a/b{number % 3}/c{number}", bytes(100))
    (working.volume / folder.path / "link").symlink_to(outside)
    (working.volume / folder.path / "a" / "b0" / "link").symlink_to(outside / "kept")
    with pytest.raises(Problem) as refused:
        submit_purge(working.core, ALICE, folder.id)
    assert refused.value.code == "folder-not-ready"
    working.lifecycle.delete(ALICE, folder.id)
    assert used(working, "vfs:user:alice") == (2000, 20), "what can be restored still counts"
    job = done(working, submit_purge(working.core, ALICE, folder.id))
    assert job.result == {"files": 20}
    assert found(working, folder) is None
    assert used(working, "vfs:user:alice") == (0, 0)
    assert used(working, folder.scope) == (0, 0)
    assert (outside / "kept").read_text() == "kept"
    assert not list((working.volume / "folders").iterdir())
    assert FolderPurged in [type(event) for event in working.told]


def test_a_clone_has_the_same_files_and_no_links(working: Inside, tmp_path: Path) -> None:
    folder, files = made(working)
    files.store("a/deep/file", b"1" * 1000)
    files.store("empty", b"")
    files.mkdir("nothing/in it")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (working.volume / folder.path / "link").symlink_to(secret)
    clone, job = submit_clone(working.core, ALICE, folder.id, Wanted(name="copy"))
    with pytest.raises(Problem):
        working.core.folders.resolve(ALICE, clone.id, Permission.READ_WRITE)
    done(working, job)
    copied = files_of(working, clone)
    assert content(copied) == {"a/deep/file": b"1" * 1000, "empty": b""}
    assert copied.info("nothing/in it").directory
    assert used(working, clone.scope) == (1000, 2)
    assert used(working, "vfs:user:alice") == (2000, 4)


def test_a_clone_that_fails_stays_with_the_reason(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", bytes(1000))
    working.core.accounts.set_limits("vfs:user:alice", Limits(bytes=1500))
    with working.core.database.begin() as connection:
        people.set_limits(connection, Holder(Kind.USER, "alice"), Limits(bytes=1500))
    clone, job = submit_clone(working.core, ALICE, folder.id, Wanted(name="copy"))
    working.core.tasks.jobs.cancel(job.id)
    for _ in working.core.tasks.jobs.watch([job.id]):
        pass
    # Cancelled before or while it ran: either way nothing but the clone is touched.
    assert content(files_of(working, folder)) == {"file": bytes(1000)}
    kept = found(working, clone)
    assert kept is not None
    assert kept.status in (Status.ERROR, Status.CLONING)
    assert used(working, "vfs:user:alice") == (1000, 1)


def test_a_folder_that_is_being_cloned_is_not_purged(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", b"x")
    working.lifecycle.create(ALICE, Wanted(name="clone"), status=Status.CLONING, source=folder.id)
    working.lifecycle.delete(ALICE, folder.id)
    job = submit_purge(working.core, ALICE, folder.id)
    for _, told in working.core.tasks.jobs.watch([job.id]):
        assert told is not None
        if told.error is not None:
            assert "being cloned" in told.error
            break
    working.core.tasks.cancel(ALICE, job.id)
    assert (working.volume / folder.path / "file").exists()


def test_a_snapshot_brings_back_what_was(working: Inside) -> None:
    folder, files = made(working)
    files.store("kept", b"as it was")
    files.store("changed", b"before")
    files.store("gone/later", b"1")
    files.store("was a file", b"2")
    before = content(files)
    snapshot, job = snapshot_tasks.submit_create(working.core, ALICE, folder.id, "monday", None)
    done(working, job)
    assert used(working, folder.scope)[1] == 8, "copies count"
    files = files_of(working, folder)
    files.store("changed", b"after!")
    files.delete("gone/later")
    files.rmdir("gone")
    files.store("gone", b"a file now")
    files.delete("was a file")
    files.store("was a file/now a folder", b"3")
    files.store("new", b"4")
    result = done(
        working, snapshot_tasks.submit_restore(working.core, ALICE, folder.id, snapshot.id)
    )
    assert content(files_of(working, folder)) == before
    assert result.result["kept"] == 1
    with pytest.raises(Problem) as taken:
        snapshot_tasks.submit_create(working.core, ALICE, folder.id, "monday", None)
    assert taken.value.code == "snapshot-exists"
    done(working, snapshot_tasks.submit_delete(working.core, ALICE, folder.id, snapshot.id))
    assert used(working, folder.scope)[1] == 4
    with working.core.database.read() as connection:
        assert snapshots.of_folder(connection, folder.id, "", 10) == []


def test_a_snapshot_keeps_what_a_mount_writes_into(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", b"before")
    snapshot, job = snapshot_tasks.submit_create(working.core, ALICE, folder.id, "now", None)
    done(working, job)
    with (working.volume / folder.path / "file").open("r+b") as mounted:
        mounted.write(b"AFTER!")
    kept = working.volume / "snapshots" / folder.id / snapshot.id / "file"
    assert kept.read_bytes() == b"before"
    done(working, snapshot_tasks.submit_restore(working.core, ALICE, folder.id, snapshot.id))
    assert content(files_of(working, folder)) == {"file": b"before"}


@pytest.mark.root("mkfs.btrfs")
def test_a_disk_that_shares_blocks_has_copies_for_nothing(tmp_path: Path) -> None:
    """Clones, snapshots and what they bring back take no room; to the accounts they are files."""
    with sharing(tmp_path, "btrfs") as volume:
        inside = Inside(volume, vfs='schedule = { scan = "", cleanup = "", orphans = "" }')
        with inside.core:
            inside.core.tasks.start()
            folder, files = made(inside)
            data = os.urandom(16 << 20)
            files.store("deep/file", data)
            before = held(volume)
            snapshot, job = snapshot_tasks.submit_create(inside.core, ALICE, folder.id, "now", None)
            done(inside, job)
            clone, job = submit_clone(inside.core, ALICE, folder.id, Wanted(name="clone"))
            done(inside, job)
            assert used(inside, "vfs:user:alice") == (3 * len(data), 3)
            with (inside.volume / folder.path / "deep/file").open("r+b") as mounted:
                mounted.write(b"written through a mount")
            job = snapshot_tasks.submit_restore(inside.core, ALICE, folder.id, snapshot.id)
            done(inside, job)
            assert held(volume) - before < 4 << 20
            for each in (folder, clone):
                assert content(files_of(inside, each)) == {"deep/file": data}
            with inside.core.database.read() as connection:
                kept = snapshots.find(connection, folder.id, snapshot.id)
            assert kept is not None
            assert kept.method == "reflink"


def test_a_snapshot_is_of_one_moment(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", b"before")
    access = working.core.folders.resolve(ALICE, folder.id, Permission.READ_WRITE)
    late = access.files.open_writer("late")
    late.write(b"x")
    _, job = snapshot_tasks.submit_create(working.core, ALICE, folder.id, "now", None)
    done(working, job)
    with pytest.raises(FolderChanged):
        late.commit()
    late.abort()


def test_a_transfer_moves_what_counts(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", bytes(1000))
    bob = Holder(Kind.USER, "bob")
    with pytest.raises(Problem) as refused:
        submit_transfer(working.core, ALICE, folder.id, bob)
    assert refused.value.status == 403
    with working.core.database.begin() as connection:
        people.ensure_user(connection, "bob")
        people.set_limits(connection, bob, Limits(bytes=999))
    failed = done(working, submit_transfer(working.core, MANAGER, folder.id, bob), State.FAILED)
    assert failed.error is not None
    assert "no room" in failed.error
    assert used(working, "vfs:user:alice") == (1000, 1)
    with working.core.database.begin() as connection:
        people.set_limits(connection, bob, Limits(bytes=1000))
    done(working, submit_transfer(working.core, MANAGER, folder.id, bob))
    assert used(working, "vfs:user:alice") == (0, 0)
    assert used(working, "vfs:user:bob") == (1000, 1)
    access = working.core.folders.resolve(BOB, folder.id, Permission.OWNER)
    access.files.delete("file")
    assert used(working, "vfs:user:bob") == (0, 0)
    scan = done(working, submit_scan(working.core, MANAGER, "main"))
    assert scan.result["corrections"] == []


class Dying:
    """A task's context in a process that dies when a step has had its effect."""

    def __init__(self, *, dies: bool) -> None:
        self.job = SimpleNamespace(id="transfer")
        self._dies = dies

    def step(
        self, _name: str, call: Callable[[], str], *, unsure: Callable[[], str] | None = None
    ) -> str:
        if not self._dies:
            assert unsure is not None
            return unsure()
        call()
        raise JobStopped(Stop.LOST)

    def check(self) -> None:
        pass

    def progress(self, *_: object, **__: object) -> None:
        pass


def test_a_transfer_that_died_half_way_is_finished_and_counted(inside: Inside) -> None:
    folder, files = made(inside)
    files.store("file", bytes(1000))
    files_of(inside, made(inside, "other")[0]).store("file", bytes(10))
    transfer = Transfer(inside.core)
    task = TransferTask(folder=folder.id, actor="manager", kind="user", owner="bob")
    with pytest.raises(JobStopped):
        transfer(Dying(dies=True), task)  # type: ignore[arg-type]
    between = found(inside, folder)
    assert between is not None
    assert (between.status, between.holder.name) == (Status.PERFORMING, "alice")
    transfer(Dying(dies=False), task)  # type: ignore[arg-type]
    assert used(inside, "vfs:user:alice") == (10, 1)
    assert used(inside, "vfs:user:bob") == (1000, 1)
    assert inside.core.folders.resolve(BOB, folder.id, Permission.OWNER).files.info("file").exists


def test_a_scan_corrects_what_came_behind_our_back(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", bytes(100))
    (working.volume / folder.path / "planted").write_bytes(bytes(50))
    job = done(working, submit_scan(working.core, MANAGER, "main"))
    assert (job.result["bytes"], job.result["files"]) == (150, 2)
    assert used(working, folder.scope) == (150, 2)
    assert used(working, "vfs:user:alice") == (150, 2)
    told = [event for event in working.told if isinstance(event, DriftCorrected)]
    assert {event.scope for event in told} == {folder.scope, "vfs:user:alice"}
    with pytest.raises(Problem) as refused:
        submit_scan(working.core, ALICE, "main")
    assert refused.value.status == 403


def test_orphans_are_found_and_removed_when_asked(working: Inside) -> None:
    folder, files = made(working)
    files.store("file", b"x")
    orphan = working.volume / "folders" / "ab" / "cd" / ("e" * 28)
    orphan.mkdir(parents=True)
    (orphan / "left").write_bytes(bytes(10))
    staged = working.volume / "staging" / ("f" * 32)
    staged.mkdir(parents=True)
    job = done(working, submit_orphans(working.core, MANAGER, "main", remove=False))
    assert job.result["count"] == 2
    paths = {each["path"] for each in job.result["orphans"]}
    assert paths == {f"folders/ab/cd/{'e' * 28}", f"staging/{'f' * 32}"}
    assert orphan.exists()
    done(working, submit_orphans(working.core, MANAGER, "main", remove=True))
    assert not orphan.exists()
    assert content(files_of(working, folder)) == {"file": b"x"}


def test_cleanup_ends_what_has_had_its_time(working: Inside) -> None:
    core = working.core
    temporary, files = made(working, "temporary", lifetime=3600)
    files.store("file", b"x")
    old, _ = made(working, "old")
    working.lifecycle.delete(ALICE, old.id)
    stuck, _ = made(working, "stuck")
    with core.database.begin() as connection:
        catalogue.change(connection, temporary.id, expires=catalogue.now(connection) - 1)
        catalogue.change(connection, old.id, deleted=catalogue.now(connection) - 8 * 86_400)
    with core.database.begin() as connection:
        from backupgw.runtime.database.tables.vfs import vfs_folders

        connection.execute(
            vfs_folders.update()
            .where(vfs_folders.c.id == stuck.id)
            .values(status="delete-ongoing", job="gone", changed=1.0)
        )
    job = done(working, core.tasks.submit("vfs.cleanup", CleanupTask(), key=None))
    assert {key: job.result[key] for key in ("expired", "purged", "stuck")} == {
        "expired": 1,
        "purged": 1,
        "stuck": 1,
    }
    for purge in core.tasks.jobs.list(kind="vfs.purge"):
        done(working, purge)
    assert found(working, old) is None
    ended = found(working, temporary)
    assert ended is not None
    assert ended.status is Status.DELETE_PENDING
    left = found(working, stuck)
    assert left is not None
    assert (left.status, left.reason) == (
        Status.DELETE_ERROR,
        "the task that worked on it is gone",
    )
    done(working, submit_purge(core, ALICE, stuck.id))


def test_tasks_are_seen_by_those_whom_they_concern(working: Inside) -> None:
    folder, _ = made(working)
    working.lifecycle.delete(ALICE, folder.id)
    job = done(working, submit_purge(working.core, ALICE, folder.id))
    tasks = working.core.tasks
    assert tasks.find(ALICE, job.id).id == job.id
    assert [each.id for each in tasks.listed(ALICE, folder=folder.id, states=(), limit=10)] == [
        job.id
    ]
    for act in (tasks.find, tasks.cancel):
        with pytest.raises(Problem) as refused:
            act(BOB, job.id)
        assert refused.value.status == 404
    with pytest.raises(Problem):
        tasks.listed(BOB, folder=None, states=(), limit=10)
