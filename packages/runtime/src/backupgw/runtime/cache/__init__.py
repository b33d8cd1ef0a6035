"""What may be forgotten at any moment: answers that are costly to get, kept for a while.

    cache = open_cache(settings)
    names = cache.namespace("listing")
    names.set("alice", ["laptop", "server"], ttl=30)
    names.get("alice")

In process by default; in Redis when several gateways share what they know. A lost cache costs
speed only: no call raises for what happened to the cache, and nothing that must be right (a limit,
a lock, a permission's withdrawal) may rest on one.
"""

from .base import Cache, Json
from .memory import MemoryCache
from .settings import CacheSettings, open_cache

__all__ = ["Cache", "CacheSettings", "Json", "MemoryCache", "open_cache"]
