"""Single-file archives: what comes back, and what cannot be done with a bad one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest
import zstandard

from backupgw.kvstore.backends.base import Backend, Writer
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.layers.encrypt_age import Key
from backupgw.kvstore.layers.encrypt_keys import key_text
from backupgw.kvstore.layers.wrapped import WrappedWriter
from backupgw.kvstore.registry import open_place
from backupgw.providers.backup import archives
from backupgw.providers.backup.archive_creating import Created, create
from backupgw.providers.backup.archive_restoring import Overwrite, Restore, Restored
from backupgw.providers.backup.patterns import Patterns
from backupgw.providers.backup.tar_format import END, Member, header, padding
from backupgw.providers.backup.tree import Selection
from tests.end_to_end import tree

SECRET = bytes(range(32))
NOON = datetime(2027, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Backend]:
    backend = open_place(f"file://{tmp_path}/place")
    backend.create()
    backend.open()
    yield backend
    backend.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    tree.build_small(root)
    return root


def backed_up(
    place: Backend, *paths: Path, key: Key | None = None, time: datetime = NOON, **more: object
) -> Created:
    selection = Selection([str(path) for path in paths], **more)  # type: ignore[arg-type]
    return create({"here": place}, selection, host="nas", set_name="home", time=time, key=key)


def restored(
    place: Backend, target: Path, *wanted: str, key: Key | None = None, **more: object
) -> Restored:
    target.mkdir(exist_ok=True)
    [archive] = archives.find(place)
    restore = Restore(str(target), Patterns(wanted), **more)  # type: ignore[arg-type]
    with closing(restore):
        return restore.run(lambda: archives.ArchiveReader(place, archive, key))


def awkward(root: Path) -> None:
    """What only a good archive brings back."""
    (root / "holes").mkdir()
    for name, data in (("middle", [(1 << 20, b"x" * 5000)]), ("end", [(0, b"y" * 4096)])):
        with (root / "holes" / name).open("wb") as file:
            for offset, content in data:
                file.seek(offset)
                file.write(content)
            file.truncate(64 << 20)
    with (root / "holes" / "nothing").open("wb") as file:
        file.truncate(8 << 20)
    with (root / "holes" / "many").open("wb") as file:
        for number in range(300):
            file.seek(number * 65536)
            file.write(b"%d" % number)
    (root / "attributed").write_bytes(b"a")
    os.setxattr(root / "attributed", "user.colour", b"gr\xfc\0n\n")
    os.setxattr(root / "attributed", "user." + "n" * 200, b"v" * 1000)
    (root / "old").write_bytes(b"o")
    os.utime(root / "old", ns=(0, -1_500_000_000))
    os.utime(root, ns=(0, 1_700_000_000_123_456_789))
    os.mkfifo(root / "pipe", 0o640)
    (root / ("deep/" * 60)).mkdir(parents=True)
    (root / ("deep/" * 60) / ("n" * 250)).write_bytes(b"deep")
    os.symlink("t" * 300, root / "long link")
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chown(root / "old", 3_000_000, 1234)
        os.lchown(root / "long link", 7, 8)
        os.setxattr(root, "trusted.mark", b"root's")


def all_of(root: Path) -> dict[bytes, object]:
    """Everything that a file system tells of a tree, but for inode numbers."""
    twins: dict[int, bytes] = {}
    found: dict[bytes, object] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        for name in sorted([*folders, *files, b"."]):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode)
            content: object = None
            if regular:
                content = hash(Path(os.fsdecode(path)).read_bytes())
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, base)] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev,
                status.st_size if regular else 0, content,
                twins.setdefault(status.st_ino, path.removeprefix(base)) if regular else None,
                {each: os.getxattr(path, each, follow_symlinks=False)
                 for each in os.listxattr(path, follow_symlinks=False)},
            )  # fmt: skip
    return found


@pytest.mark.parametrize("encrypted", [False, True], ids=["open", "age"])
def test_everything_comes_back(
    place: Backend, source: Path, tmp_path: Path, *, encrypted: bool
) -> None:
    awkward(source)
    key = Key(SECRET) if encrypted else None
    made = backed_up(place, source, key=key)
    assert made.errors == {"here": None}
    assert made.counts.problems == []
    wanted = all_of(source)
    done = restored(place, tmp_path / "back", key=key)
    assert done.problems == []
    back = Path(f"{tmp_path}/back{source}")
    assert all_of(back) == wanted
    assert done.members == made.counts.members
    assert (back / "holes" / "end").stat().st_blocks * 512 < 1 << 20
    [archive] = archives.find(place)
    assert (archive.host, archive.set, archive.time) == ("nas", "home", NOON)
    assert archive.size < 20 << 20, "holes are not stored"
    content = place.load(archive.item)
    assert (b"AGE" in content[:20].upper()) == encrypted


def test_other_programs_open_it(place: Backend, source: Path, tmp_path: Path) -> None:
    """By hand, years later: age, zstd and GNU tar are enough."""
    awkward(source)
    backed_up(place, source, key=Key(SECRET))
    [archive] = archives.find(place)
    identity = pyrage.x25519.Identity.from_str(key_text(SECRET))
    packed = pyrage.decrypt(place.load(archive.item), [identity])
    plain = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    target = tmp_path / "by hand"
    target.mkdir()
    done = subprocess.run(
        ["tar", "-x", "--numeric-owner", "--xattrs", "--xattrs-include=*"],
        input=plain, cwd=target, capture_output=True, check=True,
    )  # fmt: skip
    assert b"time stamp" in done.stderr or done.stderr == b"", "only the old time is remarked on"
    assert all_of(Path(f"{target}{source}")) == all_of(source)


def test_a_part_comes_back_by_pattern(place: Backend, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "first").write_bytes(b"content")
    os.link(source / "a" / "first", source / "a" / "b" / "second")
    os.link(source / "a" / "first", source / "a" / "b" / "third")
    (source / "a" / "b" / "x.txt").write_bytes(b"x")
    (source / "y.txt").write_bytes(b"y")
    backed_up(place, source)
    done = restored(place, tmp_path / "1", "*.txt")
    assert done.members == 2
    below = Path(f"{tmp_path}/1{source}")
    assert sorted(str(p.relative_to(below)) for p in below.rglob("*") if p.is_file()) == [
        "a/b/x.txt", "y.txt",
    ]  # fmt: skip
    # What is wanted is another name of what is not: its content comes all the same.
    done = restored(place, tmp_path / "2", str(source / "a" / "b"))
    below = Path(f"{tmp_path}/2{source}/a")
    assert (below / "b" / "second").read_bytes() == b"content"
    assert (below / "b" / "second").samefile(below / "b" / "third")
    assert not (below / "first").exists()
    assert done.members == 4
    assert done.problems == []


def test_excludes(place: Backend, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("keep.txt", "no.tmp", "cache/c", "a/b/deep.log", "marked/stays", "marked/x/y"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"1")
    (source / "cache" / "CACHEDIR.TAG").write_bytes(
        b"Signature: 8a477f597d28d172789f06886806bc55\n"
    )
    (source / "marked" / ".nobackup").touch()
    backed_up(place, source, exclude=["*.tmp", f"{source}/a/**/*.log"], if_present=[".nobackup"])
    restored(place, tmp_path / "back")
    back = Path(f"{tmp_path}/back{source}")
    assert sorted(str(p.relative_to(back)) for p in back.rglob("*")) == [
        "a", "a/b", "cache", "cache/CACHEDIR.TAG", "keep.txt", "marked", "marked/.nobackup",
    ]  # fmt: skip


def planted(place: Backend, *members: tuple[Member, bytes]) -> None:
    """Put an archive there that somebody else has written."""
    tar = b"".join(header(m) + content + padding(len(content)) for m, content in members) + END
    about = json.dumps(
        {
            "members": len(members),
            "tar_sha256": hashlib.sha256(tar).hexdigest(),
            "tar_bytes": len(tar),
        }
    ).encode()
    frame = b"\x5b\x2a\x4d\x18" + len(about).to_bytes(4, "little") + about
    name = archives.item_name("nas", "home", NOON, encrypted=False)
    place.store(name, zstandard.ZstdCompressor().compress(tar) + frame)


def member(name: bytes, mode: int, **more: object) -> Member:
    return Member(name, mode, os.geteuid(), os.getegid(), 10**18, **more)  # type: ignore[arg-type]


def test_nothing_leaves_the_target(place: Backend, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"before")
    link = os.fsencode(outside)
    up = b"../outside"
    bad = b"pwned!"
    planted(
        place,
        (member(b"link", stat.S_IFLNK | 0o777, link=link), b""),
        (member(b"link/secret", stat.S_IFREG | 0o644, size=6), bad),
        (member(b"link/new", stat.S_IFREG | 0o644, size=6), bad),
        (member(b"link", stat.S_IFDIR | 0o777), b""),
        (member(up + b"/up", stat.S_IFREG | 0o644, size=6), bad),
        (member(b"/" + link + b"/root", stat.S_IFREG | 0o644, size=6), bad),
        (member(b"ok/../../outside/dots", stat.S_IFREG | 0o644, size=6), bad),
        (member(b"hard", stat.S_IFREG | 0o644, hard=True, link=b"link/secret"), b""),
        (member(b"there/secret", stat.S_IFREG | 0o644, size=6), bad),
        (member(b"good", stat.S_IFREG | 0o644, size=6), b"wanted"),
    )
    target = tmp_path / "target"
    target.mkdir()
    (target / "there").symlink_to(outside)
    done = restored(place, target)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"before"
    assert outside.stat().st_mode & 0o777 == 0o755
    assert (target / "good").read_bytes() == b"wanted"
    assert {path for path, _ in done.problems} >= {"/link/secret", "/link/new", "/there/secret"}
    assert not list(tmp_path.rglob(".backupgw-restore-*"))
    # The content of a name that could not be restored comes under the other one, as it was stored.
    assert (target / "hard").read_bytes() == bad


def test_files_that_are_there(place: Backend, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(b"backup")
        os.utime(source / name, ns=(0, 10**18))
    backed_up(place, source)
    target = tmp_path / "back"
    restored(place, target)
    here = Path(f"{target}{source}")
    (here / "a").write_bytes(b"newer")
    (here / "b").write_bytes(b"older")
    os.utime(here / "b", ns=(0, 10**17))
    assert restored(place, target, overwrite=Overwrite.NEVER).left == 2
    assert (here / "b").read_bytes() == b"older"
    assert restored(place, target, overwrite=Overwrite.IF_NEWER).left == 1
    assert [(here / n).read_bytes() for n in "ab"] == [b"newer", b"backup"]
    restored(place, target, overwrite=Overwrite.ALWAYS, dry=True)
    assert (here / "a").read_bytes() == b"newer"
    restored(place, target)
    assert (here / "a").read_bytes() == b"backup"


@pytest.mark.parametrize("there", ["a", "b", "ab", "bc", "abc"])
@pytest.mark.parametrize("overwrite", [Overwrite.NEVER, Overwrite.IF_NEWER])
def test_names_of_one_file_that_are_there(
    place: Backend, tmp_path: Path, overwrite: Overwrite, there: str
) -> None:
    """Each name is left alone by itself, and the others get the backup's content, not theirs."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"backup")
    os.utime(source / "a", ns=(0, 10**18))
    os.link(source / "a", source / "b")
    os.link(source / "a", source / "c")
    backed_up(place, source)
    here = Path(f"{tmp_path}/back{source}")
    here.mkdir(parents=True)
    for name in there:
        (here / name).write_bytes(b"mine " + name.encode())
    done = restored(place, tmp_path / "back", overwrite=overwrite)
    assert {name: (here / name).read_bytes() for name in "abc"} == {
        name: b"mine " + name.encode() if name in there else b"backup" for name in "abc"
    }
    assert (done.left, done.members, done.problems) == (len(there), 4 - len(there), [])
    new = [here / name for name in "abc" if name not in there]
    assert all(each.samefile(new[0]) for each in new)


