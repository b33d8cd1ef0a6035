"""The operations beyond the core: load, store, hash, copy, gather, defrag, move, quarantine."""

from __future__ import annotations

import hashlib

from ..backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    ReadRangeError,
    UnsupportedOperation,
)
from ..names import InvalidName
from . import values
from .subject import Ground
from .suite import check
from .verdicts import NotOffered, expect, require


@check()
def store_and_load(at: Ground) -> None:
    """store takes bytes, bytearray and memoryview, replaces, and makes folders; load gives back."""
    name = at.name("new/folder/item")
    for value in (b"one", bytearray(b"three"), memoryview(b"..five..")[2:6], b""):
        at.backend.store(name, value)
        require(at.backend.load(name) == bytes(value), f"{bytes(value)!r} came back changed")


@check()
def store_nowait_agrees(at: Ground) -> str:
    """store_nowait writes what open_writer would, or nothing at all."""
    wrong = hashlib.sha256(b"something else").hexdigest()
    answered = 0
    for size in (0, 1, 5_000, 70_000):
        value = bytes(size)
        item = f"folder/item{size}"
        name = at.name(item)
        try:
            stored = at.backend.store_nowait(name, value, expected_hash=wrong)
        except ContentMismatch:
            stored = False
        require(not stored and at.get(item) is None, "what has another hash was stored")
        right = hashlib.sha256(value).hexdigest()
        if at.backend.store_nowait(name, value, if_absent=True, expected_hash=right):
            answered += 1
        else:
            require(at.get(item) is None, "what was not stored is there")
            at.backend.store(name, value)
        require(at.get(item) == value, f"{size} bytes came back changed")
        try:
            stored = at.backend.store_nowait(name, b"newer", if_absent=True)
        except ObjectExists:
            stored = False
        require(not stored and at.get(item) == value, "if_absent replaced an item")
        stored = at.backend.store_nowait(name, b"newer")
        require(at.get(item) == (b"newer" if stored else value), "it is not as it was told")
    return f"{answered} of 4 without waiting"


@check()
def hash_is_right(at: Ground) -> None:
    """hash gives the digest of the whole value, SHA-256 unless told otherwise."""
    value = values.make(1, (3 << 20) + 1)
    name = at.put("item", value)
    require(at.backend.hash(name) == hashlib.sha256(value).hexdigest(), "SHA-256 is wrong")
    for algorithm in ("sha512", "blake2b"):
        expected = hashlib.new(algorithm, value).hexdigest()
        require(at.backend.hash(name, algorithm) == expected, f"{algorithm} is wrong")
    empty = at.put("empty", b"")
    require(at.backend.hash(empty) == hashlib.sha256().hexdigest(), "the hash of nothing is wrong")


@check()
def copy_copies(at: Ground) -> None:
    """copy makes an independent item and replaces an old one; onto itself it changes nothing."""
    value = values.make(1, (2 << 20) + 1)
    source = at.put("item", value)
    at.put("old", b"old")
    at.backend.copy(source, at.name("old"))
    at.backend.copy(source, at.name("new/folder/copy"))
    at.backend.copy(source, source)
    at.put("item", b"changed")
    require(at.get("old") == value, "copy over an item is wrong")
    require(at.get("new/folder/copy") == value, "a copy is wrong or follows its source")
    require(at.get("item") == b"changed", "the source of a copy cannot be replaced")


@check()
def gather_joins(at: Ground) -> None:
    """gather joins parts in order, repeated ones too, and nothing at all to nothing."""
    first, second = at.put("first", b"0123456789"), at.put("second", b"abcdef")
    got = at.backend.gather([(second, 1, 2), (first, 8, 2), (first, 0, 1), (second, 1, 2)])
    require(got == b"bc890bc", f"gather gave {got!r}")
    require(at.backend.gather([(first, -3, 2)]) == b"78", "a negative offset is wrong")
    require(at.backend.gather([]) == b"", "gather of nothing gave something")
    require(at.backend.gather([(first, 10, 0)]) == b"", "a part of no bytes gave something")
    for part in ((first, 8, 3), (first, 11, 1), (first, 0, 11)):
        expect(
            ReadRangeError,
            lambda part=part: at.backend.gather([part]),  # type: ignore[misc]
            f"gather of {part[2]} bytes at {part[1]} of 10",
        )


