"""The data that every server of a run works on: packs to read, a huge listing, files to back up.

Made once a run, from fixed seeds, straight on disk in restic's repository layout, which all the
servers share; what the page cache holds is therefore the same for each of them.
"""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

from benchmarks.load import Blob

TYPES = ("data", "index", "keys", "locks", "snapshots")
MIB = 1 << 20
SHARES = ((0.05, 1 << 10, 32 << 10), (0.2, MIB, MIB), (0.25, 32 * MIB, 32 * MIB))


def make_repository(root: Path) -> None:
    """The folders and the (empty) config of a repository, as rest-server makes them."""
    for kind in TYPES:
        (root / kind).mkdir(parents=True, mode=0o700)
    for number in range(256):
        (root / "data" / f"{number:02x}").mkdir(mode=0o700)
    (root / "config").touch(mode=0o600)


def make_packs(store: Path, repo: str, count: int, size: int) -> list[Blob]:
    """`count` packs of `size` random bytes; they stay in the page cache by having been written."""
    root = store / repo
    make_repository(root)
    blobs = []
    for number in range(count):
        contents = random.Random(number).randbytes(size)
        name = hashlib.sha256(contents).hexdigest()
        path = root / "data" / name[:2] / name
        path.write_bytes(contents)
        blobs.append(Blob(str(path), f"/{repo}/data/{name}", size))
    return blobs


def make_listing(store: Path, repo: str, count: int) -> str:
    """A repository of `count` blobs, sparse files of realistic sizes; returns the list's target.

    The names are hashes, so they fall evenly into data/00 to data/ff.
    """
    root = store / repo
    make_repository(root)
    folders = [os.open(root / "data" / f"{n:02x}", os.O_RDONLY) for n in range(256)]
    try:
        for number in range(count):
            digest = hashlib.sha256(number.to_bytes(8, "big"))
            name = digest.hexdigest()
            size = 16 * MIB + int.from_bytes(digest.digest()[:2], "big")
            descriptor = os.open(
                name,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                0o600,
                dir_fd=folders[digest.digest()[0]],
            )
            os.truncate(descriptor, size)
            os.close(descriptor)
    finally:
        for folder in folders:
            os.close(folder)
    return f"/{repo}/data/"


def make_tree(root: Path, total: int) -> None:
    """A tree of about `total` bytes in two halves, `first` and `second`.

    A tenth lies in small files of 1 to 32 KiB, four tenths in files of 1 MiB, half in files of
    32 MiB; every fourth file is text that compresses, the others are random bytes.
    """
    choose = random.Random("tree")
    for half in ("first", "second"):
        for share, low, high in SHARES:
            left = int(total * share)
            number = 0
            while left > 0:
                size = min(left, choose.randint(low, high))
                folder = root / half / f"{high}" / f"{number // 200:03d}"
                folder.mkdir(parents=True, exist_ok=True)
                contents = choose.randbytes(size)
                if number % 4 == 0:
                    contents = contents[: size // 2].hex().encode()
                (folder / f"{number:05d}").write_bytes(contents)
                left -= size
                number += 1


def tree_digest(root: Path) -> str:
    """One hash over the names and contents of all files below `root`."""
    whole = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{os.path.relpath(path, root)}\0{digest}\n".encode())
    return whole.hexdigest()


def remove_blobs(repo: Path) -> int:
    """Remove the blobs of data/, leave the folders, return how many there were."""
    removed = 0
    for folder in os.scandir(repo / "data"):
        if folder.is_dir():
            for blob in os.scandir(folder.path):
                os.unlink(blob.path)
                removed += 1
        else:
            os.unlink(folder.path)
            removed += 1
    return removed
