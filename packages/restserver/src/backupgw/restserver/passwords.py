"""Changing a htpasswd file while a server uses it: one at a time, whole or not at all.

Lines that are not touched stay as they are, comments among them. The new file takes the place of
the old one in one step, with its mode and owner, so that no server ever reads half of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bcrypt

from backupgw.kvstore.names import RESERVED_PREFIX
from backupgw.runtime.auth.htpasswd import BCRYPT_BYTES, MAX_BYTES, HtpasswdError, parse
from backupgw.runtime.command import CommandError
from backupgw.runtime.small_file import read_small_file

COST = 10
"""Of bcrypt: about 50 ms for each log-in that is not remembered."""


def hash_password(password: str, cost: int = COST) -> str:
    """Return what a htpasswd file keeps of a password. Takes long on purpose.

    Raises:
        CommandError: it cannot be a password.
    """
    encoded = password.encode("utf-8", "surrogateescape")
    if not encoded:
        raise CommandError("the password is empty")
    if b"\0" in encoded:
        raise CommandError("the password holds a NUL byte, at which bcrypt would stop reading")
    if len(encoded) > BCRYPT_BYTES:
        raise CommandError(
            f"the password has {len(encoded)} bytes, and bcrypt looks at {BCRYPT_BYTES} only; "
            "choose a shorter one"
        )
    return bcrypt.hashpw(encoded, bcrypt.gensalt(cost)).decode()


def check_user(user: str) -> None:
    """Raise CommandError unless a user may be called so."""
    if ":" in user or "\n" in user or "\r" in user:
        raise CommandError("user names have no ':' and no line break")
    try:
        parse("", f"{user}:{{SHA}}{'A' * 27}=")
    except HtpasswdError as error:
        raise CommandError(str(error).split(": ", 1)[1]) from error


class PasswordFile:
    """A htpasswd file, to be changed by `changing` or read by `read`."""

    def __init__(self, path: Path) -> None:
        """Raises CommandError for a link that somebody else made to a file not theirs: root would
        write where they like."""
        # What is a link stays one: its target is replaced.
        self.path = Path(os.path.realpath(path))
        trusted = {os.geteuid(), 0}
        try:
            link = os.lstat(path)
            with contextlib.suppress(FileNotFoundError):
                trusted.add(os.stat(path).st_uid)
        except OSError:
            return  # there is nothing yet, or no way to it, which reading it will tell
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in trusted:
            raise CommandError(
                f"{path} is a link to {self.path} that another user made; name the file itself"
            )

    def read(self) -> dict[str, str]:
        """Return user → hash; empty where there is no file.

        Raises:
            CommandError: it cannot be read or has bad lines.
        """
        return parse(str(self.path), self._text())

    @contextlib.contextmanager
    def changing(self) -> Iterator[_Lines]:
        """Yield the lines to be changed; they are written at the end, unless it raises.

        Raises:
            CommandError: it cannot be read or written.
        """
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(
                f"{self.path.parent}: {error.strerror}; make the folder, or name another file"
            ) from error
        try:
            # On the folder: a lock on the file itself would be on the one that is replaced.
            fcntl.flock(folder, fcntl.LOCK_EX)
            lines = _Lines(self._text())
            yield lines
            if lines.changed:
                try:
                    self._write(str(lines))
                    os.fsync(folder)
                except OSError as error:
                    raise CommandError(
                        f"{self.path}: cannot be written: {error.strerror}; it is as it was"
                    ) from error
        finally:
            os.close(folder)

    def _text(self) -> str:
        try:
            content = read_small_file(self.path, MAX_BYTES).content
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise CommandError(f"{self.path}: cannot be read: {error.strerror}") from error
        return content.decode("utf-8-sig", "surrogateescape")

    def _write(self, text: str) -> None:
        # A name that no protocol reaches, should the folder be that of the repositories.
        descriptor, name = tempfile.mkstemp(
            prefix=f"{RESERVED_PREFIX}-htpasswd-", dir=self.path.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                self._take_over_rights(file.fileno())
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise

    def _take_over_rights(self, descriptor: int) -> None:
        """Give the new file the mode and owner of the old; a first one is its folder's owner's,
        or a server that does not run as root could not read what root made."""
        try:
            old = os.stat(self.path)
            mode = old.st_mode & 0o777
        except FileNotFoundError:
            old, mode = os.stat(self.path.parent), 0o600
        new = os.fstat(descriptor)
        if os.geteuid() == 0 or (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, mode)


class _Lines:
    """The lines of a file, whatever they say."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()
        self.changed = False

    def __contains__(self, user: str) -> bool:
        return any(_user(line) == user for line in self._lines)

    def put(self, user: str, digest: str) -> None:
        """Set a user's hash, in the user's place or at the end."""
        line = f"{user}:{digest}"
        places = [number for number, old in enumerate(self._lines) if _user(old) == user]
        if places:
            self._lines[places[-1]] = line
            for number in reversed(places[:-1]):
                del self._lines[number]  # the last one counted anyway
        else:
            self._lines.append(line)
        self.changed = True

    def remove(self, user: str) -> None:
        """Take a user out."""
        self._lines = [line for line in self._lines if _user(line) != user]
        self.changed = True

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def _user(line: str) -> str | None:
    line = line.strip(" \t\r")
    user, colon, _ = line.partition(":")
    return user if colon and not line.startswith("#") else None
