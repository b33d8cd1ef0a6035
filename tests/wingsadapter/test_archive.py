"""Archives of the adapters `wings` and `s3`: whole, confined, and bounded in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.end_to_end import tree

from backupgw.wingsadapter.archive import ArchiveError, Made, Progress, make_archive
from backupgw.wingsadapter.archive_extract import extract_archive, inspect_archive
from backupgw.wingsadapter.archive_members import Limits
from backupgw.wingsadapter.ignore import NOTHING, IgnoreRules
from backupgw.wingsadapter.local_archives import LocalArchives
from backupgw.wingsadapter.wings_file import Compression

UUID = "a09316f2-c1df-44b9-8244-6c6789eb75a1"


class Folder:
    """A folder held open."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[[str], Folder]]:
    """Makes and opens folders; all are closed at the end."""
    opened = []

    def make(name: str) -> Folder:
        opened.append(Folder(tmp_path / name))
        return opened[-1]

    yield make
    for each in opened:
        os.close(each.fd)


def archive_of(root: Folder, rules: IgnoreRules = NOTHING) -> tuple[Made, bytes]:
    target = io.BytesIO()
    made = make_archive(root.fd, rules, target.write)
    return made, target.getvalue()


def unpacked(content: bytes, target: Folder, **options: object) -> None:
    extract_archive(io.BytesIO(content), target.fd, owner=None, **options)  # type: ignore[arg-type]


