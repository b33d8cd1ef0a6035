"""restic as the gateway runs it: the oldest that is supported and the newest, for real."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backupgw.runtime.restic import (
    BackupStatus,
    Limits,
    Message,
    Repository,
    RepositoryLocked,
    RepositoryMissing,
    Restic,
    ResticKilled,
    ResticStopped,
    ResticUnusable,
    SnapshotMissing,
    SourceMissing,
    StopSignal,
    WrongPassword,
    find_program,
)
from backupgw.runtime.restic.errors import from_exit
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.restic_key import make_cheap

PASSWORD = "correct horse battery"
BOTH = (peers.RESTIC_OLD, peers.RESTIC_NEW)

pytestmark = [
    pytest.mark.peers(*BOTH),
]


@pytest.fixture(params=BOTH)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Restic:
    """A restic without a repository yet."""
    return Restic(
        find_program(str(peers.get(request.param).path)),
        Repository(str(tmp_path / "repository"), PASSWORD),
        cache=tmp_path / "cache",
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An empty repository of each version, which opens quickly, to be copied."""
    found = {}
    for name in BOTH:
        program = find_program(str(peers.get(name).path))
        folder = tmp_path_factory.mktemp("template") / "repository"
        Restic(program, Repository(str(folder), PASSWORD)).init()
        make_cheap(folder, PASSWORD)
        found[program.path] = folder
    return found


@pytest.fixture
def restic(empty: Restic, templates: dict[str, Path]) -> Restic:
    """A restic with a repository that opens quickly."""
    shutil.copytree(templates[empty.program.path], empty.repository.url)
    return empty


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "--exclude=x").mkdir(parents=True)
    (folder / "--exclude=x" / "a[b]*").write_bytes(b"content")
    (folder / "plain").write_bytes(bytes(range(256)) * 64)
    (folder / "link").symlink_to("plain")
    return folder


def locks(restic: Restic) -> list[str]:
    return os.listdir(Path(restic.repository.url) / "locks")


def big(tmp_path: Path) -> Path:
    """A tree that takes a while where uploads are limited to some hundred KiB a second."""
    folder = tmp_path / "big"
    folder.mkdir()
    for number in range(8):
        (folder / str(number)).write_bytes(os.urandom(2 << 20))
    return folder


@contextlib.contextmanager
def running(restic: Restic, folder: Path, stop: StopSignal) -> Iterator[list[BaseException | None]]:
    """A backup on a thread, which has its lock and has begun to read."""
    begun = threading.Event()
    outcome: list[BaseException | None] = []

    def back_up() -> None:
        try:
            restic.backup([str(folder)], stop=stop, on_message=lambda _: begun.set())
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=back_up)
    thread.start()
    try:
        assert begun.wait(60)
        yield outcome
    finally:
        stop.set()
        thread.join(60)


class TestProgram:
    def test_both_versions_are_known(self) -> None:
        for name in BOTH:
            peer = peers.get(name)
            found = find_program(str(peer.path))
            assert found.version == peer.numbers
            assert peer.version in found.shown

    def test_a_missing_one_is_a_line_with_advice(self, tmp_path: Path) -> None:
        with pytest.raises(ResticUnusable, match="no restic in PATH; install restic"):
            find_program(path=str(tmp_path))
        with pytest.raises(ResticUnusable, match="there is no /nowhere/restic"):
            find_program("/nowhere/restic")

    @pytest.mark.parametrize(
        ("says", "why"),
        [("restic 0.12.1 compiled with go1.18", r"restic 0\.12\.1; install 0\.14 or newer"),
         ("GNU hello 2.10", "does not say which version")],
    )  # fmt: skip
    def test_another_or_an_old_one_is_refused(self, tmp_path: Path, says: str, why: str) -> None:
        program = tmp_path / "restic"
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)
        with pytest.raises(ResticUnusable, match=why):
            find_program(str(program))

    def test_a_file_that_is_no_program_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "restic").write_text("x")
        with pytest.raises(ResticUnusable, match="cannot be run"):
            find_program(str(tmp_path / "restic"))


