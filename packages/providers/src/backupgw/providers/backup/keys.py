"""What opens the backups: restic's password and the age key of the archives.

Both are made when they are first needed and kept in the state folder, readable by its owner only,
unless the settings name others. Who loses the machine loses them with it: `backup keys show` prints
a sheet to keep elsewhere, and `backup keys import` takes that sheet on another machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backupgw.kvstore.layers.encrypt_age import Key
from backupgw.kvstore.layers.encrypt_keys import make_key, read_key
from backupgw.runtime.command import CommandError
from backupgw.runtime.secrets import Secret

FOLDER = "keys"
PASSWORD = "restic-password"  # noqa: S105 - a file's name
KEY = "archives.key"

_PASSWORD_LINE = re.compile(r"^\s*restic password:\s*(\S+)\s*$", re.MULTILINE)
_KEY_LINE = re.compile(r"^\s*(AGE-SECRET-KEY-1[0-9A-Z]+)\s*$", re.MULTILINE)


class KeyMissing(CommandError):
    """A key is needed, and making a new one would open nothing."""


@dataclass(frozen=True)
class Sheet:
    """What is to be kept elsewhere; None for what was never needed."""

    password: str | None
    key: str | None


class Keys:
    """The keys of an installation.

    Args:
        folder: of the state of backups.
        password, key: from the settings; they win.
    """

    def __init__(self, folder: Path, password: Secret | None, key: Secret | None) -> None:
        self._folder = folder / FOLDER
        self._password = password
        self._key = key
        self.made: list[Path] = []
        """Files that were made since; whoever sees it should be told to keep a copy."""

    def restic_password(self, *, make: bool) -> str:
        """Return restic's password.

        Args:
            make: one where there is none yet.

        Raises:
            KeyMissing: there is none.
            CommandError: it cannot be had.
        """
        if self._password is not None:
            return self._password.reveal()
        return self._kept(PASSWORD, _new_password if make else None)

    def archive_key(self, *, make: bool) -> Key:
        """Return the key of the archives; see `restic_password`."""
        text = self._key.reveal() if self._key else self._kept(KEY, make_key if make else None)
        try:
            return Key(read_key(text))
        except ValueError as error:
            where = self._key.origin if self._key else self._folder / KEY
            raise CommandError(f"the key of the archives ({where}) {error}") from None

    def archive_key_or_none(self) -> Key | None:
        """Return the key of the archives if there is one."""
        try:
            return self.archive_key(make=False)
        except KeyMissing:
            return None

    def sheet(self) -> Sheet:
        """Return both as text."""
        password = key = None
        with contextlib.suppress(KeyMissing):
            password = self.restic_password(make=False)
        with contextlib.suppress(KeyMissing):
            key = self._key.reveal() if self._key else self._kept(KEY, None)
        return Sheet(password, key)

    def take(self, text: str, *, replace: bool) -> list[str]:
        """Keep what a sheet has; return what that was.

        Args:
            replace: what is there already and differs.

        Raises:
            CommandError: there is nothing in it, or it would replace another key.
        """
        password, key = _PASSWORD_LINE.search(text), _KEY_LINE.search(text)
        found = {PASSWORD: password and password[1], KEY: key and key[1]}
        wanted = {name: value for name, value in found.items() if value}
        if not wanted:
            raise CommandError("there is no key in it; it is to be what `backup keys show` prints")
        for name, value in wanted.items():
            if name == KEY:
                try:
                    read_key(value)
                except ValueError as error:
                    raise CommandError(f"the key {error}") from None
            there = self._read(self._folder / name)
            if there not in (None, value) and not replace:
                raise CommandError(
                    f"{self._folder / name} holds another one, which backups that are there may "
                    "need; --replace puts this one in its place and keeps that one beside it"
                )
        for name, value in wanted.items():
            path = self._folder / name
            there = self._read(path)
            if there not in (None, value):
                os.rename(path, path.with_name(f"{name}.replaced-{secrets.token_hex(4)}"))
            if there != value:
                self._write(path, value)
        return [str(self._folder / name) for name in wanted]

    def _kept(self, name: str, make: Callable[[], str] | None) -> str:
        path = self._folder / name
        text = self._read(path)
        if text is None:
            if make is None:
                raise KeyMissing(
                    f"{path} is not there, and only what the backups were made with opens them; "
                    "`backupgw backup keys import` brings it from the sheet that you kept"
                )
            text = self._write(path, make())
        return text

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise CommandError(f"cannot read {path}: {reason}") from error
        if not text:
            raise CommandError(f"{path} is empty; bring it back from the sheet that you kept")
        return text

    def _write(self, path: Path, text: str) -> str:
        """Put a new file there, whole and synced, and return what is in it: another may be first.

        A backup that nobody can open is worse than none: nothing is sealed with a key that a power
        loss could take.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(f"{text}\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, path)
                self.made.append(path)
            except FileExistsError:
                return self._read(path) or text
            finally:
                temporary.unlink(missing_ok=True)
            for folder in (self._folder, self._folder.parent):
                above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(above)
                finally:
                    os.close(above)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
        return text


def _new_password() -> str:
    """Return a password with 160 bits, in groups that can be typed from paper."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    groups = ["".join(secrets.choice(letters) for _ in range(4)) for _ in range(8)]
    return "-".join(groups)
