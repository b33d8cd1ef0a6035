"""Writes that another process carries on or gives up."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from ..backends.base import Backend, Writer
from ..backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from . import values
from .processes import Meet, run_jobs
from .subject import Ground
from .suite import check
from .verdicts import expect, require

_VALUE = values.make(7, (12 << 20) + 5)
_CUTS = (0, 5 << 20, (5 << 20) + 3, len(_VALUE))


@check("resumable_write")
def resumed_elsewhere(at: Ground) -> str:
    """A checkpointed write is carried on by other processes and commits the whole value."""
    name, digest = at.name("folder/item"), hashlib.sha256(_VALUE).hexdigest()
    token: str | None = None
    for start, end in itertools.pairwise(_CUTS):
        last = end == len(_VALUE)
        token = _elsewhere(at, _carry_on, name, token, digest, start, end, last)
        items = [each for each, value in at.tree().items() if value is not None]
        require(items == (["folder/item"] if last else []), f"meanwhile listed: {items}")
    require(at.get("folder/item") == _VALUE, "the value carried on is wrong")
    shared = at.backend.capabilities.shared
    return "three processes" if shared else "within this process: no other one sees the place"


def _elsewhere(at: Ground, function: Any, *arguments: object) -> Any:
    if at.backend.capabilities.shared:
        return run_jobs(at.subject, [(function, arguments)])[0]
    return function(at.backend, None, *arguments)


def _carry_on(
    backend: Backend,
    _: Meet | None,
    name: str,
    token: str | None,
    digest: str,
    start: int,
    end: int,
    last: bool,
) -> str | None:
    if token is None:
        writer = backend.open_writer(name, size=len(_VALUE), expected_hash=digest)
    else:
        writer = backend.resume_writer(token)
    require(writer.offset == start, f"resumed at {writer.offset}, not {start}")
    writer.write(_VALUE[start:end])
    require(writer.offset == end, f"the offset is {writer.offset}, not {end}")
    if last:
        writer.commit()
        return None
    token = writer.checkpoint()
    require(type(token) is str, f"a token is a str, not {token!r}")
    expect(BackendError, lambda: writer.write(b"x"), "write after a checkpoint")
    writer.abort()  # must not take the checkpoint with it
    return token


@check("resumable_write")
def abandoned_checkpoint(at: Ground) -> None:
    """abort_writer gives a checkpoint up for good, and may be repeated."""
    token = _checkpoint(at, "item", b"part")
    at.backend.abort_writer(token)
    at.backend.abort_writer(token)
    expect(ObjectNotFound, lambda: at.backend.resume_writer(token), "resuming what was given up")
    require(at.tree() == {}, f"an abandoned checkpoint left {sorted(at.tree())}")


@check("resumable_write")
def finished_checkpoint_is_gone(at: Ground) -> None:
    """After commit the token is spent, and abort_writer does not touch the item."""
    token = _checkpoint(at, "item", b"value")
    at.backend.resume_writer(token).commit()
    expect(ObjectNotFound, lambda: at.backend.resume_writer(token), "resuming what is finished")
    at.backend.abort_writer(token)
    require(at.get("item") == b"value", "abort_writer took a finished item")


@check("resumable_write")
def checkpoint_keeps_the_terms(at: Ground) -> None:
    """Size, hash and if_absent of the first writer hold for those who carry on."""
    at.put("taken later", b"")
    at.backend.delete(at.name("taken later"))
    terms: dict[str, tuple[dict[str, Any], type[BackendError]]] = {
        "size": ({"size": 5}, ContentMismatch),
        "hash": ({"expected_hash": hashlib.sha256(b"other").hexdigest()}, ContentMismatch),
        "taken later": ({"if_absent": True}, ObjectExists),
    }
    for name, (options, error) in terms.items():
        token = _checkpoint(at, name, b"abc", **options)
        if name == "taken later":
            at.put(name, b"first")
        writer = at.backend.resume_writer(token)
        writer.write(b"d")
        expect(error, writer.commit, f"commit of a resumed write against its {name}")
        writer.abort()
    require(at.tree() == {"taken later": b"first"}, f"afterwards there is {sorted(at.tree())}")


@check("resumable_write")
def strange_tokens_are_refused(at: Ground) -> None:
    """Tokens that were never given out are refused (or a ValueError), and touch nothing."""
    at.put("item", b"value")
    own = at.name("item")
    for token in ("", "x", "../../etc/passwd", own, "\0", "[]", "{}", '"' + own + '"', "9" * 5000):
        expect(
            (BackendError, ValueError),
            lambda token=token: at.backend.resume_writer(token),  # type: ignore[misc]
            f"resuming {token[:40]!r}",
        )
        try:
            at.backend.abort_writer(token)
        except (BackendError, ValueError):
            continue  # a refusal is as good as nothing
    require(at.tree() == {"item": b"value"}, "a strange token changed something")


def _checkpoint(at: Ground, name: str, value: bytes, **options: Any) -> str:
    writer = at.backend.open_writer(at.name(name), **options)
    writer.write(value)
    return writer.checkpoint()


@check("resumable_write")
def marked_writes_go_on(at: Ground) -> str:
    """A marked write goes on; left, its token carries it on from what the place has."""
    try:
        _marked(at, "whole").commit()
    except UnsupportedOperation:
        return "no marks: only checkpoints carry a write on"
    require(at.get("whole") == _VALUE, "the value that was marked on its way is wrong")
    writer = at.backend.open_writer(at.name("left"), size=len(_VALUE))
    writer.write(_VALUE[: _CUTS[2]])
    token = writer.mark()
    writer.leave()
    items = [each for each, value in at.tree().items() if value is not None]
    require(items == ["whole"], f"after a write was left, listed: {items}")
    writer = at.backend.resume_writer(token)
    there = writer.offset
    require(0 <= there <= _CUTS[2], f"resumed at {there} of {_CUTS[2]}")
    writer.write(_VALUE[there:])
    writer.commit()
    require(at.get("left") == _VALUE, f"the value carried on from {there} is wrong")
    return f"carried on from {there} of {_CUTS[2]}"


def _marked(at: Ground, name: str) -> Writer:
    writer = at.backend.open_writer(at.name(name), size=len(_VALUE))
    try:
        for start, end in itertools.pairwise(_CUTS):
            writer.write(_VALUE[start:end])
            writer.mark()
    except BaseException:
        writer.abort()
        raise
    return writer
