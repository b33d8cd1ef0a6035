"""Which names are refused, and that all others come back as they were given."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

from ..backends.errors import BackendError, NameCollision, NameTooLong
from ..names import MAX_PATH_BYTES, MAX_SEGMENT_BYTES, RESERVED_PREFIX, InvalidName
from .subject import Ground
from .suite import check
from .verdicts import expect, require

HOSTILE = (
    "/absolute",
    "//absolute",
    "trailing/",
    "doubled//slash",
    ".",
    "..",
    "./here",
    "../up",
    "a/../b",
    "a/..",
    "a/.",
    "a/./b",
    "a/../../../../../../../../etc/passwd",
    "nul\0byte",
    "\0",
    "lone surrogate \udc80",
    "x" * (MAX_SEGMENT_BYTES + 1),
    "é" * (MAX_SEGMENT_BYTES // 2 + 1),
    "a/" * (MAX_PATH_BYTES // 2) + "a",
    RESERVED_PREFIX,
    f"{RESERVED_PREFIX}-tmp-0",
    f"{RESERVED_PREFIX}/quarantine",
    f"a/{RESERVED_PREFIX}-part-0",
    f"{RESERVED_PREFIX}x/b",
)
"""Names that `names.check_path` refuses."""

DECENT = (
    "plain",
    "with space",
    " leading and trailing ",
    "-rf",
    "*?[glob]",
    "semi;colon&amp",
    "quote'\"`$(x)",
    "back\\slash",
    "percent%2e%2e%2f",
    "question?mark",
    "hash#mark",
    "colon:at@comma,",
    "new\nline",
    "tab\tand\rreturn",
    "\x01\x1b[31m\x7f",
    "...",
    "..hidden",
    ".hidden",
    "trailing.",
    "~",
    "con",
    "item.tmp",
    "item.del",
    "backupgw",
    unicodedata.normalize("NFC", "Ångström"),
    unicodedata.normalize("NFD", "Ångström"),
    "日本語",
    "🗄️",
    "\u202egnp.exe",
    "\ufeffbom",
    "\u2028line separator",
    "n" * MAX_SEGMENT_BYTES,
    "é" * (MAX_SEGMENT_BYTES // 2) + "x",
    "🗄" * (MAX_SEGMENT_BYTES // 4),
)
"""Names that every place must take and give back exactly."""


_SHORT = 140
"""Bytes of a segment that every place must take: a hash in hex and more."""


def _operations(at: Ground, name: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every operation that takes a name, applied to `name`."""
    backend, item, other = at.backend, at.name("item"), at.name("other")
    yield "info", lambda: backend.info(name)
    yield "list", lambda: next(backend.list(name), None)
    yield "list_sizes", lambda: next(backend.list_sizes(name), None)
    yield "load_nowait", lambda: backend.load_nowait(name) or backend.open_reader(name)
    yield "mkdir", lambda: backend.mkdir(name)
    yield "rmdir", lambda: backend.rmdir(name)
    yield "delete", lambda: backend.delete(name)
    yield "open_reader", lambda: backend.open_reader(name)
    yield "open_writer", lambda: backend.open_writer(name)
    yield "move from", lambda: backend.move(name, other)
    yield "move to", lambda: backend.move(item, name)
    yield "move_if_absent from", lambda: backend.move_if_absent(name, other)
    yield "move_if_absent to", lambda: backend.move_if_absent(item, name)
    yield "load", lambda: backend.load(name)
    yield "store", lambda: backend.store(name, b"hostile")
    yield "hash", lambda: backend.hash(name)
    yield "copy from", lambda: backend.copy(name, other)
    yield "copy to", lambda: backend.copy(item, name)
    yield "gather", lambda: backend.gather([(name, 0, 1)])
    yield "defrag from", lambda: backend.defrag([(name, 0, 1)], other)
    yield "defrag to", lambda: backend.defrag([(item, 0, 1)], name)


@check()
def hostile_names_are_refused(at: Ground) -> str:
    """Every operation refuses a hostile name with InvalidName, and nothing happens."""
    at.put("item", b"value")
    for hostile in HOSTILE:
        for name in (hostile, at.name(hostile)):
            for operation, call in _operations(at, name):
                expect(InvalidName, call, f"{operation} of {name[:80]!a}")
    require(at.tree() == {"item": b"value"}, f"a hostile name changed something: {at.names()}")
    return f"{2 * len(HOSTILE)} names"


@check()
def quarantine_refuses_hostile_names(at: Ground) -> None:
    """quarantine refuses a hostile name, or cannot set anything aside at all."""
    for hostile in HOSTILE:
        for name in (hostile, at.name(hostile)):
            expect(
                (InvalidName, BackendError),
                lambda name=name: at.backend.quarantine(name),  # type: ignore[misc]
                f"quarantine of {name[:80]!a}",
            )


