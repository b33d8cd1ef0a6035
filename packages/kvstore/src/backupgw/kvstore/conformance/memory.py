"""How much memory Python's objects take while something runs."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


class Memory:
    """Bytes that Python objects took: at most, and still at the end."""

    peak = 0
    kept = 0

    @property
    def on_top(self) -> str:
        return f"{(self.peak - self.kept) >> 20} MiB of memory besides {self.kept >> 20} MiB kept"


@contextmanager
def measured() -> Iterator[Memory]:
    """Measure the block; the result is filled in when it ends."""
    result = Memory()
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        gc.collect()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield result
        gc.collect()
        now, peak = tracemalloc.get_traced_memory()
        result.peak, result.kept = peak - before, now - before
    finally:
        if not was_tracing:
            tracemalloc.stop()
