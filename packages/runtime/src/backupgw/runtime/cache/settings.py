"""The section `[cache]`, and the cache that it describes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from backupgw.runtime.command import CommandError
from backupgw.runtime.secrets import Secret

from .base import Cache
from .memory import BYTES, ENTRIES, MemoryCache


class CacheSettings(BaseModel):
    """Section `[vfs.cache]`: what is kept for speed's sake. Nothing in it needs a back-up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Secret | None = Field(
        None, description="a Redis that gateways share, redis://HOST/0; none: in each process"
    )
    entries: int = Field(
        ENTRIES, ge=1, le=10_000_000, description="values in a process at most; not for Redis"
    )
    size: int = Field(
        BYTES, ge=1 << 16, description="bytes in a process at most, roughly; not for Redis"
    )
    timeout: float = Field(
        0.25, gt=0, le=10, description="seconds that Redis may take before it is done without"
    )


def open_cache(settings: CacheSettings) -> Cache:
    """Return the cache that the settings describe.

    Raises:
        CommandError: the URL cannot be had or is not Redis's, or its library is missing. A Redis
            that does not answer is no error.
    """
    if settings.url is None:
        return MemoryCache(entries=settings.entries, size=settings.size)
    try:
        from .redis import RedisCache
    except ImportError as error:
        raise CommandError(
            f"[cache] url needs the library {error.name}; install backupgw-runtime[redis]"
        ) from error
    try:
        return RedisCache(settings.url.reveal(), timeout=settings.timeout)
    except ValueError:
        # Not chained: the message may hold the URL, with a password.
        raise CommandError(
            "[cache] url is not a Redis's; write redis://HOST/0, rediss://HOST/0 or unix:///PATH"
        ) from None
