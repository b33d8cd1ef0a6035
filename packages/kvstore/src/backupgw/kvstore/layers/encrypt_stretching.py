"""What makes a key of a passphrase: scrypt, which takes a processor a while, on purpose.

How it is done for a place stands in the place, for everybody to read: a salt and a work factor.
Who remembers them from the last time can begin before the place is reached, and have it done beside
that, by a process of its own: one in which nothing else runs can still be forked for other things
meanwhile. Nothing but the standard library is imported here at first, since it is to begin before
anything else is; libsodium, which paramiko brings, takes two thirds of the time of OpenSSL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Mapping
from typing import NamedTuple, NoReturn, Protocol, Self

MOST_WORK = 20
"""What is asked for beyond it is refused: 1 GiB, and about four seconds."""

_LABEL = b"age-encryption.org/v1/scrypt"
_SALT = 16
_KEY = 32


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
        """Return the 32 bytes. It takes its time, in which other threads run."""
        return _scrypt(passphrase.encode(), _LABEL + self.salt, 1 << self.work)


def _scrypt(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    most = cost * 1024 + (2 << 20)
    try:
        from nacl.bindings import crypto_pwhash_scryptsalsa208sha256_ll as faster
    except ImportError:
        pass
    else:
        # A build of it may lack this, and it may find no memory: OpenSSL says so in its own way.
        with contextlib.suppress(RuntimeError):
            return faster(passphrase, salt, cost, 8, 1, _KEY, most)
    return hashlib.scrypt(passphrase, salt=salt, n=cost, r=8, p=1, dklen=_KEY, maxmem=most)


class _Worker(Protocol):
    """What a passphrase is being stretched by."""

    def prepare_fork(self) -> None: ...
    def key(self) -> bytes | None: ...
    def drop(self) -> None: ...


class Stretching:
    """A passphrase being stretched for a place that is not reached yet: by a process, or by a
    thread where others run already. What comes of it is in memory until `drop`, and nowhere else.

    Args:
        passphrase: a secret.
        stretch: how the place's key was sealed the last time that anybody looked.
    """

    def __init__(self, passphrase: str, stretch: Stretch) -> None:
        self._stretch = stretch
        alone = hasattr(os, "fork") and threading.active_count() == 1
        self._worker: _Worker = (_Process if alone else _Thread)(passphrase, stretch)

    def prepare_fork(self) -> None:
        """Return when no thread of it runs any more."""
        self._worker.prepare_fork()

    def key(self, stretch: Stretch) -> bytes | None:
        """Return the key, when it is there; None where this is not what was begun, or it failed."""
        return self._worker.key() if stretch == self._stretch else None

    def drop(self) -> None:
        """Forget the key; also the one that is still being made. Idempotent."""
        self._worker.drop()


class _Thread:
    def __init__(self, passphrase: str, stretch: Stretch) -> None:
        self._keys: list[bytes] = []
        self._thread = threading.Thread(
            target=_stretch, args=(passphrase, stretch, self._keys), name="stretching", daemon=True
        )
        self._thread.start()

    def prepare_fork(self) -> None:
        self._thread.join()

    def key(self) -> bytes | None:
        self._thread.join()
        return self._keys[0] if self._keys else None

    def drop(self) -> None:
        self._keys.clear()
        self._keys = []


def _stretch(passphrase: str, stretch: Stretch, keys: list[bytes]) -> None:
    try:
        keys.append(stretch.key(passphrase))
    except (MemoryError, ValueError):  # OpenSSL has no memory for it
        return  # who needs the key tries again, and tells


class _Process:
    """It writes the key into a pipe and ends; processes that are forked beside it leave it alone.

    What is not read by then is lost with the pipe.
    """

    def __init__(self, passphrase: str, stretch: Stretch) -> None:
        self._key: bytes | None = None
        self._parent = os.getpid()
        ours, theirs = os.pipe()
        self._pipe = ours
        self._pid = os.fork()
        if self._pid == 0:
            _stretch_for(theirs, passphrase, stretch)
        os.close(theirs)

    def prepare_fork(self) -> None:
        """Nothing of it is a thread."""

    def key(self) -> bytes | None:
        if self._key is None and self._pipe >= 0:
            key = b""
            while len(key) < _KEY and (more := os.read(self._pipe, _KEY - len(key))):
                key += more
            self._key = key if len(key) == _KEY else None
            self._end()
        return self._key

    def drop(self) -> None:
        self._key = None
        self._end()

    def _end(self) -> None:
        if self._pipe < 0:
            return
        os.close(self._pipe)
        self._pipe = -1
        if self._parent == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # not waited for above, so it is still its own
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)


def _stretch_for(pipe: int, passphrase: str, stretch: Stretch) -> NoReturn:
    """Be the process that stretches, to the end of it."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.write(pipe, stretch.key(passphrase))
    except (MemoryError, ValueError, OSError):
        pass  # its parent tries again, and tells; or is there no more
    finally:
        os._exit(0)  # what its parent has to do at its end is not to be done here
