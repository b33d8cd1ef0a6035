"""The cache in Redis (or Valkey), which several gateways share.

Redis away, slow or full costs a miss and nothing else: every command has a time limit, and after a
few failures in a row Redis is left alone but for one try now and then (`breaker`). What was to be
deleted in the meantime is remembered and deleted before anything is read again, so that no value
comes back that this process had withdrawn.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .base import LARGEST_VALUE, Json, check_namespace, check_ttl, decode, encode
from .breaker import Breaker
from .counts import Counts

logger = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "backupgw:cache"
TIMEOUT = 0.25
"""Seconds for a connection, and for each command."""
CONNECTIONS = 16
LONGEST_KEY = 200
"""Bytes; a longer key goes by its SHA-256."""
WITHDRAWN = 1000
"""Deletions remembered while Redis is away; past that the whole cache is emptied."""
BATCH = 500
EVERYTHING = b""

# What redis-py lets out when something is wrong with the server or on the way to it.
_ERRORS = (redis.RedisError, OSError)


class _Away(Exception):
    """Redis did not answer, or was not asked."""


class _Server:
    """The connections, and what is known of the server; shared by all namespaces."""

    def __init__(self, url: str, timeout: float, connections: int, breaker: Breaker) -> None:
        self.counts = Counts("redis")
        self.counts.available(yes=True)
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # The breaker decides about trying again.
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
        self._client = redis.Redis(connection_pool=pool)
        self._pool = pool
        self._breaker = breaker
        self._lock = threading.Lock()
        # What is to be deleted before anything is read, each with a number that grows; EVERYTHING
        # stands for all keys.
        self._withdrawn: dict[bytes, int] = {}
        self._number = 0
        self._flushing = threading.Lock()

    def ask(self, operation: str, command: Callable[[redis.Redis], T]) -> T:
        """Run a command. Raises _Away, counted."""
        if not self._breaker.allows():
            self.counts.add(operation, "skipped")
            raise _Away
        try:
            if self._withdrawn:
                self._withdraw()
            answer = command(self._client)
        except _ERRORS as error:
            self.counts.add(operation, "error")
            if self._breaker.failed():
                self.counts.available(yes=False)
                # The class only: a message may hold the URL.
                logger.warning("the cache in Redis is away (%s)", type(error).__name__)
            raise _Away from error
        except BaseException:
            self._breaker.failed()
            raise
        if self._breaker.succeeded():
            self.counts.available(yes=True)
            logger.info("the cache in Redis is back")
        return answer

    def remember(self, key: bytes) -> None:
        """Note a deletion that Redis may not have heard of."""
        with self._lock:
            self._number += 1
            if key == EVERYTHING or len(self._withdrawn) >= WITHDRAWN:
                self._withdrawn.clear()
                key = EVERYTHING
            self._withdrawn[key] = self._number

    def _withdraw(self) -> None:
        """Delete what was to be deleted. Raises what redis-py does; it is kept for later then."""
        with self._flushing:
            # Others wait here and read afterwards: nobody reads what is still to be deleted.
            with self._lock:
                keys, number = list(self._withdrawn), self._number
            if EVERYTHING in keys:
                empty(self._client, PREFIX)
            elif keys:
                self._client.delete(*keys)
            with self._lock:
                for key in keys:
                    # One that was noted again in the meantime stays.
                    if self._withdrawn.get(key, number + 1) <= number:
                        del self._withdrawn[key]

    def close(self) -> None:
        with suppress(*_ERRORS):
            self._client.close()
        self._pool.disconnect()


class RedisCache:
    """Values under `backupgw:cache:…` in a Redis; for any thread, not for the event loop."""

    shared = True
    blocking = True

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        connections: int = CONNECTIONS,
        breaker: Breaker | None = None,
    ) -> None:
        """Describe a cache; it connects when it is used, so Redis may start later.

        Args:
            url: redis://, rediss:// (TLS) or unix://, with user, password and number.
            timeout: seconds for connecting, and for a command.
            connections: at a time; further callers wait for `timeout`, then go without.

        Raises:
            ValueError: the URL is of none of these kinds.
        """
        self._server = _Server(url, timeout, connections, breaker or Breaker())
        self._prefix = PREFIX

    def get(self, key: str, default: Json = None) -> Json:
        name = self._name(key)
        try:
            written = self._server.ask("get", lambda client: client.get(name))
        except _Away:
            return default
        return self._read(name, cast("bytes | None", written), default)

    def get_many(self, keys: Sequence[str]) -> list[Json]:
        names = [self._name(key) for key in keys]
        try:
            written = self._server.ask("get", lambda client: client.mget(names))
        except _Away:
            return [None] * len(names)
        found = cast("list[bytes | None]", written)
        return [self._read(name, each, None) for name, each in zip(names, found, strict=True)]

    def _read(self, name: bytes, written: bytes | None, default: Json) -> Json:
        if written is None:
            self._server.counts.add("get", "miss")
            return default
        try:
            value = decode(written)
        except (ValueError, RecursionError):
            # Somebody else's value under our key: as good as none.
            self._server.counts.add("get", "error")
            self._delete(name)
            return default
        self._server.counts.add("get", "hit")
        return value

    def set(self, key: str, value: Json, ttl: float) -> None:
        written = encode(value)
        milliseconds = max(1, int(check_ttl(ttl) * 1000))
        name = self._name(key)
        if len(written) > LARGEST_VALUE:
            self._delete(name)
            self._server.counts.add("set", "too_large")
            return
        try:
            self._server.ask("set", lambda client: client.set(name, written, px=milliseconds))
        except _Away:
            # The value before this one is not to come back either.
            self._server.remember(name)
            return
        self._server.counts.add("set", "done")

    def delete(self, key: str) -> None:
        self._delete(self._name(key))

    def _delete(self, name: bytes) -> None:
        try:
            self._server.ask("delete", lambda client: client.delete(name))
        except _Away:
            self._server.remember(name)
            return
        self._server.counts.add("delete", "done")

    def clear(self) -> None:
        try:
            self._server.ask("clear", lambda client: empty(client, self._prefix))
        except _Away:
            self._server.remember(EVERYTHING)
            return
        self._server.counts.add("clear", "done")

    def namespace(self, name: str) -> RedisCache:
        inner = RedisCache.__new__(RedisCache)
        inner._server = self._server
        inner._prefix = f"{self._prefix}:{check_namespace(name)}"
        return inner

    def close(self) -> None:
        self._server.close()

    def _name(self, key: str) -> bytes:
        raw = key.encode("utf-8", "surrogatepass")
        # "=" and "#" are in no namespace, so no key of one can be a key of another.
        if len(raw) > LONGEST_KEY:
            return f"{self._prefix}:#{hashlib.sha256(raw).hexdigest()}".encode()
        return f"{self._prefix}:=".encode() + raw


def empty(client: redis.Redis, prefix: str) -> None:
    """Delete all keys below a prefix, some at a time. Raises what redis-py does."""
    # A prefix is of namespaces' letters: nothing in it is a pattern.
    keys = []
    for key in client.scan_iter(match=f"{prefix}:*", count=BATCH):
        keys.append(key)
        if len(keys) >= BATCH:
            client.unlink(*keys)
            keys.clear()
    if keys:
        client.unlink(*keys)
