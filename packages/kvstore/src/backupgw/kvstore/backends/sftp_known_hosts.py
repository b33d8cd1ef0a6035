"""Which key a host is known by: the files of known hosts, as sshd(8) describes them."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import paramiko

from .errors import BackendConnectionError, BackendError


@dataclass(frozen=True)
class KnownKey:
    """One line that speaks of a host."""

    kind: str
    key: bytes
    revoked: bool
    file: str
    line: int


class HostKeyRefused(BackendConnectionError):
    """The key that a host shows is not the one it is known by; trying again does not help."""

    retryable = False


def known_keys(files: Sequence[str], name: str) -> list[KnownKey]:
    """Return the keys by which the host `name` is known; "[host]:port" is known by "host", too,
    where nothing stands under its own name (as ssh does it).

    Raises:
        BackendError: a file is there and cannot be read.
    """
    found = [*_matching(files, name)]
    if not any(not each.revoked for each in found) and name.startswith("["):
        found += _matching(files, name[1:].rpartition("]")[0])
    return found


def check(
    presented: paramiko.PKey, known: Sequence[KnownKey], *, name: str, where: str, strict: str
) -> bool:
    """Decide on the key that a host presented; whether it is to be noted as a new one.

    Args:
        name: under which it would stand in a file of known hosts.
        where: the file that a new one would be written to.
        strict: as `sftp_config.Host.strict` has it.

    Raises:
        HostKeyRefused: it is unknown, another one than before, or revoked; the message has the
            fingerprint and what to do.
    """
    kind, key = presented.get_name(), presented.asbytes()
    said = f"{kind} {fingerprint(key)}"
    for each in known:
        if each.revoked and each.key == key:
            raise HostKeyRefused(
                f"{name} shows the host key {said}, which {each.file} line {each.line} revokes"
            )
    usable = [each for each in known if not each.revoked]
    if any(each.key == key for each in usable):
        return False
    changed = next((each for each in usable if each.kind == kind), None) or next(iter(usable), None)
    if changed is not None:
        if strict == "no":
            return False
        raise HostKeyRefused(
            f"{name} shows the host key {said}, but {changed.file} line {changed.line} has "
            f"{changed.kind} {fingerprint(changed.key)}: somebody may be in between; if the "
            "server was set up anew, check the new key and replace that line by "
            f"'{line_of(name, presented)}'"
        )
    if strict == "yes":
        scan = _scan_command(name)
        raise HostKeyRefused(
            f"{name} is unknown and shows the host key {said}; check that with its operator, then "
            f"add '{line_of(name, presented)}' to {where}"
            f"{f' (what {scan} prints)' if scan else ''}"
        )
    return True


def note(presented: paramiko.PKey, *, name: str, file: str, hashed: bool) -> None:
    """Add a host's key to a file of known hosts. Raises BackendError when it cannot be written."""
    shown = _hashed(name) if hashed else name
    try:
        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{line_of(shown, presented)}\n".encode())  # one write: lines stay whole
        finally:
            os.close(fd)
    except OSError as error:
        raise BackendError(
            f"{file}: the key of {name} cannot be noted: {error.strerror}"
        ) from error


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def line_of(name: str, key: paramiko.PKey) -> str:
    """Return the line of a file of known hosts."""
    return f"{name} {key.get_name()} {base64.b64encode(key.asbytes()).decode()}"


def _matching(files: Sequence[str], name: str) -> Iterator[KnownKey]:
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise BackendError(f"{path}: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            words = line.split()
            marker = words.pop(0) if words and words[0].startswith("@") else ""
            if len(words) < 3 or words[0].startswith("#") or marker == "@cert-authority":
                continue  # paramiko knows no certificates of hosts
            if not _speaks_of(words[0], name):
                continue
            try:
                key = base64.b64decode(words[2])
            except (binascii.Error, ValueError):
                continue
            yield KnownKey(words[1], key, marker == "@revoked", path, number)


def _speaks_of(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _hash_matches(patterns, name)
    found = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        plain = pattern.lstrip("!").lower().replace("[", "[[]")  # brackets are no sets here
        if fnmatch.fnmatchcase(name.lower(), plain):
            if negated:
                return False
            found = True
    return found


def _hash_matches(written: str, name: str) -> bool:
    try:
        _, _, salt, digest = written.split("|")
        wanted = base64.b64decode(digest)
        made = hmac.new(base64.b64decode(salt), name.lower().encode(), hashlib.sha1).digest()
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(made, wanted)


def _hashed(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.new(salt, name.lower().encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _scan_command(name: str) -> str:
    """Return what asks the host for its keys; nothing for a name that is only an alias."""
    if name.startswith("["):
        host, _, port = name[1:].partition("]:")
        return f"ssh-keyscan -p {port} {host}"
    return f"ssh-keyscan {name}"
