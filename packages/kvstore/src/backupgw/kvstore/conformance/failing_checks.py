"""Missing items, folders where items are wanted, and the other way round."""

from __future__ import annotations

import hashlib

from ..backends.base import ItemInfo
from ..backends.errors import BackendError, ObjectNotFound
from .subject import Ground
from .suite import check
from .verdicts import expect, require


@check()
def missing_items_are_not_found(at: Ground) -> None:
    """Whatever needs an item that is missing raises ObjectNotFound and changes nothing."""
    backend, missing, other = at.backend, at.name("missing"), at.name("other")
    at.put("item", b"value")
    for what, call in {
        "open_reader": lambda: backend.open_reader(missing),
        "load": lambda: backend.load(missing),
        "delete": lambda: backend.delete(missing),
        "move": lambda: backend.move(missing, other),
        "move over an item": lambda: backend.move(missing, at.name("item")),
        "move to itself": lambda: backend.move(missing, missing),
        "hash": lambda: backend.hash(missing),
        "copy": lambda: backend.copy(missing, other),
        "gather": lambda: backend.gather([(at.name("item"), 0, 1), (missing, 0, 1)]),
        "defrag": lambda: backend.defrag([(at.name("item"), 0, 1), (missing, 0, 1)], other),
        "rmdir": lambda: backend.rmdir(missing),
        "list": lambda: next(backend.list(missing), None),
        "list_sizes": lambda: next(backend.list_sizes(missing), None),
    }.items():
        expect(ObjectNotFound, call, f"{what} of a missing name")
    require(at.tree() == {"item": b"value"}, f"afterwards there is {sorted(at.tree())}")


@check()
def info_never_raises_for_missing(at: Ground) -> None:
    """info of what is missing, beneath an item too, says `exists=False`."""
    at.put("item", b"value")
    for name in ("missing", "missing/deeper", "item/beneath", "item/beneath/deeper"):
        info = at.backend.info(at.name(name))
        require(isinstance(info, ItemInfo), f"info returned {type(info).__name__}")
        require(not info.exists and not info.directory, f"{name}: info says {info}")
        require(info.size == 0, f"{name}: a missing item of {info.size} bytes")


@check()
def info_tells_items_and_folders(at: Ground) -> None:
    """info gives the full name, the size and the kind; a list gives the last segment."""
    item, folder = at.put("folder/item", b"value"), at.name("folder")
    told = at.backend.info(item)
    require(told.exists and not told.directory and told.size == 5, f"info of an item: {told}")
    require(told.name == item, f"info's name is {told.name!r}, not {item!r}")
    told = at.backend.info(folder)
    require(told.exists and told.directory, f"info of a folder: {told}")
    (listed,) = at.backend.list(folder)
    require(
        (listed.name, listed.exists, listed.size, listed.directory) == ("item", True, 5, False),
        f"an item is listed as {listed}",
    )
    (listed,) = at.backend.list(at.folder)
    require(listed.name == "folder" and listed.directory, f"a folder is listed as {listed}")


@check()
def folders_are_no_items(at: Ground) -> None:
    """Item operations on a folder raise ObjectNotFound, and what would replace it BackendError."""
    backend = at.backend
    inside, folder = at.put("folder/inside", b"value"), at.name("folder")
    item = at.put("item", b"value")
    for what, call in {
        "open_reader": lambda: backend.open_reader(folder),
        "load": lambda: backend.load(folder),
        "hash": lambda: backend.hash(folder),
        "delete": lambda: backend.delete(folder),
        "move": lambda: backend.move(folder, at.name("new")),
    }.items():
        expect(ObjectNotFound, call, f"{what} of a folder")
    for what, call in {
        "store": lambda: backend.store(folder, b"x"),
        "if_absent": lambda: _write(at, "folder", if_absent=True),
        "move over": lambda: backend.move(item, folder),
        "copy over": lambda: backend.copy(item, folder),
        "move into itself": lambda: backend.move(item, at.name("item/deeper")),
    }.items():
        expect(BackendError, call, f"{what} a folder")
    require(backend.info(inside).exists, "a folder's item was lost")
    require(
        at.tree() == {"folder": None, "folder/inside": b"value", "item": b"value"},
        f"afterwards there is {sorted(at.tree())}",
    )


@check()
def items_are_no_folders(at: Ground) -> None:
    """An item has nothing beneath it: reading there finds nothing, writing raises BackendError."""
    backend = at.backend
    item, beneath, other = at.put("item", b"value"), at.name("item/beneath"), at.put("other", b"o")
    for what, call in {
        "open_reader": lambda: backend.open_reader(beneath),
        "delete": lambda: backend.delete(beneath),
        "move from": lambda: backend.move(beneath, at.name("new")),
        "list": lambda: next(backend.list(item), None),
        "list beneath": lambda: next(backend.list(beneath), None),
    }.items():
        expect(ObjectNotFound, call, f"{what} beneath an item")
    for what, call in {
        "mkdir": lambda: backend.mkdir(item),
        "mkdir beneath": lambda: backend.mkdir(beneath),
        "rmdir": lambda: backend.rmdir(item),
        "store beneath": lambda: backend.store(beneath, b"x"),
        "move beneath": lambda: backend.move(other, beneath),
    }.items():
        expect(BackendError, call, f"{what} an item")
    require(at.tree() == {"item": b"value", "other": b"o"}, f"afterwards: {sorted(at.tree())}")


def _write(at: Ground, name: str, *, if_absent: bool) -> None:
    with at.backend.open_writer(at.name(name), if_absent=if_absent) as writer:
        writer.write(b"x")


@check()
def folders_come_and_go(at: Ground) -> None:
    """mkdir makes parents and may be repeated; rmdir takes empty folders only."""
    backend = at.backend
    backend.mkdir(at.name("a/b/c"))
    backend.mkdir(at.name("a/b/c"))
    backend.mkdirs([at.name("a/d"), at.name("a/b")])
    require(sorted(at.tree()) == ["a", "a/b", "a/b/c", "a/d"], f"mkdir made {sorted(at.tree())}")
    expect(BackendError, lambda: backend.rmdir(at.name("a/b")), "rmdir of a folder with a folder")
    at.put("a/b/c/item", b"value")
    expect(BackendError, lambda: backend.rmdir(at.name("a/b/c")), "rmdir of a folder with an item")
    require(at.get("a/b/c/item") == b"value", "a refused rmdir lost an item")
    backend.delete(at.name("a/b/c/item"))
    backend.rmdir(at.name("a/d"))
    require(not backend.info(at.name("a/d")).exists, "a folder is still there after rmdir")


@check()
def unknown_hash_is_a_value_error(at: Ground) -> None:
    """hash with an unknown algorithm raises ValueError."""
    name = at.put("item", b"value")
    expect(ValueError, lambda: at.backend.hash(name, "no-such-hash"), "an unknown algorithm")
    require(at.backend.hash(name, "md5") == hashlib.md5(b"value").hexdigest(), "md5 is wrong")  # noqa: S324
