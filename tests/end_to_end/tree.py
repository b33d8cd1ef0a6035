"""Real files to back up: a source tree, binaries, many small files, and the awkward ones.

Built from what any machine with Python has, the same way each time. `describe` tells all of a
tree that a restore must bring back, so that two trees are compared as two dictionaries.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import sysconfig
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from tests.servers import peers

WANTED_BYTES = 310 << 20
"""A little over the 300 MB that the main job has to move."""
SOURCE_BYTES = 110 << 20
SMALL_FILES = 3000
MTIME = 1_700_000_000
"""Seconds since the epoch, of the files made here."""


@dataclass(frozen=True)
class Entry:
    """What a restore must bring back of a file, folder or symlink."""

    kind: str
    mode: int
    size: int
    content: str
    """SHA-256 of a file, target of a symlink."""
    mtime_ns: int
    twins: int
    """How many names the file has."""


def build(root: Path) -> None:
    """Make the whole tree, at least WANTED_BYTES of it."""
    root.mkdir()
    _copy_source(root / "source")
    _small_files(root / "small")
    _awkward(root / "awkward")
    _binaries(root / "binaries", WANTED_BYTES - _bytes_below(root))


def build_small(root: Path) -> None:
    """Make the awkward part alone, about 3 MB."""
    root.mkdir()
    _awkward(root / "awkward")


def change(root: Path, seed: int) -> None:
    """Edit, add, remove, rename and re-mode files, as a day's work does."""
    source = random.Random(seed)
    files = sorted(path for path in root.rglob("*") if _plain(path) and os.access(path, os.W_OK))
    for path in source.sample(files, min(60, len(files))):
        what = source.randrange(5)
        if what == 0:
            path.unlink()
        elif what == 1:
            path.rename(path.with_name(path.name[:200] + " renamed"))
        elif what == 2:
            path.chmod(0o640)
        else:
            with path.open("ab") as stream:
                stream.write(source.randbytes(source.randrange(1, 200_000)))
    added = root / f"added {seed}"
    added.mkdir()
    for number in range(50):
        (added / f"{number}").write_bytes(source.randbytes(source.randrange(100_000)))


def remove(root: Path) -> None:
    """Delete a tree that `build` or a restore made."""
    shutil.rmtree(root)


def describe(root: Path) -> dict[bytes, Entry]:
    """Tell of everything below `root`, by its name in bytes."""
    found: dict[bytes, Entry] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, base)] = _entry(path)
    return found


