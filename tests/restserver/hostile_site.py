"""A store with canaries all around it, and the checks that nothing got out or in.

    FOLDER/canary                      beside the root
    FOLDER/outside/…                   a whole repository beside the root
    FOLDER/store-beside/…              one whose name starts like the root's
    FOLDER/store/                      the root that is served
    FOLDER/store/good/                 a repository that must stay as it is
    FOLDER/store/busy/                 the repository of the working client

Every file outside holds CANARY; seeing that text in a response is a leak. Reading is noticed too:
the files' access times lie before their modification times, which makes every read of the contents
move them (where the file system keeps access times at all, see `keeps_access_times`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.restserver.hostile_wire import PATIENCE, Hangs, Malformed, Wire

CANARY = b"canary-7c1f-that-nobody-may-read"
SENTINEL = b"the sentinel: a valid request on the same connection got this answer"
SMUGGLED = b"the answer that only a smuggled request gets"
TYPES = ("data", "index", "keys", "locks", "snapshots")

OUTSIDE_BLOB = hashlib.sha256(CANARY).hexdigest()
SENTINEL_ID = hashlib.sha256(SENTINEL).hexdigest()
SMUGGLED_ID = hashlib.sha256(SMUGGLED).hexdigest()


def make_repository(root: Path, contents: bytes) -> None:
    """A repository on disk with one blob and a config, both holding `contents`."""
    for kind in TYPES:
        (root / kind).mkdir(parents=True, mode=0o700)
    for number in range(256):
        (root / "data" / f"{number:02x}").mkdir(mode=0o700)
    add_blob(root, contents)
    (root / "config").write_bytes(contents)


def add_blob(root: Path, contents: bytes) -> Path:
    """Put a blob under its right name into data/ and return its path."""
    name = hashlib.sha256(contents).hexdigest()
    path = root / "data" / name[:2] / name
    path.write_bytes(contents)
    return path


@dataclass(frozen=True)
class Entry:
    """What must stay the same of a file or folder outside the root."""

    mode: int
    inode: int
    links: int
    modified: int
    accessed: int | None
    contents: bytes


class Site:
    """The folder; `outside` is everything in it but the root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "store"
        self.root.mkdir(mode=0o700)
        self.canary = folder / "canary"
        self.canary.write_bytes(CANARY)
        for name in ("outside", "store-beside"):
            make_repository(folder / name, CANARY)
        make_repository(self.root / "good", SENTINEL)
        make_repository(self.root / "busy", SENTINEL)
        add_blob(self.root / "good", SMUGGLED)
        for path in self._outside():
            if path.is_file():
                os.utime(path, ns=(1_000_000_000, 2_000_000_000))
        self._accessed = keeps_access_times(folder)
        self._before = self._snapshot()

    def _outside(self) -> Iterator[Path]:
        for path in self.folder.rglob("*"):
            if path != self.root and self.root not in path.parents:
                yield path

    def _snapshot(self) -> dict[str, Entry]:
        found = {}
        for path in self._outside():
            facts = path.lstat()
            contents = b""
            if stat.S_ISREG(facts.st_mode):
                # O_NOATIME: our own look must not be what moves the access time.
                descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
                with open(descriptor, "rb") as file:
                    contents = file.read()
            accessed = facts.st_atime_ns if contents and self._accessed else None
            found[str(path)] = Entry(
                facts.st_mode, facts.st_ino, facts.st_nlink, facts.st_mtime_ns, accessed, contents
            )
        return found

    def check_outside(self) -> None:
        """Raise AssertionError where a file outside was read, written, made or removed."""
        now = self._snapshot()
        for path in self._before.keys() | now.keys():
            assert now.get(path) == self._before.get(path), f"{path} was touched"

    def inside(self) -> set[str]:
        """Files and folders below the root, the working client's and the kernel's own aside."""
        found: set[str] = set()
        for folder, folders, files in os.walk(self.root):
            folders[:] = [f for f in folders if not f.startswith(".backupgw") and f != "busy"]
            names = [*folders, *(f for f in files if not f.startswith(".backupgw"))]
            found.update(os.path.relpath(os.path.join(folder, name), self.root) for name in names)
        return found


def keeps_access_times(folder: Path) -> bool:
    """Whether reading a file moves its access time here (not under noatime)."""
    probe = folder / "probe"
    probe.write_bytes(b"x")
    os.utime(probe, ns=(1_000_000_000, 2_000_000_000))
    probe.read_bytes()
    moved = probe.stat().st_atime_ns != 1_000_000_000
    probe.unlink()
    return moved


class WorkingClient(threading.Thread):
    """A client that does what restic does, over and over, while others attack.

    Each turn uploads a new blob, lists, asks for its length, reads it back, removes it. `failures`
    says what it noticed; `longest` is its longest turn in seconds.
    """

    def __init__(self, address: tuple[str, int], login: bytes = b"") -> None:
        """`login` is a whole header line with its line end, or nothing."""
        super().__init__(name="working client", daemon=True)
        self._address = address
        self._login = login
        self._stopping = threading.Event()
        self._first = threading.Event()
        self.turns = 0
        self.longest = 0.0
        self.failures: list[str] = []

    def run(self) -> None:
        wire = Wire(self._address)
        try:
            # A pause between turns leaves the cores to the attack, which is what is under test.
            while not self._stopping.wait(0.02) and not self.failures:
                start = time.monotonic()
                self._turn(wire)
                self.longest = max(self.longest, time.monotonic() - start)
                self.turns += 1
                self._first.set()
        except (OSError, Malformed, Hangs) as error:
            self.failures.append(f"turn {self.turns}: {error!r}")
        finally:
            wire.__exit__()
            self._first.set()

    def _turn(self, wire: Wire) -> None:
        contents = hashlib.sha256(b"%d" % self.turns).digest() * 2000
        name = hashlib.sha256(contents).hexdigest()
        target = b"/busy/data/" + name.encode()
        kind = b"Accept: application/vnd.x.restic.rest.v2\r\n"
        self._expect(
            wire, 200, b"POST", target, b"Content-Length: %d\r\n" % len(contents), contents
        )
        listed = self._expect(wire, 200, b"GET", b"/busy/data/", kind)
        if name.encode() not in listed:
            self.failures.append(f"turn {self.turns}: its blob is not in the list")
        self._expect(wire, 200, b"HEAD", target)
        if self._expect(wire, 206, b"GET", target, b"Range: bytes=0-\r\n") != contents:
            self.failures.append(f"turn {self.turns}: its blob came back changed")
        self._expect(wire, 200, b"DELETE", target)

    def _expect(
        self,
        wire: Wire,
        status: int,
        method: bytes,
        target: bytes,
        extra: bytes = b"",
        body: bytes = b"",
    ) -> bytes:
        extra = self._login + extra
        wire.send(b"%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n%s" % (method, target, extra, body))
        answer = wire.response(to_head=method == b"HEAD")
        if answer is None or answer.status != status:
            self.failures.append(f"turn {self.turns}: {method!r} got {answer}")
            return b""
        return answer.body

    def __enter__(self) -> WorkingClient:
        """Start, and come back when the first turn is done."""
        self.start()
        self._first.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join(60)

    def check(self) -> None:
        """Raise AssertionError where it noticed anything; it must have been stopped."""
        assert not self.is_alive(), "the working client hangs"
        assert not self.failures, f"the working client noticed: {self.failures}"
        assert self.turns > 0, "the working client got nowhere"
        assert self.longest < PATIENCE, f"the working client waited {self.longest:.1f} s"