@check()
def names_are_text(at: Ground) -> None:
    """A name that is no str raises TypeError."""
    at.put("item", b"value")
    for name in (b"bytes", None, 7):
        for operation, call in _operations(at, name):  # type: ignore[arg-type]
            expect(TypeError, call, f"{operation} of {name!r}")


@check()
def root_is_a_folder(at: Ground) -> None:
    """The empty name is the root: it can be listed, and is no item."""
    backend = at.backend
    require(backend.info("").exists and backend.info("").directory, "info of the root is wrong")
    listed = [info.name for info in backend.list("")]
    require(at.subject.root in listed, "the root's list lacks a folder")
    for what, call in {
        "open_reader": lambda: backend.open_reader(""),
        "open_writer": lambda: backend.open_writer(""),
        "delete": lambda: backend.delete(""),
        "rmdir": lambda: backend.rmdir(""),
        "move": lambda: backend.move("", at.name("root")),
    }.items():
        expect((InvalidName, BackendError), call, f"{what} of the root")


@check()
def reserved_names_are_never_listed(at: Ground) -> None:
    """No list shows a name that the kernel keeps for itself, at any stage of a write."""
    seen: list[str] = []

    def look() -> None:
        for folder in ("", at.subject.root, at.folder):
            seen.extend(info.name for info in at.backend.list(folder))

    writer = at.backend.open_writer(at.name("item"))
    look()
    writer.write(b"x" * (3 << 20))
    look()
    writer.commit()
    look()
    shown = [name for name in seen if name.startswith(RESERVED_PREFIX)]
    require(not shown, f"listed: {shown}")
    require(at.names() == ["item"], f"listed after a write: {at.names()}")


@check()
def decent_names_come_back(at: Ground) -> str:
    """Blanks, line ends, any Unicode and 255 bytes come back exactly, as item and as folder.

    A place, or a layer, may refuse segments of more than 140 bytes with NameTooLong.
    """
    taken = [name for name in DECENT if _takes(at, name)]
    for number, name in enumerate(taken):
        value = str(number).encode()
        at.put(f"items/{name}", value)
        at.put(f"folders/{name}/item", value)
    for folder in ("items", "folders"):
        listed = at.names(folder)
        require(
            listed == sorted(taken),
            f"{folder}: lost {sorted(set(taken) - set(listed))!a}, "
            f"strange {sorted(set(listed) - set(taken))!a}",
        )
    for number, name in enumerate(taken):
        value = str(number).encode()
        require(at.get(f"items/{name}") == value, f"{name!a} has another's value")
        require(at.get(f"folders/{name}/item") == value, f"{name!a}/item has another's value")
    for name in taken:
        at.backend.delete(at.name(f"items/{name}"))
    require(at.names("items") == [], "an item was left after delete")
    refused = f", {len(DECENT) - len(taken)} too long" if len(taken) < len(DECENT) else ""
    return f"{len(taken)} names{refused}"


def _takes(at: Ground, name: str) -> bool:
    """Whether the place has room for a name; a short one is never refused."""
    try:
        at.put(f"items/{name}", b"")
    except NameTooLong:
        require(len(name.encode()) > _SHORT, f"{name!a} is refused as too long")
        return False
    return True


@check()
def deep_paths_work(at: Ground) -> str:
    """A path of 900 bytes works; the longest one works or is refused with a BackendError."""
    start = len(at.folder.encode()) + 1
    deep = "/".join(["d" * 20] * ((900 - start) // 21))
    at.put(deep, b"deep")
    require(at.get(deep) == b"deep", "a deep item was lost")
    require(set(at.tree()) >= {deep}, "a deep item is not found by listing")
    longest = "/".join(["d" * 250] * ((MAX_PATH_BYTES - start) // 251))
    try:
        at.put(longest, b"longest")
    except BackendError as error:
        return f"{len(at.name(longest))} bytes are too many: {type(error).__name__}"
    require(at.get(longest) == b"longest", "an item with a long path was lost")
    require(longest in at.tree(), "an item with a long path is not found by listing")
    return f"{len(at.name(longest))} bytes work"


@check()
def case_is_kept_apart(at: Ground) -> str:
    """Names that differ in case are two items, or the second is refused; never one for both."""
    at.put("Name", b"upper")
    if at.backend.capabilities.case_sensitive:
        at.put("name", b"lower")
        require(at.tree() == {"Name": b"upper", "name": b"lower"}, "names were merged by case")
        return "two items"
    expect(NameCollision, lambda: at.put("name", b"lower"), "a name that differs in case")
    require(at.tree() == {"Name": b"upper"}, "names were merged by case")
    return "refused"
