"""The one user of `--username` and `--password`, in the shape of a password file."""

from __future__ import annotations

import hashlib
import hmac
import os

from backupgw.runtime.auth import Htpasswd


class SingleUser(Htpasswd):
    """A user whose password this process was told; there is no file.

    Args:
        user: the name.
        password: in plain text.
    """

    def __init__(self, user: str, password: str) -> None:
        self._key = os.urandom(32)
        self.path = ""
        self.users = {user: self._hash(password.encode())}

    def _hash(self, password: bytes) -> str:
        return hashlib.blake2b(password, key=self._key).hexdigest()

    def refresh(self, wait: float = 0.0) -> None:
        """There is nothing that could change."""

    def reload(self) -> None:
        """There is nothing that could change."""

    def verify(self, user: str, password: bytes) -> str | None:
        """Return the user's hash if `password` is right, else None."""
        expected = self.users.get(user, "")
        actual = self._hash(password)
        return actual if hmac.compare_digest(actual, expected) else None
