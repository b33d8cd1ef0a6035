"""What layers that keep things stand on: names of the kernel's own, and moves that replace nothing.

A place that cannot say the kernel's own names (somebody else's server that refuses them) works
without such layers.
"""

from __future__ import annotations

from ..backends.errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from ..names import RESERVED_PREFIX, KernelPath
from .subject import Ground
from .suite import check
from .verdicts import NotOffered, expect, require

_FOLDER = f"{RESERVED_PREFIX}-kept"


@check()
def move_if_absent_replaces_nothing(at: Ground) -> None:
    """move_if_absent moves to a free name, makes folders, and never replaces an item."""
    first, second = at.put("first", b"first"), at.put("second", b"second")
    backend = at.backend
    expect(ObjectExists, lambda: backend.move_if_absent(first, second), "move over an item")
    require(at.tree() == {"first": b"first", "second": b"second"}, "a refused move did something")
    backend.move_if_absent(first, at.name("new/folder/item"))
    require(at.get("new/folder/item") == b"first", "the value is not where it was moved")
    require(at.get("first") is None, "the value is where it was, too")
    expect(ObjectNotFound, lambda: backend.move_if_absent(first, at.name("x")), "a move of nothing")
    expect(
        BackendError, lambda: backend.move_if_absent(second, at.name("new")), "a move onto a folder"
    )
    require(at.get("second") == b"second", "a refused move lost an item")


@check()
def kernel_names_are_apart(at: Ground) -> None:
    """What lies under a kernel's own name can be stored, listed, moved in and out, and deleted by
    it; no other list shows it."""
    folder = KernelPath(at.name(_FOLDER))
    kept = KernelPath(f"{folder}/sub/kept")
    try:
        at.backend.store(kept, b"kept")
    except BackendError as error:
        raise NotOffered(str(error)) from error
    require(at.backend.load(kept) == b"kept", "a kernel's own item does not come back")
    require(at.names() == [], f"listed: {at.names()}")
    below = [info.name for info in at.backend.list(KernelPath(f"{folder}/sub"))]
    require(below == ["kept"], f"a kernel's own folder lists {below}")
    item = at.name("item")
    at.backend.move(kept, item)
    require(at.tree() == {"item": b"kept"}, f"moved out, and there is {sorted(at.tree())}")
    again = KernelPath(f"{folder}/again")
    at.backend.move(item, again)
    require(at.tree() == {}, f"moved in, and there is {sorted(at.tree())}")
    require(at.backend.info(again).size == 4, "info of a kernel's own item is wrong")
    at.backend.delete(again)
    require(not at.backend.info(again).exists, "a kernel's own item was not deleted")
    for name in (KernelPath(f"{folder}/sub"), folder):
        try:
            at.backend.rmdir(name)
        except ObjectNotFound:
            continue  # places without real folders lose them with their last item


@check()
def commit_over_keeps_the_old(at: Ground) -> None:
    """commit_over replaces an item, which has its new name at once; where it cannot, it does
    nothing and commit works."""
    at.put("item", b"old")
    kept = KernelPath(at.name(f"{_FOLDER}/kept"))
    writer = at.backend.open_writer(at.name("missing"), if_absent=True)
    writer.write(b"new")
    expect((ObjectNotFound, UnsupportedOperation), lambda: writer.commit_over(kept), "over nothing")
    writer.commit()
    require(at.get("missing") == b"new", "commit does not work after a refused commit_over")
    writer = at.backend.open_writer(at.name("item"), if_absent=True)
    writer.write(b"new")
    expect(ObjectExists, writer.commit, "commit with if_absent over an item")
    try:
        writer.commit_over(kept)
    except UnsupportedOperation as error:
        writer.abort()
        require(at.get("item") == b"old", "what was not supported did something")
        raise NotOffered(str(error)) from error
    require(at.get("item") == b"new", "commit_over did not replace the item")
    require(at.backend.load(kept) == b"old", "what was replaced was not kept")
    expect(BackendError, lambda: writer.write(b"x"), "write after commit_over")
    require(sorted(at.tree()) == ["item", "missing"], f"listed: {sorted(at.tree())}")
    at.backend.delete(kept)
    try:
        at.backend.rmdir(KernelPath(at.name(_FOLDER)))
    except ObjectNotFound:
        return  # see above