@check()
def defrag_joins(at: Ground) -> None:
    """defrag writes the joined parts; when one falls short the target is not written."""
    first, second = at.put("first", b"0123456789"), at.put("second", b"abcdef")
    target = at.name("new/target")
    at.backend.defrag([(second, 0, 3), (first, 5, 5), (second, 3, 3)], target)
    require(at.get("new/target") == b"abc56789def", "defrag joined wrongly")
    short = [(first, 0, 5), (second, 4, 3)]
    expect(ReadRangeError, lambda: at.backend.defrag(short, target), "defrag of a short part")
    expect(ReadRangeError, lambda: at.backend.defrag(short, at.name("t")), "defrag of a short part")
    require(at.get("new/target") == b"abc56789def", "a failed defrag touched the old target")
    require(at.get("t") is None, "a failed defrag wrote its target")
    at.backend.defrag([(first, 0, 4)], first)
    require(at.get("first") == b"0123", "defrag of an item onto itself is wrong")


@check()
def move_renames(at: Ground) -> None:
    """move renames across folders and replaces; onto itself it changes nothing."""
    value = values.make(1, 70_000)
    name = at.put("item", value)
    at.backend.move(name, name)
    require(at.get("item") == value, "a move onto itself lost the value")
    at.backend.move(name, at.name("new/folder/item"))
    at.put("old", b"old")
    at.backend.move(at.name("new/folder/item"), at.name("old"))
    items = {name: got for name, got in at.tree().items() if got is not None}
    require(items == {"old": value}, f"after moves there is {sorted(items)}")
    expect(ObjectNotFound, lambda: at.backend.move(name, at.name("x")), "move of what moved away")


@check()
def delete_deletes(at: Ground) -> None:
    """A deleted item is gone from read, info and list, and others stay."""
    name = at.put("item", b"value")
    at.put("other", b"other")
    at.backend.delete(name)
    require(not at.backend.info(name).exists, "info still tells of it")
    require(at.tree() == {"other": b"other"}, f"after delete there is {sorted(at.tree())}")
    expect(ObjectNotFound, lambda: at.backend.delete(name), "a second delete")


@check()
def delete_sized_tells_the_size(at: Ground) -> None:
    """What delete_sized removes is gone as after delete, and its size is told."""
    for value in (b"value", b""):
        name = at.put("folder/item", value)
        size = at.backend.delete_sized(name)
        require(size == len(value), f"{len(value)} bytes were told as {size}")
        require(not at.backend.info(name).exists, "info still tells of it")
    expect(ObjectNotFound, lambda: at.backend.delete_sized(name), "a second delete_sized")


@check(own_place=True)
def quarantine_sets_aside(at: Ground) -> str:
    """A damaged item is out of reach at once, its name is free, and a second one fits beside it."""
    kept = []
    for value in (b"damaged", b"damaged again"):
        name = at.put("folder/item", value)
        try:
            kept.append(at.backend.quarantine(name))
        except UnsupportedOperation as error:
            raise NotOffered(str(error)) from error
        require(type(kept[-1]) is str, f"quarantine returned {kept[-1]!r}")
        require(at.get("folder/item") is None, "a damaged item can still be read")
        require(at.names("folder") == [], f"the folder lists {at.names('folder')}")
    require(kept[0] != kept[1], "a second item went where the first is kept")
    expect(ObjectNotFound, lambda: at.backend.quarantine(name), "quarantine of a missing item")
    expect(
        (InvalidName, BackendError), lambda: at.backend.open_reader(kept[0]), "reading quarantine"
    )
    at.put("folder/item", b"good")
    require(at.get("folder/item") == b"good", "the name cannot be used again")
    return f"kept as {kept[0]}"


@check()
def surely_missing_is_right(at: Ground) -> str:
    """What is surely missing is missing: never an item that is there, by whatever way it came."""
    first, second = at.put("item", b"value"), at.name("moved")
    wrong = "an item that is there is called missing"
    require(not at.backend.surely_missing(first), wrong)
    at.backend.info(second)  # whatever remembers that nothing is there
    at.backend.move(first, second)
    require(not at.backend.surely_missing(second), f"{wrong} after a move")
    at.backend.delete(second)
    at.backend.info(second)
    knows = at.backend.surely_missing(second)
    at.backend.store(second, b"again")
    require(not at.backend.surely_missing(second), f"{wrong} after it was deleted and stored")
    return "tells" if knows else "never tells"


@check()
def file_numbers_tell_items_apart(at: Ground) -> str:
    """An item keeps the number of its file, and no other one has it, whenever it is written."""
    backend = at.backend
    first, second, moved = at.put("first", b"value"), at.put("second", b"value"), at.name("moved")
    number = backend.file_number(first)
    require(
        bool(number) == bool(backend.file_number("")), "the root says whether files have numbers"
    )
    require(number != backend.file_number(second) or not number, "two items have one number")
    backend.move(first, moved)
    require(backend.file_number(moved) == number, "a move changed the number")
    require(backend.file_number(first) == 0, "what is missing has a number")
    new = at.put("new", b"value")
    require(backend.file_number(new) != number or not number, "a new item has another's number")
    return "tells" if number else "never tells"