def test_a_further_name_whose_content_is_nowhere_is_told(place: Backend, tmp_path: Path) -> None:
    planted(place, (member(b"further", stat.S_IFREG | 0o644, hard=True, link=b"first"), b""))
    done = restored(place, tmp_path / "back")
    assert done.members == 0
    assert done.problems == [("/further", "its content is not in the archive")]


@pytest.mark.parametrize("encrypted", [False, True], ids=["open", "age"])
def test_damage_is_found(place: Backend, tmp_path: Path, *, encrypted: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "random").write_bytes(random.Random(1).randbytes(300_000))
    key = Key(SECRET) if encrypted else None
    backed_up(place, source, key=key)
    [archive] = archives.find(place)
    whole = place.load(archive.item)

    def verified() -> bool:
        with closing(archives.ArchiveReader(place, archive, key)) as stream:
            for _ in archives.members(archives.read_tar(stream), stream):
                pass
        return True

    assert verified()
    choose = random.Random(2)
    # Each place of the file: the beginning, the middle, the end, and some others.
    for at in [0, 3, 170, len(whole) // 2, len(whole) - 1, *choose.sample(range(len(whole)), 8)]:
        bad = bytearray(whole)
        bad[at] ^= 1 << choose.randrange(8)
        place.store(archive.item, bad)
        with pytest.raises(BackendError):
            verified()
    for length in (0, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        place.store(archive.item, whole[:length])
        with pytest.raises(BackendError):
            verified()


def test_holes_count_as_bytes_of_their_files(place: Backend, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, data in (("nothing", b""), ("some", b"x" * 4096)):
        with (source / name).open("wb") as file:
            file.write(data)
            file.truncate(8 << 20)
    assert backed_up(place, source).counts.bytes == 16 << 20


def test_few_stored_bytes_that_make_many_take_no_memory(place: Backend, tmp_path: Path) -> None:
    """An empty disk image: a gigabyte of zeros is stored as 33 KB, less than is read at once."""
    source = tmp_path / "source"
    source.mkdir()
    size = 128 << 20
    with (source / "image").open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    backed_up(place, source)
    [archive] = archives.find(place)
    assert archive.size < 100_000
    tracemalloc.start()
    try:
        done = restored(place, tmp_path / "back")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (done.bytes, done.problems) == (size, [])
    assert peak < 16 << 20


def test_what_cannot_be_read_is_told(place: Backend, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_bytes(b"good")
    (source / "shrinks").write_bytes(bytes(3 << 20))
    (source / "grows").write_bytes(b"g")

    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path.endswith("shrinks") and offset >= 1 << 20:
            os.truncate(path, 1 << 20)
        if path.endswith("grows"):
            with open(path, "ab") as file:
                file.write(b"more")
        return real(fd, buffers, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        made = backed_up(place, source)
    assert [(path, "shorter" in why) for path, why in made.counts.problems] == [
        (f"{source}/shrinks", True)
    ]
    assert made.counts.changed == [f"{source}/grows", f"{source}/shrinks"]
    assert restored(place, tmp_path / "back").problems == []
    assert Path(f"{tmp_path}/back{source}/grows").read_bytes() == b"g"


def failing(place: Backend, after: int, error: BackendError) -> Backend:
    original = place.open_writer

    class Limited(WrappedWriter):
        taken = 0

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.taken += len(data)
            if self.taken > after:
                raise error
            super().write(data)

    def open_writer(name: str, **options: object) -> Writer:
        return Limited(original(name, **options))  # type: ignore[arg-type]

    place.open_writer = open_writer  # type: ignore[method-assign]
    return place


def test_one_place_failing_does_not_stop_the_others(
    place: Backend, source: Path, tmp_path: Path
) -> None:
    other = open_place(f"file://{tmp_path}/other")
    other.create()
    with other:
        failing(other, 1 << 20, BackendError("the disk is full"))
        (source / "random").write_bytes(random.Random(1).randbytes(30 << 20))
        made = create(
            {"good": place, "bad": other}, Selection([str(source)]),
            host="nas", set_name="home", time=NOON, key=None,
        )  # fmt: skip
        assert made.errors["good"] is None
        assert str(made.errors["bad"]) == "the disk is full"
        assert archives.find(other) == []
    assert [p for p in (tmp_path / "other").rglob("*") if p.is_file()] == []
    assert restored(place, tmp_path / "back").members == made.counts.members


def test_all_places_failing_ends_it_early(place: Backend, source: Path) -> None:
    failing(place, 1 << 20, BackendError("gone"))
    (source / "random").write_bytes(random.Random(1).randbytes(60 << 20))
    made = backed_up(place, source)
    assert str(made.errors["here"]) == "gone"
    assert made.counts.stored < 40 << 20


def test_an_interrupted_backup_leaves_nothing(place: Backend, source: Path, tmp_path: Path) -> None:
    (source / "random").write_bytes(random.Random(1).randbytes(8 << 20))
    steps = 0

    def progress(_: object) -> None:
        nonlocal steps
        steps += 1
        if steps > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(
            {"here": place}, Selection([str(source)]), host="nas", set_name="home", time=NOON,
            key=None, on_member=progress,
        )  # fmt: skip
    assert [p for p in (tmp_path / "place").rglob("*") if p.is_file()] == []
    backed_up(place, source)
    assert restored(place, tmp_path / "back").problems == []
