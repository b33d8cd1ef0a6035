"""A key, and sizes of values, for tests of encryption."""

from __future__ import annotations

from backupgw.kvstore.layers.encrypt_age import CHUNK

SECRET = bytes(range(1, 33))
QUICK = 10
"""A work factor that only tests should use."""

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7)
