"""A value is visible whole or not at all."""

from __future__ import annotations

import hashlib

from ..backends.base import Backend
from ..backends.errors import BackendError, ContentMismatch, ObjectExists, ObjectNotFound
from . import values
from .processes import Held, Meet, killed_after, need_processes
from .subject import Ground
from .suite import check
from .verdicts import Violation, expect, require

_PARTIAL = 3 << 20


@check()
def nothing_visible_before_commit(at: Ground) -> None:
    """Until commit, a new item is in no list, no info and no read; nor is a temporary name."""
    writer = at.backend.open_writer(at.name("new/item"))
    writer.write(values.make(1, _PARTIAL))
    items = [name for name, value in at.tree().items() if value is not None]
    require(items == [], f"listed before commit: {items}")
    require(not at.backend.info(at.name("new/item")).exists, "info tells of it before commit")
    expect(
        ObjectNotFound, lambda: at.backend.open_reader(at.name("new/item")), "read before commit"
    )
    writer.commit()
    require(at.get("new/item") == values.make(1, _PARTIAL), "the value is wrong after commit")
    require(at.names("new") == ["item"], f"after commit there is {at.names('new')}")


@check()
def old_value_until_commit(at: Ground) -> None:
    """While an item is being replaced, everybody sees the old value."""
    old, new = values.make(1, 1000), values.make(2, _PARTIAL)
    at.put("item", old)
    with at.backend.open_writer(at.name("item")) as writer:
        writer.write(new)
        require(at.get("item") == old, "the old value was touched before commit")
        require(at.backend.info(at.name("item")).size == len(old), "info tells the new size")
        require(at.names() == ["item"], f"listed besides the item: {at.names()}")
    require(at.get("item") == new, "commit did not replace the value")


@check()
def abort_leaves_nothing(at: Ground) -> None:
    """After abort nothing was stored; an old value stays. abort can be repeated."""
    at.put("old", b"old")
    for name in ("old", "new"):
        writer = at.backend.open_writer(at.name(name))
        writer.write(values.make(1, _PARTIAL))
        writer.abort()
        writer.abort()
        expect(BackendError, writer.commit, "commit after abort")
    require(at.tree() == {"old": b"old"}, f"after abort there is {sorted(at.tree())}")


@check()
def failed_block_aborts(at: Ground) -> None:
    """A writer's `with` block that raises stores nothing."""
    try:
        with at.backend.open_writer(at.name("item")) as writer:
            writer.write(b"part")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    require(at.tree() == {}, "a block that raised stored something")


@check()
def ended_writer_takes_nothing(at: Ground) -> None:
    """write and commit after commit raise, abort does nothing; the value stays."""
    writer = at.backend.open_writer(at.name("item"))
    writer.write(b"value")
    writer.commit()
    expect(BackendError, lambda: writer.write(b"more"), "write after commit")
    writer.abort()
    require(at.get("item") == b"value", "the value changed after commit")


@check()
def wrong_hash_stores_nothing(at: Ground) -> None:
    """commit refuses bytes without the expected SHA-256; the old value stays."""
    at.put("old", b"old")
    wrong = hashlib.sha256(b"something else").hexdigest()
    for name in ("old", "new"):
        writer = at.backend.open_writer(at.name(name), expected_hash=wrong)
        writer.write(b"value")
        expect(ContentMismatch, writer.commit, "commit with a wrong hash")
        writer.abort()
    require(at.tree() == {"old": b"old"}, f"a wrong hash left {sorted(at.tree())}")
    right = hashlib.sha256(b"value").hexdigest()
    with at.backend.open_writer(at.name("new"), expected_hash=right) as good:
        good.write(b"val")
        good.write(b"ue")
    require(at.get("new") == b"value", "the right hash was not accepted")


@check()
def wrong_size_stores_nothing(at: Ground) -> None:
    """Fewer or more bytes than the announced size are refused; the old value stays."""
    at.put("old", b"old")
    for name in ("old", "new"):
        for value in (b"", b"1234", b"123456"):
            writer = at.backend.open_writer(at.name(name), size=5)

            def send(value: bytes = value) -> None:
                writer.write(value)  # noqa: B023 - called at once
                writer.commit()  # noqa: B023

            expect(ContentMismatch, send, f"{len(value)} bytes where 5 were announced")
            writer.abort()
    require(at.tree() == {"old": b"old"}, f"a wrong size left {sorted(at.tree())}")


@check()
def wrong_content_is_told_though_the_name_is_taken(at: Ground) -> None:
    """With if_absent, too, a commit that says ObjectExists has found the value whole; `check` tells
    beforehand, and changes nothing."""
    at.put("old", b"old")
    right = hashlib.sha256(b"value").hexdigest()
    plans: list[tuple[bytes, int | None, str | None]] = [
        (b"wrong", 5, right),
        (b"wrong", None, right),
        (b"val", 5, None),
    ]
    for name in ("old", "new"):
        for value, size, digest in plans:
            try:
                writer = at.backend.open_writer(
                    at.name(name), size=size, if_absent=True, expected_hash=digest
                )
            except ObjectExists:
                continue  # before anything was sent
            writer.write(value)
            expect(ContentMismatch, writer.check, f"check of wrong content for the {name} name")
            expect(ContentMismatch, writer.commit, f"commit of wrong content to the {name} name")
            writer.abort()
    writer = at.backend.open_writer(at.name("new"), size=5, if_absent=True, expected_hash=right)
    writer.write(b"value")
    writer.check()
    writer.commit()
    require(at.tree() == {"old": b"old", "new": b"value"}, f"left {sorted(at.tree())}")


