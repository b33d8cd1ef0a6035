"""htpasswd files as rest-server 0.14 reads them: `user:bcrypt` and `user:{SHA}base64`.

rest-server ignores a line it does not understand and locks that user out; here such a line is an
error that names the user and the command that makes a good one. A file that changes is read again;
while a new one is broken or gone, the last good one holds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import bcrypt

from ..command import CommandError
from ..small_file import read_small_file

BCRYPT_BYTES = 72
"""bcrypt looks at no more of a password. The Go library of rest-server and the C library of
Apache's htpasswd cut longer ones off when they verify; so do we, or those users were locked out."""

MAX_COST = 18
"""A guess at this cost takes about 15 s; a higher one in the file is a slip of the finger."""

MAX_BYTES = 16 << 20
SETTLED = 2.0
"""Seconds after which a file that lost users is believed: tools and editors truncate before they
write, and what is missing may be about to come."""

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}\Z")
_SHA = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=\Z")
# Only the cost and the salt matter: what it is compared with is never equal.
_DUMMY_SALT = b"$2b$%02d$abcdefghijklmnopqrstuu"

_log = logging.getLogger(__name__)


class HtpasswdError(CommandError):
    """The file cannot be read or has bad lines; one line of text for each, with file:line."""


def parse(path: str, text: str) -> dict[str, str]:
    """Return user → hash.

    Raises:
        HtpasswdError: with every bad line. Hashes are not repeated.
    """
    users: dict[str, str] = {}
    mistakes = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        # Apache allows more fields after the hash, and ignores them.
        user, colon, rest = line.partition(":")
        digest = rest.partition(":")[0].strip()
        mistake = _mistake(path, user, digest) if colon else "has no ':'; want user:hash"
        if mistake:
            mistakes.append(f"{path}:{number}: {mistake}")
            continue
        if user in users:
            _log.warning("%s:%d: user %s is there twice; the last line counts", path, number, user)
        users[user] = digest
    if mistakes:
        raise HtpasswdError("\n".join(mistakes))
    return users


def _mistake(path: str, user: str, digest: str) -> str:
    # rest-server's rule: letters of any script, digits, "@", ".", "_", "-".
    if not user or not all(c.isalpha() or c in "0123456789@._-" for c in user):
        return (
            f"user name {user[:64]!r} has other characters than letters, digits and @._-; "
            "choose another name"
        )
    if user in (".", ".."):
        return f"user name {user!r} cannot be a folder's name; choose another name"
    if match := _BCRYPT.match(digest):
        if not 4 <= int(match[1]) <= MAX_COST:
            return (
                f"user {user}: bcrypt cost {int(match[1])} is not between 4 and {MAX_COST}; "
                f"run: htpasswd -B -C 10 {path} {user}"
            )
        return ""
    if _SHA.match(digest):
        return ""
    return (
        f"user {user}: {_kind(digest)}, and only bcrypt and {{SHA}} are accepted; "
        f"run: htpasswd -B {path} {user}"
    )


def _kind(digest: str) -> str:
    if not digest:
        return "there is no hash"
    if digest.startswith("$2"):
        return "the bcrypt hash is damaged"
    if digest.startswith("{SHA}"):
        return "the {SHA} hash is damaged"
    for prefix, name in (
        ("$apr1$", "the hash is Apache's MD5"),
        ("$1$", "the hash is MD5"),
        ("$5$", "the hash is SHA-256"),
        ("$6$", "the hash is SHA-512"),
        ("$y$", "the hash is yescrypt"),
        ("$argon2", "the hash is Argon2"),
    ):
        if digest.startswith(prefix):
            return name
    return "the hash is of no known kind"


