"""Every way that the corpus knows to say a name, used to say the names of what lies in a trash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from tests.restserver.hostile_attack import REFUSED, Attack, only, request
from tests.restserver.hostile_paths import DOTS, INTRUDER, INTRUDER_ID, SLASHES, names_nothing
from tests.restserver.hostile_site import TYPES

TRASH = b".backupgw-trash"

WRITTEN: dict[str, bytes] = {
    "plain": TRASH,
    "escaped dot": b"%2ebackupgw-trash",
    "wholly escaped": b"".join(b"%%%02x" % byte for byte in TRASH),
    "escaped twice": b"%252ebackupgw-trash",
    "upper case": TRASH.upper(),
    "a blank behind": TRASH + b"%20",
    "a dot behind": TRASH + b".",
    "NUL behind": TRASH + b"%00",
    "full-width dot": b"%ef%bc%8ebackupgw-trash",
    "soft hyphen": b".backup%c2%adgw-trash",
    "below a folder": b"x/" + TRASH,
    "a dot before": b"./" + TRASH,
    "two slashes": b"/" + TRASH,
    "stream": TRASH + b"::$INDEX_ALLOCATION",
}


def reaching(root: Path, kept: Sequence[Path], most: int = 12) -> Iterator[Attack]:
    """Yield requests for what lies in the trash of `root`: its buckets, folders and items.

    Args:
        kept: files and folders in the trash; some of each kind are asked for.
    """
    names = [path.relative_to(root).as_posix() for path in kept]
    items = [n for n, path in zip(names, kept, strict=True) if path.is_file() and "~" in n][:most]
    folders = sorted({name.rpartition("/")[0] for name in items})[:most]
    buckets = sorted({name.split("/")[1] for name in items})
    for label, trash in WRITTEN.items():
        for bucket in buckets:
            repo = trash + b"/" + bucket.encode()
            yield from _repository(f"{label}, bucket {bucket}", b"/" + repo)
        yield from _repository(label, b"/" + trash)
    for name in [*items, *folders]:
        path = name.encode()
        yield from _item(f"item {name[-90:]}", b"/" + path)
        yield from _item(f"item {name[-90:]} escaped", b"/" + quote(name, safe="").encode())
        yield from _item(f"item {name[-90:]} in its repository", b"/ann/laptop/data/" + path)
    for number, (dots_name, dots) in enumerate(DOTS.items()):
        for slash_name, slash in SLASHES.items():
            target = items[number % len(items)].encode()
            climb = (dots + slash) * (1 + number % 3)
            climbing = f".. {dots_name}, / {slash_name}"
            yield from _item(climbing, b"/ann/laptop/data/" + climb + target)


def _repository(label: str, path: bytes) -> Iterator[Attack]:
    yield _attack(label, b"POST", path + b"/?create=true", b"")
    yield _attack(label, b"DELETE", path + b"/?delete=true")
    for kind in TYPES:
        yield _attack(label, b"GET", path + b"/" + kind.encode() + b"/")
    yield from _item(label, path + b"/config")
    yield from _item(label, path + b"/data/" + INTRUDER_ID)


def _item(label: str, path: bytes) -> Iterator[Attack]:
    for method in (b"GET", b"HEAD", b"DELETE"):
        yield _attack(label, method, path)
    yield _attack(label, b"POST", path, INTRUDER)


def _attack(label: str, method: bytes, path: bytes, body: bytes | None = None) -> Attack:
    # A name that is merely odd is somebody's, and what it does not hold can be removed.
    allowed = REFUSED if names_nothing(path) else REFUSED | only(200, 403)
    payload = request(method, path, body=body)
    return Attack(f"{method.decode()} {label}: {path[:120]!r}", payload, allowed)