def tar_of(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An archive as somebody else may have made it."""
    target = io.BytesIO()
    with tarfile.open(mode="w:gz", fileobj=target) as tar:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def file(name: str, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_tree_comes_back_as_it_was(folder: Callable[[str], Folder]) -> None:
    source, target = folder("source"), folder("target")
    source.path.rmdir()
    tree.build_small(source.path)
    source = folder("source")
    wanted = {
        name: replace(each, twins=1, mode=each.mode & 0o777)
        for name, each in tree.describe(source.path).items()
    }
    made, content = archive_of(source)
    assert (made.size, made.sha1) == (len(content), hashlib.sha1(content).hexdigest())
    unpacked(content, target)
    assert tree.differences(wanted, tree.describe(target.path)) == []
    held = inspect_archive(io.BytesIO(content))
    assert (held.entries, held.content) == (len(wanted), made.content)
    # Anybody's tar reads it.
    listed = subprocess.run(["tar", "-tzf", "-"], input=content, capture_output=True, check=True)
    assert len(listed.stdout.splitlines()) == len(wanted)
    tree.remove(source.path)
    tree.remove(target.path)


def test_what_is_ignored_is_not_in_it(folder: Callable[[str], Folder]) -> None:
    source, target = folder("source"), folder("target")
    for path in ("logs/a.log", "world/level.dat", "world/session.lock", "keep/x.log"):
        (source.path / path).parent.mkdir(exist_ok=True)
        (source.path / path).write_text("x")
    _, content = archive_of(source, IgnoreRules.parse("/logs/\n*.lock\n*.log\n!keep/*.log"))
    unpacked(content, target)
    found = {str(path.relative_to(target.path)) for path in target.path.rglob("*")}
    assert found == {"world", "world/level.dat", "keep", "keep/x.log"}


def test_what_is_no_file_is_left_out_and_no_link_is_followed(
    folder: Callable[[str], Folder], tmp_path: Path
) -> None:
    source, target = folder("source"), folder("target")
    (tmp_path / "secret").write_text("secret")
    (source.path / "file").symlink_to(tmp_path / "secret")
    (source.path / "folder").symlink_to("/")
    os.mkfifo(source.path / "pipe")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(source.path / "socket"))
    made, content = archive_of(source)
    assert made.files == 0
    unpacked(content, target)
    assert sorted(os.listdir(target.path)) == ["file", "folder"]
    assert os.readlink(target.path / "file") == str(tmp_path / "secret")


def test_a_file_that_shrinks_meanwhile_is_filled_up_and_named(
    folder: Callable[[str], Folder],
) -> None:
    source, target = folder("source"), folder("target")
    victim = source.path / "region.mca"
    victim.write_bytes(b"x" * (3 << 20))

    def shrink(progress: Progress) -> None:
        if 0 < progress.bytes < 1 << 20:
            os.truncate(victim, 1 << 20)

    content = io.BytesIO()
    made = make_archive(source.fd, NOTHING, content.write, tell=shrink)
    assert (made.changed, made.changed_count) == (("region.mca",), 1)
    unpacked(content.getvalue(), target)
    found = (target.path / "region.mca").read_bytes()
    assert len(found) == 3 << 20
    assert found.strip(b"\0") == b"x" * (1 << 20)


def test_memory_does_not_grow_with_the_folder(folder: Callable[[str], Folder]) -> None:
    source, target = folder("source"), folder("target")
    for number in range(1200):
        (source.path / f"{number:05}").write_text("x")
    with open(source.path / "big", "wb") as big:
        big.truncate(60 << 20)
    size = 0

    def count(data: bytes) -> None:
        nonlocal size
        size += len(data)
        held.write(data)

    held = io.BytesIO()
    tracemalloc.start()
    try:
        make_archive(source.fd, NOTHING, count)
        made = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        unpacked(held.getvalue(), target)
        extracted = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A few pieces, and the names of one folder.
    assert made < 6 << 20
    assert extracted < 6 << 20


ESCAPES = {
    "up": tar_of(file("../outside")),
    "up in the middle": tar_of(file("a/../../outside")),
    "absolute": tar_of(file("/tmp/outside")),
    "through a link of its own": tar_of(link("a", ".."), (file("a/outside"), b"x")),
    "through a link of its own, absolute": tar_of(link("a", "OUTSIDE"), file("a/outside")),
    "through a chain": tar_of(link("a", "b"), link("b", ".."), file("a/outside")),
    "a hard link out": tar_of(link("a", "../secret", tarfile.LNKTYPE)),
    "a hard link through a link": tar_of(link("a", ".."), link("b", "a/secret", tarfile.LNKTYPE)),
    "a hard link to nothing": tar_of(link("a", "none", tarfile.LNKTYPE)),
    "a name too long": tar_of(file("x" * 300)),
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_no_archive_leads_out(kind: str, folder: Callable[[str], Folder], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    target = folder("target")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ArchiveError):
        unpacked(ESCAPES[kind], target)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "secret").read_text() == "secret"


def hostile_archive(draws: random.Random) -> bytes:
    """Entries of every kind, names and targets that lead everywhere, in any order."""
    names = [
        "a",
        "b",
        "a/b",
        "a/b/c",
        "./a",
        "a/.",
        "..",
        "../outside/x",
        "/tmp/x",
        "a/../../x",
        "c",
    ]
    targets = [".", "..", "/", "../outside", "OUTSIDE", "a", "b", "a/b", "../../outside", ""]
    kinds = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
    members: list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]] = []
    for _ in range(draws.randrange(1, 8)):
        info = tarfile.TarInfo(draws.choice(names))
        info.type = draws.choice(kinds)
        info.mode = 0o700 | draws.randrange(0o10000)
        info.mtime = draws.choice([0, 1, 2**33, -5])
        if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info.linkname = draws.choice(targets)
        members.append((info, b"overwritten") if info.isreg() else info)
    return tar_of(*members)


def test_no_mixture_of_entries_leads_out(folder: Callable[[str], Folder], tmp_path: Path) -> None:
    outside = folder("outside")
    (outside.path / "x").write_text("precious")
    (outside.path / "folder").mkdir()
    before = tree.describe(outside.path)
    draws = random.Random(11)
    whole = refused = 0
    for number in range(600):
        target = tmp_path / "targets" / str(number)
        target.mkdir(parents=True)
        for planted in draws.sample(["a", "b", "c"], draws.randrange(3)):
            (target / planted).symlink_to(draws.choice([str(outside.path), "../../outside/x", "."]))
        descriptor = os.open(target, os.O_RDONLY)
        try:
            content = hostile_archive(draws)
            extract_archive(io.BytesIO(content), descriptor, owner=None)
            whole += 1
        except ArchiveError:
            refused += 1
        finally:
            os.close(descriptor)
        assert tree.describe(outside.path) == before, number
        assert os.listdir(tmp_path / "targets") == [str(number)]
        shutil.rmtree(target)
    assert sorted(os.listdir(tmp_path)) == ["outside", "targets"]
    assert min(whole, refused) > 50


def test_links_in_the_way_are_replaced_not_followed(
    folder: Callable[[str], Folder], tmp_path: Path
) -> None:
    """The server's owner has linked to the outside, and then restores a backup."""
    outside, target = folder("outside"), folder("target")
    (outside.path / "precious").write_text("precious")
    (target.path / "config").symlink_to(outside.path / "precious")
    (target.path / "plugins").symlink_to(outside.path)
    plugins = tarfile.TarInfo("plugins")
    plugins.type, plugins.mode = tarfile.DIRTYPE, 0o755
    unpacked(tar_of((file("config"), b"new"), plugins, (file("plugins/x"), b"new")), target)
    assert (outside.path / "precious").read_text() == "precious"
    assert os.listdir(outside.path) == ["precious"]
    assert (target.path / "config").read_text() == "new"
    assert not (target.path / "plugins").is_symlink()
    assert (target.path / "plugins/x").read_text() == "new"


def test_rights_are_plain_and_devices_are_left_out(folder: Callable[[str], Folder]) -> None:
    target = folder("target")
    device = tarfile.TarInfo("device")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    content = tar_of(file("program", 0o6755), device, pipe)
    found = extract_archive(io.BytesIO(content), target.fd, owner=None)
    assert os.listdir(target.path) == ["program"]
    assert stat.S_IMODE((target.path / "program").stat().st_mode) == 0o755
    assert (found.entries, found.left_out) == (1, 2)


@pytest.mark.root
def test_owners_are_the_callers(folder: Callable[[str], Folder]) -> None:
    target = folder("target")
    content = tar_of(file("a/b/c"), link("a/l", "/etc/passwd"))
    extract_archive(io.BytesIO(content), target.fd, owner=(4711, 4712))
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in target.path.rglob("*")}
    assert owners == {(4711, 4712)}
    assert os.stat("/etc/passwd").st_uid != 4711


