"""The cache that a Store was told to have."""

from __future__ import annotations

from collections.abc import Mapping

from .backends.adapted import Foreign, as_backend
from .backends.base import Backend
from .backends.errors import BackendURLInvalid
from .layers.cache_items import Cache
from .layers.cache_policy import CachePolicy, policies
from .registry import redact_url
from .statistics import Statistics
from .store_places import get_backend


def cache_of(
    config: Mapping[str, Mapping[str, object]],
    url: str | None,
    backend: Backend | Foreign | None,
    statistics: Statistics,
) -> Cache | None:
    """Return the cache for the modes in a Store's config, None where nothing is to be cached.

    Args:
        url, backend: where it lies; one of them at most.

    Raises:
        BackendURLInvalid, BackendDoesNotExist: as `get_backend`.
        ValueError: both are given, or none though a namespace wants a cache.
    """
    found = policies(
        {namespace: CachePolicy.from_config(each) for namespace, each in config.items()}
    )
    if url is not None and backend is not None:
        raise ValueError("Only one of cache_url and cache_backend can be given.")
    if url is not None:
        backend = get_backend(url)
        if backend is None:
            raise BackendURLInvalid(f"Invalid or unsupported Cache Backend URL: {redact_url(url)}")
    if backend is None:
        if found:
            raise ValueError(
                "cache_url or cache_backend is required for cache modes other than C_OFF."
            )
        return None
    return Cache(as_backend(backend), found, statistics)
