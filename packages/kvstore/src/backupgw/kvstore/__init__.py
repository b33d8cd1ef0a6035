"""The storage kernel: one key/value interface over every place where backups live.

`Backend` is what a place implements, `Store` is borgstore's public face on top of one, and
`open_place` turns a URL into a backend.
"""

from .backends.base import Backend, Capabilities, ItemInfo, Reader, Writer
from .backends.errors import BackendError
from .registry import open_place
from .store import Store

__all__ = [
    "Backend",
    "BackendError",
    "Capabilities",
    "ItemInfo",
    "Reader",
    "Store",
    "Writer",
    "open_place",
]
