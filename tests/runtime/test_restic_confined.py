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
    Restic,
    find_program,
)
from tests.servers import peers
from tests.servers.restic_key import make_cheap

PASSWORD = "correct horse battery"
BOTH = (peers.RESTIC_OLD, peers.RESTIC_NEW)
SECRET = b"the host's own secret"

pytestmark = [
    pytest.mark.peers(*BOTH),
    pytest.mark.xdist_group("restic-confined"),
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
    def elsewhere(self) -> Path:
        return self.root.parent / "elsewhere"

    def make(self) -> None:
        self.swapped.mkdir(parents=True)
        for number in range(12):
            (self.swapped / f"{number:02d}").write_bytes(os.urandom(4 << 20))
        (self.swapped / "secret").write_bytes(b"mine")
        (self.root / "plain").write_bytes(b"plain")
        self.elsewhere.mkdir()
        (self.elsewhere / "secret").write_bytes(SECRET)
        (self.elsewhere / "secret").chmod(0o600)

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
            self.swapped.rename(self.root / "zz")
            self.swapped.symlink_to(self.elsewhere)
            done.set()

        thread = threading.Thread(target=swap, daemon=True)
        thread.start()
        try:
            yield
            assert done.wait(10), "restic did not open the file that was watched"
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
    found = Site(restic, tmp_path / "customer")
    found.make()
    return found


def test_a_link_in_a_folders_place_leads_nowhere(site: Site, tmp_path: Path) -> None:
    # The trial is one that works: without confinement the secret is the customer's.
    got = site.restored(site.back_up(confined=False), tmp_path / "first")
    assert got["swapped/secret"] == SECRET
    shutil.rmtree(site.root)
    shutil.rmtree(site.elsewhere)
    site.make()
    result = site.back_up(confined=True)
    assert not result.complete
    assert any("secret" in error.item for error in result.errors)
    got = site.restored(result, tmp_path / "second")
    assert SECRET not in got.values()
    assert got["plain"] == b"plain"