def differences(wanted: dict[bytes, Entry], found: dict[bytes, Entry]) -> list[str]:
    """Say in lines how a restored tree differs; an empty list is a good restore."""
    lines = [f"lost: {name!r}" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"extra: {name!r}" for name in sorted(found.keys() - wanted.keys())]
    lines += [
        f"differs: {name!r}: {wanted[name]} became {found[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    return lines


def _entry(path: bytes) -> Entry:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return Entry("symlink", 0, 0, os.fsdecode(os.readlink(path)), 0, 1)
    if stat.S_ISDIR(status.st_mode):
        return Entry("folder", mode, 0, "", status.st_mtime_ns, 1)
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Entry("file", mode, status.st_size, digest, status.st_mtime_ns, status.st_nlink)


def _copy_source(target: Path) -> None:
    """Copy the standard library and what is installed beside it, up to SOURCE_BYTES."""
    for number, key in enumerate(("stdlib", "purelib")):
        left = SOURCE_BYTES - (_bytes_below(target) if target.exists() else 0)
        _copy_some(Path(sysconfig.get_path(key)), target / str(number), left)


def _copy_some(source: Path, target: Path, most: int) -> None:
    """Copy files in the order of their names until `most` bytes are there."""
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(set(folders) - {"__pycache__", "site-packages"})
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            path = Path(folder, name)
            if not _plain(path) or not os.access(path, os.R_OK):
                continue
            most -= path.stat().st_size
            if most < 0:
                return
            shutil.copy2(path, place / name)


def _binaries(target: Path, wanted: int) -> None:
    """Copy programs until `wanted` bytes are there; what lacks is made up, half of it random."""
    target.mkdir()
    source = random.Random(wanted)
    candidates = sorted(Path("/usr/bin").iterdir()) + [
        peer.path for peer in peers.load().peers.values()
    ]
    for number, path in enumerate(candidates):
        if wanted <= 0:
            return
        if _plain(path) and os.access(path, os.R_OK) and path.stat().st_size > 100_000:
            shutil.copy2(path, target / f"{number} {path.name}")
            (target / f"{number} {path.name}").chmod(0o755)
            wanted -= path.stat().st_size
    number = 0
    while wanted > 0:
        block = source.randbytes(4 << 20) + bytes(4 << 20)
        (target / f"made up {number}").write_bytes(block)
        wanted -= len(block)
        number += 1


def _small_files(target: Path) -> None:
    source = random.Random(1)
    for number in range(SMALL_FILES):
        folder = target / f"{number % 40:02}"
        folder.mkdir(parents=True, exist_ok=True)
        text = f"{number}\n" * source.randrange(1, 400)
        (folder / f"note {number}.txt").write_text(text)


def _awkward(target: Path) -> None:
    """Names, kinds and modes that tools get wrong."""
    target.mkdir()
    umlaut = "Größe, naïve café"
    names = [
        "plain",
        " leading blank",
        "trailing blank ",
        "two  blanks",
        "tab\tin it",
        "new\nline",
        "quote'single",
        'quote"double',
        "back\\slash",
        "star*question?[a]",
        "$HOME `id` $(id)",
        "-rf",
        "#hash %41 %2F & ;",
        "...",
        "..two dots",
        unicodedata.normalize("NFC", "NFC " + umlaut),
        unicodedata.normalize("NFD", "NFD " + umlaut),
        unicodedata.normalize("NFC", umlaut),
        unicodedata.normalize("NFD", umlaut),
        "日本語 файл ملف 🗄️",
        "x" * 255,
    ]
    for name in names:
        (target / name).write_text(f"I am {name!r}\n")
    # Not UTF-8: a name is bytes.
    with open(os.fsencode(target) + b"/latin1 \xe4\xf6\xfc", "wb") as stream:
        stream.write(b"latin")
    for name in ("empty", "empty too"):
        (target / name).touch()
    for mode in (0o400, 0o444, 0o600, 0o640, 0o755, 0o777, 0o4755, 0o2755):
        path = target / f"mode {mode:04o}"
        path.write_text("x")
        path.chmod(mode)
    deep = target
    for number in range(60):
        deep /= f"deep {number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("here")
    for name in ("empty folder", "sticky folder", "folder\nwith a line"):
        (target / name).mkdir()
    (target / "sticky folder").chmod(0o1777)
    for name, goal in {
        "link": "plain",
        "link to a folder": "empty folder",
        "dangling": "nowhere/at all",
        "absolute": "/nonexistent/ünï",
        "loop": "loop",
        "up": "../../..",
    }.items():
        (target / name).symlink_to(goal)
    original = target / "original"
    original.write_bytes(random.Random(2).randbytes(200_000))
    for name in ("twin 1", "twin 2"):
        (target / name).hardlink_to(original)
    with (target / "sparse").open("wb") as stream:
        stream.seek(8 << 20)
        stream.write(b"the end")
    (target / "random").write_bytes(random.Random(3).randbytes(2 << 20))
    for path in target.rglob("*"):
        if not path.is_symlink():
            os.utime(path, ns=(MTIME * 10**9 + 123, MTIME * 10**9 + 456))


def _plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _bytes_below(root: Path) -> int:
    return sum(path.lstat().st_size for path in root.rglob("*") if _plain(path))