@check()
def if_absent_keeps_the_old(at: Ground) -> None:
    """A writer with if_absent never replaces an item, not even one that came after it."""
    at.put("old", b"old")
    _refused_if_absent(at, "old")
    late = at.backend.open_writer(at.name("late"), if_absent=True)
    late.write(b"second")
    at.put("late", b"first")
    expect(ObjectExists, late.commit, "commit with if_absent over an item that came meanwhile")
    late.abort()
    require(at.get("old") == b"old", "if_absent replaced an item")
    require(at.get("late") == b"first", "if_absent replaced an item that came meanwhile")
    with at.backend.open_writer(at.name("new"), if_absent=True) as writer:
        writer.write(b"new")
    require(at.get("new") == b"new", "if_absent did not store a new item")
    require(at.names() == ["late", "new", "old"], f"if_absent left {at.names()}")


@check()
def commit_again_after_the_old_was_removed(at: Ground) -> None:
    """A commit that if_absent refused succeeds when the item is out of the way."""
    writer = at.backend.open_writer(at.name("item"), size=3, if_absent=True)
    writer.write(b"new")
    at.put("item", b"old")
    expect(ObjectExists, writer.commit, "commit with if_absent over an item that came meanwhile")
    expect(ObjectExists, writer.commit, "the second commit over that item")
    at.backend.delete(at.name("item"))
    writer.commit()
    require(at.tree() == {"item": b"new"}, f"the last commit left {sorted(at.tree())}")


def _refused_if_absent(at: Ground, name: str) -> None:
    try:
        writer = at.backend.open_writer(at.name(name), if_absent=True)
    except ObjectExists:
        return
    writer.write(b"new")
    expect(ObjectExists, writer.commit, "commit with if_absent over an item")
    writer.abort()


@check()
def reader_keeps_the_old_value(at: Ground) -> None:
    """A reader that was opened before a replacement reads the old value, whole."""
    old, new = values.make(1, 2 * _PARTIAL), values.make(2, _PARTIAL)
    at.put("item", old)
    with at.backend.open_reader(at.name("item")) as reader:
        got = reader.read(1000)
        at.put("item", new)
        while piece := reader.read(values.PIECE):
            got += piece
    require(got == old, "a replacement showed in a reader that was open already")
    require(at.get("item") == new, "the replacement was lost")


@check()
def reader_survives_delete_or_raises(at: Ground) -> None:
    """A reader whose item is deleted reads on whole, or raises; never less without a word."""
    old = values.make(1, 2 * _PARTIAL)
    at.put("item", old)
    with at.backend.open_reader(at.name("item")) as reader:
        got = reader.read(1000)
        at.backend.delete(at.name("item"))
        try:
            while piece := reader.read(values.PIECE):
                got += piece
        except BackendError:
            return
    require(got == old, f"{len(got)} of {len(old)} bytes came without an error")


@check(own_place=True)
def killed_writer_leaves_nothing(at: Ground) -> str:
    """A writer whose process is killed leaves nothing visible and the old value whole."""
    need_processes(at.subject)
    at.put("old", values.make(1, 1000))
    names = [at.name("old"), at.name("new"), at.name("folder/new")]
    with killed_after(at.subject, (_write_and_hold, (names,))):
        items = {name: value for name, value in at.tree().items() if value is not None}
    require(items == {"old": values.make(1, 1000)}, f"after a kill there is {sorted(items)}")
    reaped = at.backend.reap(0)
    items = {name: value for name, value in at.tree().items() if value is not None}
    require(items == {"old": values.make(1, 1000)}, "reap took an item")
    at.put("new", b"again")
    require(at.get("new") == b"again", "the name of a killed writer cannot be written again")
    return f"reap removed {reaped}"


def _write_and_hold(backend: Backend, _: Meet, names: list[str]) -> Held:
    writers = [backend.open_writer(name) for name in names]
    for writer in writers:
        writer.write(values.make(2, _PARTIAL))
    return Held(None, writers)


@check()
def reap_spares_the_living(at: Ground) -> None:
    """reap with a sensible age takes neither items nor writers at work."""
    at.put("item", b"value")
    writer = at.backend.open_writer(at.name("slow"))
    writer.write(values.make(1, _PARTIAL))
    reaped = at.backend.reap(24 * 3600.0)
    if not isinstance(reaped, int):
        raise Violation(f"reap returned {reaped!r}")
    writer.commit()
    require(at.tree() == {"item": b"value", "slow": values.make(1, _PARTIAL)}, "reap lost a value")
