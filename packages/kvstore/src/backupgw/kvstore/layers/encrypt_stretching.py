"""What makes a key of a passphrase: scrypt, which takes half a second of a processor on purpose.

How it is done for a place stands in the place, for everybody to read: a salt and a work factor.
Who remembers them from the last time can begin before the place is reached, and have it done beside
that: `hashlib.scrypt` lets other threads run meanwhile. Nothing but the standard library is
imported here, since it is to begin before anything else is.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import NamedTuple, Self

MOST_WORK = 20
"""What is asked for beyond it is refused: 1 GiB, and about four seconds."""

_LABEL = b"age-encryption.org/v1/scrypt"
_SALT = 16


class Stretch(NamedTuple):
    """How a passphrase becomes a key (https://c2sp.org/age, "scrypt recipient stanza"). No secret.

    Attributes:
        salt: 16 bytes.
        work: scrypt's cost is 2 to the power of this.
    """

    salt: bytes
    work: int

    @classmethod
    def of_record(cls, record: object) -> Self | None:
        """Return what `record` was made of; None where that is no such thing."""
        if not isinstance(record, Mapping):
            return None
        salt, work = record.get("salt"), record.get("work")
        if not isinstance(salt, str) or type(work) is not int or not 1 <= work <= MOST_WORK:
            return None
        try:
            found = bytes.fromhex(salt)
        except ValueError:
            return None
        return cls(found, work) if len(found) == _SALT else None

    def record(self) -> dict[str, object]:
        """Return it for a JSON file."""
        return {"salt": self.salt.hex(), "work": self.work}

    def key(self, passphrase: str) -> bytes:
        """Return the 32 bytes. It takes its time."""
        return hashlib.scrypt(
            passphrase.encode(),
            salt=_LABEL + self.salt,
            n=1 << self.work,
            r=8,
            p=1,
            dklen=32,
            maxmem=(1 << self.work) * 1024 + (1 << 20),
        )


class Stretching:
    """A passphrase being stretched by a thread, for a place that is not reached yet. What comes of
    it is in memory until `drop`, and nowhere else.

    Args:
        passphrase: a secret.
        stretch: how the place's key was sealed the last time that anybody looked.
    """

    def __init__(self, passphrase: str, stretch: Stretch) -> None:
        self._stretch = stretch
        self._keys: list[bytes] = []
        self._thread = threading.Thread(
            target=_stretch, args=(passphrase, stretch, self._keys), name="stretching", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Return when its thread has ended."""
        self._thread.join()

    def key(self, stretch: Stretch) -> bytes | None:
        """Return the key, when it is there; None where this is not what was begun, or it failed."""
        if stretch != self._stretch:
            return None
        self.wait()
        return self._keys[0] if self._keys else None

    def drop(self) -> None:
        """Forget the key; also the one that the thread is still at."""
        self._keys.clear()
        self._keys = []


def _stretch(passphrase: str, stretch: Stretch, keys: list[bytes]) -> None:
    try:
        keys.append(stretch.key(passphrase))
    except (MemoryError, ValueError):  # OpenSSL has no memory for it
        return  # who needs the key tries again, and tells
