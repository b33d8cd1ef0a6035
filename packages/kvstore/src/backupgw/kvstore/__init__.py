"""The storage kernel: one key/value interface over every place where backups live.

`Backend` is what a place implements, `Store` is borgstore's public face on top of one, and
`open_place` turns a URL into a backend. `Store` is imported when it is asked for: what it brings
along takes longer than everything else, and most programs use backends.
"""

from typing import TYPE_CHECKING, Any

from .backends.base import Backend, Capabilities, ItemInfo, Reader, Writer
from .backends.errors import BackendError
from .registry import open_place

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name == "Store":
        from .store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
