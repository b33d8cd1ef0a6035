"""restic while somebody else has the folder that it reads: links lead it nowhere else.

The trial is the real one: restic has listed a folder, and before it opens the files in there, the
folder's owner puts a link to another folder in its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backupgw.runtime.restic import (
    BackupResult,
    Repository,
    RepositoryRefused,
    Restic,
    ResticError,
    find_program,
)
from backupgw.runtime.restic.bridge import command_for
from tests.servers import peers
from tests.servers.restic_key import make_cheap
from tests.servers.sshd import Sshd

PASSWORD = "correct horse battery"
BOTH = (peers.RESTIC_OLD, peers.RESTIC_NEW)
TRIALS = 8
SECRET = b"the host's own secret"

pytestmark = [
    pytest.mark.peers(*BOTH, peers.RCLONE),
]


@dataclass
class Site:
    """A repository, and a customer's folder with somebody else's beside it.

    Attributes:
        root: the customer's.
        swapped: a folder in it, with a large file that is read before a file named as the secret.
        elsewhere: a folder with a secret.
    """

    restic: Restic
    root: Path

    @property
    def swapped(self) -> Path:
        return self.root / "swapped"

    @property
    def link(self) -> Path:
        return self.root / "zz"

    @property
    def elsewhere(self) -> Path:
        return self.root.parent / "elsewhere"

    def make(self) -> None:
        self.swapped.mkdir(parents=True)
        for number in range(40):
            (self.swapped / f"{number:02d}").write_bytes(os.urandom(1 << 20))
        (self.swapped / "secret").write_bytes(b"mine")
        (self.root / "plain").write_bytes(b"plain")
        self.elsewhere.mkdir()
        (self.elsewhere / "secret").write_bytes(SECRET)
        (self.elsewhere / "secret").chmod(0o600)
        self.link.symlink_to(self.elsewhere)

    def trials(self) -> Iterator[int]:
        """The customer may come too late, and tries again."""
        for number in range(TRIALS):
            for folder in (self.root, self.elsewhere):
                shutil.rmtree(folder, ignore_errors=True)
            self.make()
            yield number

    @contextlib.contextmanager
    def owner_at_work(self) -> Iterator[None]:
        """The customer: as soon as a file in the folder is opened, the folder is a link."""
        library = ctypes.CDLL(None, use_errno=True)
        watch = library.inotify_init1(os.O_CLOEXEC)
        assert (
            library.inotify_add_watch(watch, os.fsencode(self.swapped / "00"), 0x20) > 0
        )  # IN_OPEN
        done = threading.Event()

        def swap() -> None:
            os.read(watch, 4096)
            here, there = os.fsencode(self.swapped), os.fsencode(self.link)
            if library.renameat2(-100, here, -100, there, 2) == 0:  # RENAME_EXCHANGE
                done.set()

        thread = threading.Thread(target=swap, daemon=True)
        thread.start()
        try:
            yield
            assert done.wait(10), "the folder was not exchanged"
        finally:
            thread.join(10)
            os.close(watch)

    def back_up(self, *, confined: bool) -> BackupResult:
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self.owner_at_work():
                return self.restic.backup(
                    [str(self.root)],
                    flags=[("--read-concurrency", "1")]
                    if self.restic.program.version > (0, 15)
                    else [],
                    confined_to=[folder] if confined else None,
                )
        finally:
            os.close(folder)

    def restored(self, result: BackupResult, target: Path) -> dict[str, bytes]:
        """What the customer gets back: by the path below the folder."""
        self.restic.restore(result.summary.snapshot, str(target))
        base = target / str(self.root)[1:]
        return {
            str(path.relative_to(base)): path.read_bytes()
            for path in base.rglob("*")
            if path.is_file() and not path.is_symlink()
        }


@pytest.fixture(params=BOTH)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    restic = Restic(
        find_program(str(peers.get(request.param).path)),
        Repository(str(tmp_path / "repository"), PASSWORD),
        cache=tmp_path / "cache",
    )
    restic.init()
    make_cheap(tmp_path / "repository", PASSWORD)
    return Site(restic, tmp_path / "customer")


def test_a_link_in_a_folders_place_leads_nowhere(site: Site, tmp_path: Path) -> None:
    # The trial is one that works: without confinement the secret is the customer's.
    assert any(
        site.restored(site.back_up(confined=False), tmp_path / f"first-{number}").get(
            "swapped/secret"
        )
        == SECRET
        for number in site.trials()
    )
    for number in site.trials():
        result = site.back_up(confined=True)
        got = site.restored(result, tmp_path / f"second-{number}")
        assert SECRET not in got.values()
        assert got["plain"] == b"plain"
        if not result.complete:
            assert any("secret" in error.item for error in result.errors)
            return
    pytest.fail("restic was never led to the link")


@pytest.mark.parametrize("way", ["sftp", "rclone"])
def test_ssh_and_rclone_run_beside_it(way: str, tmp_path: Path) -> None:
    """They read keys and settings that a confined restic may not, and it reaches its repository."""
    (tmp_path / "customer").mkdir()
    (tmp_path / "customer" / "file").write_bytes(b"content")
    programs = tmp_path / "programs"
    programs.mkdir()
    with contextlib.ExitStack() as stack:
        environ = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        if way == "sftp":
            sshd = stack.enter_context(Sshd(tmp_path / "sshd"))
            address = f"sftp:{sshd.user}@host.example:{tmp_path}/repository"
            # What a user has in ~/.ssh/config.
            ssh = shutil.which("ssh")
            client = sshd.client().replace("ssh ", f"{ssh} -o HostName=127.0.0.1 ", 1)
            (programs / "ssh").write_text(f'#!/bin/sh\nexec {client} "$@"\n')
            (programs / "ssh").chmod(0o755)
        else:
            (programs / "rclone").symlink_to(peers.get(peers.RCLONE).path)
            (tmp_path / "rclone.conf").write_text("[there]\ntype = local\n")
            environ["RCLONE_CONFIG"] = str(tmp_path / "rclone.conf")
            address = f"rclone:there:{tmp_path}/repository"
        restic = Restic(
            find_program(str(peers.get(peers.RESTIC_NEW).path)),
            Repository(address, PASSWORD),
            environ=environ,
        )
        restic.init()
        make_cheap(tmp_path / "repository", PASSWORD)
        folder = os.open(tmp_path / "customer", os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, folder)
        result = restic.backup([str(tmp_path / "customer")], confined_to=[folder])
        assert result.complete
        assert [each.id for each in restic.snapshots()] == [result.summary.snapshot]
        if way == "sftp":  # what ssh says counts
            (tmp_path / "sshd" / "authorized_keys").write_text("")
            with pytest.raises(RepositoryRefused):
                restic.backup([str(tmp_path / "customer")], confined_to=[folder])


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("sftp:host:/srv/r", "ssh host -s sftp"),
        ("sftp:user@host:r", "ssh host -l user -s sftp"),
        ("sftp:dom\\user@mail@host:r", "ssh host -l dom\\user@mail -s sftp"),
        ("sftp://host//srv/r", "ssh host -s sftp"),
        ("sftp://user@[::1]:2222//srv/r", "ssh ::1 -p 2222 -l user -s sftp"),
        ("rclone:b2:bucket/r", "rclone serve restic --stdio --b2-hard-delete b2:bucket/r"),
        ("s3:https://host/bucket", ""),
        ("/srv/sftp:x", ""),
    ],
)
def test_the_commands_are_restics(address: str, command: str, tmp_path: Path) -> None:
    """By what restic itself would run."""
    assert " ".join(command_for(address)) == command
    if not command:
        return
    name = command.split()[0]
    ran = tmp_path / "ran"
    (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" > {ran}\nexit 1\n')
    (tmp_path / name).chmod(0o755)
    restic = Restic(
        find_program(str(peers.get(peers.RESTIC_NEW).path)),
        Repository(address, PASSWORD),
        environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    with pytest.raises(ResticError):
        restic.exists()
    assert ran.read_text().strip() == command