class TestCycle:
    def test_backup_list_stats_and_restore(
        self, restic: Restic, tree: Path, tmp_path: Path
    ) -> None:
        told: list[Message] = []
        result = restic.backup(
            [str(tree)], tags=["backup_uuid:1", "-x"], host="h", on_message=told.append
        )
        assert result.complete
        assert result.summary.bytes == 256 * 64 + 7
        assert result.summary.added > 0
        (found,) = restic.snapshots(tags=["-x"], host="h")
        assert found.id.startswith(result.summary.snapshot[:8])
        assert (found.paths, found.tags, found.host) == (
            (str(tree),), ("backup_uuid:1", "-x"), "h",
        )  # fmt: skip
        # Exact: the beginning of a tag is none.
        assert restic.snapshots(tags=["backup_uuid:"]) == []
        counted = restic.stats(found.id)
        assert counted.bytes == 256 * 64 + 7
        nodes: list[str] = []
        restic.list_nodes(found.id, lambda node: nodes.append(node.path))
        assert f"{tree}/--exclude=x/a[b]*" in nodes
        target = tmp_path / "restored"
        restic.restore(found.id, str(target))
        back = Path(f"{target}{tree}")
        assert (back / "--exclude=x" / "a[b]*").read_bytes() == b"content"
        assert (back / "link").readlink() == Path("plain")
        only = tmp_path / "only"
        restic.restore(found.id, str(only), include=[f"{tree}/--exclude=x/a[b]*"])
        assert sorted(os.listdir(f"{only}{tree}")) == ["--exclude=x"]
        restic.forget([found.id])
        restic.forget([found.id])
        restic.prune()
        restic.check(read_data="all")
        assert restic.snapshots() == []

    def test_a_folder_of_a_snapshot(self, restic: Restic, tree: Path, tmp_path: Path) -> None:
        snapshot = restic.backup([str(tree)]).summary.snapshot
        target = tmp_path / "restored"
        if not restic.program.restores_subfolders:
            with pytest.raises(ResticUnusable, match="restores no folders"):
                restic.restore(snapshot, str(target), folder=str(tree))
            return
        restic.restore(snapshot, str(target), folder=str(tree))
        assert sorted(os.listdir(target)) == ["--exclude=x", "link", "plain"]

    def test_a_source_that_is_partly_there_is_an_incomplete_snapshot(
        self, restic: Restic, tree: Path, tmp_path: Path
    ) -> None:
        result = restic.backup([str(tree), str(tmp_path / "gone")])
        # 0.14 says nothing of it.
        assert result.complete is (restic.program.version < (0, 17))
        with pytest.raises(SourceMissing):
            restic.backup([str(tmp_path / "gone")])

    def test_a_policy_removes_nothing_by_itself(self, restic: Restic, tree: Path) -> None:
        for _ in range(2):
            restic.backup([str(tree)], host="h")
        (group,) = restic.policy([("--keep-last", "1"), ("--group-by", "host")])
        assert (len(group.keep), len(group.remove)) == (1, 1)
        assert len(restic.snapshots()) == 2

    def test_limits_and_compression_are_taken(self, restic: Restic, tree: Path) -> None:
        limited = replace(restic, limits=Limits(10 << 20, 10 << 20, "max"))
        assert limited.backup([str(tree)]).complete


class TestErrors:
    def test_no_repository(self, empty: Restic) -> None:
        assert not empty.exists()
        with pytest.raises(RepositoryMissing) as caught:
            empty.snapshots()
        assert not caught.value.retryable

    def test_a_wrong_password(self, restic: Restic) -> None:
        wrong = replace(restic, repository=Repository(restic.repository.url, "wrong horse"))
        with pytest.raises(WrongPassword, match="wrong password"):
            wrong.exists()

    def test_a_snapshot_that_is_not_there(self, restic: Restic, tmp_path: Path) -> None:
        for wrong in ("0" * 64, "latest", "--help", "../../etc", "abc"):
            with pytest.raises(SnapshotMissing):
                restic.restore(wrong, str(tmp_path / "restored"))
        assert not (tmp_path / "restored").exists()

    @pytest.mark.parametrize(
        "said",
        [
            "Fatal: unable to open config file: Stat: Access Denied.",
            "Fatal: unable to open config file: dial tcp 10.0.0.1:443: connect: connection refused",
            "Fatal: unable to open config file: context deadline exceeded",
            "Fatal: unable to open config file: unexpected HTTP response (403): 403 Forbidden",
        ],
    )
    def test_a_failure_to_look_is_not_the_lack_of_a_repository(self, said: str) -> None:
        assert not isinstance(from_exit(1, [said], what="restic cat"), RepositoryMissing)

    def test_tags_and_paths_that_would_be_something_else_are_refused(self, restic: Restic) -> None:
        with pytest.raises(ValueError, match="no commas"):
            restic.backup(["/x"], tags=["a,server_uuid:victim"])
        for path in ("x", "/a/../b", "/a\0b"):
            with pytest.raises(ValueError, match="absolute path"):
                restic.backup([path])

    def test_secrets_are_nowhere(self, tmp_path: Path) -> None:
        repository = Repository(
            "rest:http://user:s3cret%2Fpass@127.0.0.1:1/r/", PASSWORD,
            {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "AWS_ACCESS_KEY_ID": "AKIAIOSF"},
        )  # fmt: skip
        text = f"{repository!r} {repository.shown} " + repository.scrub(
            f"{PASSWORD} s3cret/pass s3cret%2Fpass wJalrXUtnFEMI {repository.url}"
        )
        for secret in (PASSWORD, "s3cret", "wJalr"):
            assert secret not in text

    def test_an_ignore_line_prints_no_password(
        self, restic: Restic, tree: Path, tmp_path: Path
    ) -> None:
        patterns = tmp_path / "patterns"
        patterns.write_text("[$RESTIC_PASSWORD\n[$AWS_SECRET_ACCESS_KEY\n")
        keyed = replace(
            restic,
            repository=replace(
                restic.repository, environment={"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"}
            ),
        )
        with pytest.raises(Exception, match=r"pattern|exclude") as caught:
            keyed.backup([str(tree)], exclude_file=str(patterns))
        assert PASSWORD not in str(caught.value)
        assert "wJalr" not in str(caught.value)


