"""The places that a Store opens by URL, with borgstore's permissions and quota for folders."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .backends.base import Backend
from .backends.errors import BackendMustBeOpen, BackendMustNotBeOpen
from .backends.posixfs import PosixFS
from .backends.rest import get_rest_backend
from .layers.permissions import PermissionsLayer
from .layers.quota import QuotaLayer
from .ledger import Limit, SQLiteLedger
from .names import RESERVED_PREFIX
from .registry import open_place, schemes

Permissions = Mapping[str, str]

_ACCOUNTS = f"{RESERVED_PREFIX}-quota/ledger.sqlite3"
_SCOPE = "store"


def get_backend(
    url: str, permissions: Permissions | None = None, quota: int | None = None
) -> Backend | None:
    """Return the backend for `url`, or None where no backend has its scheme.

    The servers of `http:`, `https:` and `rest:` take borgstore's variables (BORGSTORE_RSH,
    BORGSTORE_REST_USERNAME, BORGSTORE_REST_PASSWORD).

    Args:
        permissions: borgstore's letters by name; for file URLs, as in borgstore.
        quota: bytes that the folder may hold; for file URLs.

    Raises:
        BackendURLInvalid: the scheme's backend does not understand the rest.
        BackendDoesNotExist: the library that reaches the place is not installed.
        ValueError: permissions or quota for another URL.
    """
    scheme = url.partition(":")[0].lower()
    if scheme != "file":
        if permissions is not None:
            raise ValueError("Permissions are only supported for the 'file:' backend.")
        if quota is not None:
            raise ValueError("Quota is only supported for the 'file:' backend.")
        if scheme in ("http", "https", "rest"):
            return get_rest_backend(url)
        return open_place(url) if scheme in schemes() else None
    backend = open_place(url)
    if quota is not None and isinstance(backend, PosixFS):
        backend = LimitedFolder(backend, quota)
    return backend if permissions is None else PermissionsLayer(backend, permissions)


class LimitedFolder(QuotaLayer):
    """A folder that may hold so many bytes. What it holds is counted in a file of the kernel's own
    in it, exact among processes and after a crash (`ledger`)."""

    def __init__(self, folder: PosixFS, limit: int) -> None:
        self._path = folder.path
        self._limit = limit
        self._opened = False
        ledger = SQLiteLedger(os.path.join(folder.path, _ACCOUNTS))
        super().__init__(folder, ledger, lambda _name: (_SCOPE,), total=_SCOPE)

    def destroy(self) -> None:
        self.inner.destroy()  # the accounts lie in it

    def open(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen(self._path)
        self.inner.open()  # a folder that is missing must not be made by its accounts
        self.inner.close()
        self.ledger.open()
        try:
            self.ledger.set_limit(_SCOPE, Limit(hard_bytes=self._limit))
            super().open()
        except BaseException:
            self.ledger.close()
            raise
        self._opened = True

    def close(self) -> None:
        if not self._opened:
            raise BackendMustBeOpen(self._path)
        self._opened = False
        super().close()
        self.ledger.close()