class Htpasswd:
    """The users of one file, read again when it changes. All methods may be called by any thread.

    Attributes:
        users: user → hash; replaced whole, never changed in place.
    """

    users: Mapping[str, str]

    def __init__(self, path: str | Path) -> None:
        """Read the file.

        Raises:
            HtpasswdError: it cannot be read, or has bad lines.
        """
        self.path = str(path)
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._dummy_costs: tuple[int, ...] = ()
        try:
            content, seen = self._read()
        except OSError as error:
            # Never advise `htpasswd -c` on a file that exists: it empties it.
            advice = (
                f"make it with: htpasswd -B -c {self.path} USER"
                if isinstance(error, FileNotFoundError) and not os.path.lexists(self.path)
                else "check what it is, its owner and its mode"
            )
            raise HtpasswdError(
                f"{self.path}: cannot be read: {error.strerror}; {advice}"
            ) from error
        self._use(parse(self.path, content))
        self._seen = seen
        if not self.users:
            _log.warning("%s holds no user: nobody can log in", self.path)

    def refresh(self, wait: float = 0.0) -> None:
        """Read the file again if it is another one than before. Blocks; for a thread.

        Never raises: while the new one is broken, gone or half written, the last good one holds,
        and what is wrong is logged once.

        Args:
            wait: seconds for a thread that is at it, and that may have looked too early; where a
                disk does not answer, the last good one holds after them.
        """
        if not self._lock.acquire(timeout=wait):
            return
        try:
            self._refresh(force=False)
        finally:
            self._lock.release()

    def reload(self) -> None:
        """Like `refresh`, whether it looks changed or not (SIGHUP)."""
        with self._lock:
            self._refresh(force=True)

    def _refresh(self, *, force: bool) -> None:
        try:
            if not force and self._signature(os.stat(self.path)) == self._seen:
                return
            content, seen = self._read()
        except OSError as error:
            gone = (error.errno or -1,)
            if self._seen != gone or force:
                _log.error("%s: %s; the last good one holds", self.path, error.strerror)
                self._seen = gone
            return
        if seen is None:
            return  # being written right now; the next look finds it whole
        try:
            users = parse(self.path, content)
        except HtpasswdError as error:
            if self._seen != seen or force:
                _log.error("%s\nthe last good %s holds", error, self.path)
                self._seen = seen
            return
        if self.users.keys() - users.keys() and 0 <= time.time() - seen[0] / 1e9 < SETTLED:
            return  # after SIGHUP too: that may be meant for the logs or the certificate
        self._use(users)
        self._seen = seen
        _log.info("read %s again: %d users", self.path, len(users))

    def _read(self) -> tuple[str, tuple[int, ...] | None]:
        """Return the content and what identifies it; None for that if it changed under us."""
        content, before, after = read_small_file(self.path, MAX_BYTES)
        same = self._signature(before) == self._signature(after)
        text = content.decode("utf-8-sig", "surrogateescape")
        return text, self._signature(before) if same else None

    @staticmethod
    def _signature(status: os.stat_result) -> tuple[int, ...]:
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev

    def _use(self, users: dict[str, str]) -> None:
        costs = [int(match[1]) for match in map(_BCRYPT.match, users.values()) if match]
        self._dummy_costs = (max(costs),) if costs else ()
        self.users = users

    def verify(self, user: str, password: bytes) -> str | None:
        """Return the user's hash if `password` is right, else None. Blocks: bcrypt is slow.

        A refusal takes as long for a user who does not exist as for one who does, whichever hash
        that one has: the work of the dearest hash in the file.
        """
        users, costs = self.users, self._dummy_costs
        digest = users.get(user)
        password_cut = password[:BCRYPT_BYTES]
        spent = 0
        if digest is None or digest.startswith("{SHA}"):
            expected = (digest or "{SHA}").encode()
            actual = b"{SHA}" + base64.b64encode(hashlib.sha1(password).digest())  # noqa: S324
            if hmac.compare_digest(expected, actual):
                return digest
        else:
            spent = int(digest[4:6])
            if bcrypt.checkpw(password_cut, digest.encode()):
                return digest
        for cost in costs:
            # Work doubles with each cost: c, then c, c+1 … max-1 add up to exactly max.
            steps = range(spent, cost) if spent else (cost,)
            for step in steps:
                bcrypt.hashpw(password_cut, _DUMMY_SALT % step)
        return None
