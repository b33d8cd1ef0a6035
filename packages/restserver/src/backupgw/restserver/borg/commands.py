"""borgstore's commands: mkdir, move, hash, quota, gather, defrag."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from backupgw.kvstore import parts
from backupgw.kvstore.backends.base import CHUNK, Backend
from backupgw.kvstore.backends.errors import ObjectNotFound, ReadRangeError
from backupgw.kvstore.utils import hashing
from backupgw.kvstore.utils.nesting import nest
from backupgw.runtime.threads import Threads

from ..exchange import OCTETS
from ..refusals import Headers
from . import requests
from .answers import JSON, BorgExchange
from .requests import BadRequest

MOST_SOURCES = 8 << 20
"""Bytes of the body of gather and defrag at most; Borg sends about 100 KB."""

GATHERED_WHOLE = 4 << 20
"""Bytes of gathered parts that are fetched in one go; more is streamed."""


async def run_command(
    exchange: BorgExchange, backend: Backend, name: str, query: dict[str, str], threads: Threads
) -> None:
    """Carry out what a POST with a command asks for, and answer.

    Args:
        name: the item or folder that it is about, "" for none.
        query: the parameters, `cmd` among them.

    Raises:
        BadRequest: there is no such command.
        BackendError: it failed.
    """
    run = threads.run
    match query["cmd"]:
        case "mkdir" if name:
            await run(backend.mkdir, name)
            await exchange.answer(200)
        case "move":
            current, new = requests.named(query, "current"), requests.named(query, "new")
            await run(backend.move, current, new)
            await exchange.answer(200)
        case "hash" if name:
            digest = await run(_hash, backend, name, query.get("algorithm", "sha256"))
            await exchange.answer(200, digest)
        case "quota":
            quota = await run(backend.quota)
            found = json.dumps({"limit": quota.limit, "usage": quota.usage})
            await exchange.answer(200, found, [JSON])
        case "gather":
            sources = requests.sources_of(await exchange.whole_body(MOST_SOURCES))
            await _gather(exchange, backend, sources, threads)
        case "defrag":
            sources = requests.sources_of(await exchange.whole_body(MOST_SOURCES))
            await exchange.answer(200, await run(_defrag, backend, sources, query))
        case _:
            raise BadRequest(f"no such command, or not for this name: {query['cmd']!r}")


async def _gather(
    exchange: BorgExchange, backend: Backend, sources: Sequence[requests.Part], threads: Threads
) -> None:
    size = sum(part[2] for part in sources)
    head: Headers = [(b"content-length", b"%d" % size), OCTETS]
    if size <= GATHERED_WHOLE:
        body = await threads.run(backend.gather, sources)
        await exchange.send_whole(200, head, body)
        return
    await threads.run(_check_ranges, backend, sources)
    await exchange.start(200, head)
    chunks = parts.chunks(backend, sources)
    while chunk := await threads.run(next, chunks, b""):
        await exchange.send_body(chunk, more=True)
    await exchange.send_body(b"", more=False)


def _hash(backend: Backend, name: str, algorithm: str) -> str:
    try:
        digest = hashing.new(algorithm)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if algorithm in hashlib.algorithms_available:
        return backend.hash(name, algorithm)
    with backend.open_reader(name) as reader:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_ranges(backend: Backend, sources: Sequence[requests.Part]) -> None:
    """Find out before the first byte is sent whether every part is there."""
    sizes: dict[str, int] = {}
    for name, offset, size in sources:
        if name not in sizes:
            info = backend.info(name)
            if not info.exists or info.directory:
                raise ObjectNotFound(name)
            sizes[name] = info.size
        first = max(sizes[name] + offset, 0) if offset < 0 else offset
        if first + size > sizes[name]:
            raise ReadRangeError(f"{name}: {size} bytes at {offset}, of {sizes[name]}")


def _defrag(backend: Backend, sources: Sequence[requests.Part], query: dict[str, str]) -> str:
    if query.get("target"):
        target = requests.named(query, "target")
        backend.defrag(sources, target)
        return target
    algorithm = query.get("algorithm")
    if not algorithm:
        raise BadRequest("defrag needs a target or an algorithm")
    levels = query.get("levels", "0")
    if not (levels.isascii() and levels.isdigit() and int(levels) <= 8):
        raise BadRequest(f"levels is a number up to 8, not {levels!r}")
    try:
        digest = parts.hash_of(backend, sources, algorithm)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    namespace = query.get("namespace", "").rstrip("/")
    name = f"{namespace}/{digest}" if namespace else digest
    target = requests.named({"target": nest(name, int(levels)) if int(levels) else name}, "target")
    parts.write_verified(backend, sources, target, algorithm, digest)
    return target