def test_single_paths_can_be_wanted(folder: Callable[[str], Folder]) -> None:
    target = folder("target")
    content = tar_of(file("world/level.dat"), file("world/x/y"), file("other"))
    unpacked(content, target, wanted=lambda names: names[0] == b"world")
    assert sorted(p.name for p in target.path.rglob("*")) == ["level.dat", "world", "x", "y"]


def damaged() -> dict[str, bytes]:
    draws = random.Random(4)
    good = tar_of((file("a"), draws.randbytes(100_000)), (file("b"), b"y" * 100_000))
    flipped = bytearray(good)
    flipped[len(flipped) // 2] ^= 1
    raw = gzip.decompress(good)
    return {
        "cut": good[:-200],
        "cut in the checksum": good[:-2],
        "a bit": bytes(flipped),
        "nothing": b"",
        "no gzip": b"x" * 1000,
        "no tar": gzip.compress(b"x" * 100_000),
        "cut tar": gzip.compress(raw[: len(raw) // 2]),
        "rubbish behind": good + b"rubbish",
        "a bomb behind": good + gzip.compress(bytes(80 << 20)),
        "header bit": gzip.compress(raw[:150] + b"\xff" + raw[151:]),
        "huge size": gzip.compress(raw[:124] + b"\x80" + b"\xff" * 11 + raw[136:]),
    }


@pytest.mark.parametrize("kind", damaged())
def test_damage_is_found_before_anything_is_written(kind: str) -> None:
    with pytest.raises(ArchiveError):
        inspect_archive(io.BytesIO(damaged()[kind]))


def test_an_archive_that_unpacks_to_too_much_is_ended(folder: Callable[[str], Folder]) -> None:
    bomb = tar_of((file("zeros"), bytes(50 << 20)))
    assert len(bomb) < 1 << 20
    target = folder("target")
    with pytest.raises(ArchiveError, match="more than the 1000000 bytes"):
        unpacked(bomb, target, limits=Limits(content=1_000_000))
    with pytest.raises(ArchiveError, match="more than 2 entries"):
        inspect_archive(
            io.BytesIO(tar_of(*(file(str(n)) for n in range(5)))), limits=Limits(entries=2)
        )
    assert os.listdir(target.path) == []


# -- the folder of archives


def test_an_archive_is_there_whole_or_not_at_all(
    folder: Callable[[str], Folder], tmp_path: Path
) -> None:
    source, target = folder("source"), folder("target")
    (source.path / "a").write_text("a")
    archives = LocalArchives(str(tmp_path / "backups"))
    assert archives.uuids() == []
    made = archives.make(UUID, source.fd, NOTHING, compression=Compression.NONE)
    assert archives.uuids() == [UUID]
    stored = tmp_path / "backups" / f"{UUID}.tar.gz"
    assert (stored.stat().st_size, stat.S_IMODE(stored.stat().st_mode)) == (made.size, 0o600)
    assert (archives.size(UUID), archives.sha1(UUID)) == (made.size, made.sha1)
    with open(archives.open(UUID), "rb") as content:
        extract_archive(content, target.fd, owner=None)
    assert (target.path / "a").read_text() == "a"

    def fail(progress: Progress) -> None:
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError):
        archives.make(UUID, source.fd, NOTHING, tell=fail)
    assert archives.sha1(UUID) == made.sha1  # the old one stands
    assert archives.leftovers() == []
    assert archives.delete(UUID)
    assert not archives.delete(UUID)
    assert os.listdir(tmp_path / "backups") == []


def test_what_a_killed_writer_left_is_named_and_removed(
    folder: Callable[[str], Folder], tmp_path: Path
) -> None:
    source = folder("source")
    archives = LocalArchives(str(tmp_path / "backups"))
    archives.make(UUID, source.fd, NOTHING)
    leftover = tmp_path / "backups" / f"{UUID}.tar.gz.new"
    leftover.write_text("half")
    assert (archives.uuids(), archives.leftovers()) == ([UUID], [UUID])
    archives.make(UUID, source.fd, NOTHING)
    assert archives.leftovers() == []
    leftover.write_text("half")
    archives.delete(UUID)
    assert os.listdir(tmp_path / "backups") == []


@pytest.mark.parametrize(
    "uuid", ["", "..", "../x", UUID.upper(), f"{UUID}/", f"{UUID}\n", "x" * 36, f"{UUID}\0"]
)
def test_only_canonical_uuids_name_an_archive(uuid: str, tmp_path: Path) -> None:
    archives = LocalArchives(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        archives.open(uuid)
    assert not archives.delete(uuid)


def test_a_link_in_the_folder_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / f"{UUID}.tar.gz").symlink_to(tmp_path / "secret")
    with pytest.raises(ArchiveError, match="it is a link"):
        LocalArchives(str(tmp_path)).open(UUID)


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_nothing(
    folder: Callable[[str], Folder], tmp_path: Path
) -> None:
    source = folder("source")
    (source.path / "noise").write_bytes(random.Random(1).randbytes(3 << 20))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        with pytest.raises(ArchiveError, match="No space left"):
            LocalArchives(str(small)).make(UUID, source.fd, NOTHING)
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_write_limit_holds(folder: Callable[[str], Folder], tmp_path: Path) -> None:
    source = folder("source")
    (source.path / "noise").write_bytes(random.Random(1).randbytes(3 << 20))
    begun = time.monotonic()
    LocalArchives(str(tmp_path / "backups"), write_limit=2).make(UUID, source.fd, NOTHING)
    assert time.monotonic() - begun > 1.2  # 3 MiB at 2 MiB a second, but for what may pass at once


def test_only_an_owners_own_attributes_come_back(folder: Callable[[str], Folder]) -> None:
    info = file("f")
    access = "user::rw-\nuser:5000:r--\ngroup::r--\nmask::r--\nother::---\n"
    info.pax_headers = {
        "SCHILY.xattr.user.note": "mine",
        "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04" + "\x00" * 14,
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.acl.access": access,
        "SCHILY.acl.default": "user:by-name:rwx",
    }
    target = folder("target")
    unpacked(tar_of(info), target)
    assert set(os.listxattr(target.path / "f")) == {"user.note", "system.posix_acl_access"}
    assert os.getxattr(target.path / "f", "user.note") == b"mine"
    found = os.getxattr(target.path / "f", "system.posix_acl_access")
    entries = list(struct.iter_unpack("<HHI", found[4:]))
    assert (entries[0][:2], entries[1], entries[-1][:2]) == ((1, 6), (2, 4, 5000), (0x20, 0))