class TestRunning:
    def test_password_and_address_are_in_no_argument_and_no_variable(
        self, restic: Restic, tmp_path: Path
    ) -> None:
        seen: list[bytes] = []

        def look(_message: Message) -> None:
            for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
                for pid in child.read_text().split():
                    with contextlib.suppress(OSError):
                        seen.append(
                            Path(f"/proc/{pid}/cmdline").read_bytes()
                            + Path(f"/proc/{pid}/environ").read_bytes()
                        )

        slow = replace(restic, limits=Limits(upload=2 << 20))
        with StopSignal() as stop:

            def once(message: Message) -> None:
                if isinstance(message, BackupStatus):
                    look(message)
                    stop.set()

            with pytest.raises(ResticStopped):
                slow.backup([str(big(tmp_path))], on_message=once, stop=stop)
        assert any(b"backup" in each for each in seen)
        for each in seen:
            assert PASSWORD.encode() not in each
            assert restic.repository.url.encode() not in each

    def test_a_stopped_one_leaves_no_lock(self, restic: Restic, tmp_path: Path) -> None:
        slow = replace(restic, limits=Limits(upload=2 << 20))
        with StopSignal() as stop:
            with running(slow, big(tmp_path), stop) as outcome:
                assert locks(restic)
            assert isinstance(outcome[0], ResticStopped)
        assert locks(restic) == []

    def test_one_that_does_not_stop_is_killed(self, restic: Restic, tmp_path: Path) -> None:
        slow = replace(restic, limits=Limits(upload=64 << 10), grace=0.2)
        with StopSignal() as stop:
            with running(slow, big(tmp_path), stop) as outcome:
                pass
            assert isinstance(outcome[0], ResticStopped)

    def test_a_living_lock_is_respected_and_a_dead_one_removed(
        self, restic: Restic, tmp_path: Path
    ) -> None:
        slow = replace(restic, limits=Limits(upload=2 << 20), grace=0.1)
        with StopSignal() as stop, running(slow, big(tmp_path), stop) as outcome:
            with pytest.raises(RepositoryLocked) as caught:
                restic.prune()
            assert caught.value.retryable
            assert caught.value.holder is not None
            holder = caught.value.holder.pid
            assert outcome == []
            os.kill(holder, signal.SIGKILL)
            while not outcome:
                assert not stop.is_set
                threading.Event().wait(0.02)
            assert isinstance(outcome[0], ResticKilled)
        assert locks(restic)
        restic.prune()
        assert locks(restic) == []

    def test_it_ends_with_a_gateway_that_is_killed(self, restic: Restic, tmp_path: Path) -> None:
        script = f"""
            import sys
            from pathlib import Path
            from backupgw.runtime.restic import *
            restic = Restic(
                find_program({restic.program.path!r}),
                Repository({restic.repository.url!r}, {PASSWORD!r}),
                limits=Limits(upload=200 << 10),
            )
            restic.backup(
                [{str(big(tmp_path))!r}], on_message=lambda _: print("begun", flush=True)
            )
        """
        gateway = Child([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
        with gateway:
            assert gateway.stdout is not None
            assert gateway.stdout.readline() == b"begun\n"
            children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
            descriptors = [os.pidfd_open(int(pid)) for pid in children]
            gateway.kill()
        try:
            assert descriptors
            for descriptor in descriptors:
                assert _ended(descriptor, 40)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _ended(descriptor: int, timeout: float) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def test_what_is_handed_over_lies_on_no_disk(restic: Restic) -> None:
    with restic.repository.handed_over({}) as (variables, descriptors):
        for descriptor in descriptors:
            assert stat.S_ISREG(os.fstat(descriptor).st_mode)
            assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")
        assert PASSWORD not in json.dumps(variables)
