"""Creating, opening, closing and destroying the place."""

from __future__ import annotations

from ..backends.base import Capabilities, Quota
from ..backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
)
from .subject import Ground
from .suite import check
from .verdicts import expect, require


@check()
def tells_its_capabilities(at: Ground) -> str:
    """`capabilities` is a Capabilities record, and quota() a Quota."""
    require(isinstance(at.backend.capabilities, Capabilities), "capabilities is something else")
    require(isinstance(at.backend.quota(), Quota), "quota() returned something else")
    offered = [name for name in Capabilities.__slots__ if getattr(at.backend.capabilities, name)]
    return "offers " + ", ".join(offered)


@check()
def open_refuses_an_open_backend(at: Ground) -> None:
    """open, create and destroy raise BackendMustNotBeOpen while the backend is open."""
    expect(BackendMustNotBeOpen, at.backend.open, "open while open")
    expect(BackendMustNotBeOpen, at.backend.create, "create while open")
    expect(BackendMustNotBeOpen, at.backend.destroy, "destroy while open")
    at.put("still-here", b"1")
    require(at.get("still-here") == b"1", "a refused call changed something")


@check()
def closed_backend_refuses_operations(at: Ground) -> None:
    """Every operation of a closed backend, close included, raises BackendMustBeOpen."""
    item, backend = at.put("item", b"value"), at.backend
    backend.close()
    try:
        calls = {
            "close": backend.close,
            "info": lambda: backend.info(item),
            "list": lambda: next(backend.list(at.folder), None),
            "open_reader": lambda: backend.open_reader(item).close(),
            "open_writer": lambda: backend.open_writer(at.name("new")).abort(),
            "delete": lambda: backend.delete(item),
            "move": lambda: backend.move(item, at.name("new")),
            "mkdir": lambda: backend.mkdir(at.name("new")),
            "rmdir": lambda: backend.rmdir(at.folder),
            "load": lambda: backend.load(item),
            "store": lambda: backend.store(item, b""),
            "hash": lambda: backend.hash(item),
            "copy": lambda: backend.copy(item, at.name("new")),
        }
        for operation, call in calls.items():
            expect(BackendMustBeOpen, call, f"{operation} on a closed backend")
    finally:
        backend.open()
    require(at.tree() == {"item": b"value"}, "a refused call changed something")


@check()
def values_outlive_close(at: Ground) -> None:
    """What was stored is there after close and open."""
    at.put("item", b"value")
    at.backend.close()
    at.backend.open()
    require(at.get("item") == b"value", "a value was gone after close and open")


@check()
def create_refuses_what_exists(at: Ground) -> None:
    """create raises BackendAlreadyExists where something is already, and leaves it alone."""
    at.put("item", b"value")
    at.backend.close()
    try:
        expect(BackendAlreadyExists, at.backend.create, "create over an existing place")
    finally:
        at.backend.open()
    require(at.get("item") == b"value", "create over an existing place lost a value")


@check(own_place=True)
def destroy_removes_everything(at: Ground) -> None:
    """destroy removes the place; then open and destroy raise BackendDoesNotExist."""
    at.put("item", b"value")
    backend = at.backend
    backend.close()
    backend.destroy()
    try:
        expect(BackendDoesNotExist, backend.open, "open after destroy")
        expect(BackendDoesNotExist, backend.destroy, "destroy after destroy")
    finally:
        backend.create()
        backend.open()
        backend.mkdir(at.subject.root)
    require(at.get("item") is None, "a value outlived destroy and create")


@check("shared")
def second_opening_sees_the_same(at: Ground) -> None:
    """Another backend of the same place sees every change at once."""
    with at.second() as other:
        at.put("item", b"one")
        require(other.load(at.name("item")) == b"one", "a new value was not seen")
        at.put("item", b"three")
        require(other.info(at.name("item")).size == len(b"three"), "a replacement was not seen")
        at.backend.delete(at.name("item"))
        require(not other.info(at.name("item")).exists, "a deletion was not seen")
