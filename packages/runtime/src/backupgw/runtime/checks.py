"""The checks behind `backupgw doctor`: what each found and, where it is bad, what to do."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError

from .auth.htpasswd import Htpasswd
from .certificate import check_pair
from .command import CommandError
from .secrets import redact_url
from .settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend

LOW_SPACE = 0.05
"""Share of a file system below which free space is a warning."""
NO_SPACE = 64 << 20
"""Bytes free below which it is a failure: not even a few packs of restic's fit."""
EXPIRES_SOON = 21 * 86_400
"""Seconds before its end at which a certificate is a warning; renewals run well before."""
CLOCK_SKEW = 120.0
"""Seconds that a place's clock may differ; restic calls locks stale after 30 minutes."""


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """One line of the doctor's table."""

    name: str
    status: Status
    message: str


def check_all(config: Path | None) -> Iterator[Result]:
    """Run every check. Never raises for what it finds."""
    from .checks_state import check_state

    try:
        settings = load(config)
    except (SettingsError, CommandError) as error:
        yield Result("settings", Status.FAILED, str(error))
        return
    source = str(settings.config) if settings.config else "no settings file, defaults in effect"
    yield Result("settings", Status.OK, source)
    for warning in settings.warnings:
        yield Result("settings", Status.WARNING, warning)
    for name in settings.places:
        yield from check_place(settings, name)
    for name in sorted(settings.enabled):
        yield from check_service(settings, name)
    yield from check_state(settings)
    yield check_clock()


def check_place(settings: Settings, name: str) -> Iterator[Result]:
    """Open a place, write, read and delete a small item, and look at free space and clock."""
    label = f"place {name}"
    url = settings.places[name].url
    try:
        backend = settings.open_place(name)
        backend.open()
    except BackendDoesNotExist as error:
        parent = _existing_parent(url)
        if parent is not None and os.access(parent, os.W_OK | os.X_OK):
            text = (
                f"does not exist yet; it can be made when a service starts ({parent} is writable)"
            )
            yield Result(label, Status.WARNING, text)
            yield from space(label, parent)
        else:
            yield Result(label, Status.FAILED, redact_url(str(error)))
        return
    except (BackendError, CommandError) as error:
        yield Result(label, Status.FAILED, redact_url(str(error) or type(error).__name__))
        return
    try:
        yield from _use(label, backend)
        folder = _existing_parent(url)
        if folder is not None:
            yield from space(label, folder)
    finally:
        backend.close()


def _use(label: str, backend: Backend) -> Iterator[Result]:
    name = f"doctor-{secrets.token_hex(8)}"
    content = secrets.token_bytes(1000)
    started = time.time()
    try:
        with backend.open_writer(name, size=len(content), if_absent=True) as writer:
            writer.write(content)
        try:
            same = backend.load(name) == content
            info = backend.info(name)
        finally:
            backend.delete(name)
    except BackendError as error:
        reason = redact_url(str(error)) or type(error).__name__
        yield Result(label, Status.FAILED, f"cannot be written: {reason}")
        return
    if not same:
        yield Result(label, Status.FAILED, "gives back other bytes than were written to it")
        return
    yield Result(label, Status.OK, "opens, and can be written, read and deleted")
    skew = info.mtime - started
    if backend.capabilities.mtime and info.mtime and abs(skew) > CLOCK_SKEW:
        yield Result(
            label,
            Status.WARNING,
            f"its clock differs from this machine's by {skew:.0f} s; set both by NTP",
        )


def _existing_parent(url: str) -> Path | None:
    """Return the folder of a local place, or the nearest one above it that exists."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    path = Path(unquote(parts.path))
    # os.path.exists is false for what is closed to us; Path.exists raises.
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def space(label: str, folder: Path) -> Iterator[Result]:
    """Look at what is free on a folder's file system."""
    try:
        facts = os.statvfs(folder)
    except OSError as error:
        yield Result(label, Status.WARNING, f"free space is not known: {error.strerror}")
        return
    free, total = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    text = f"{_size(free)} of {_size(total)} free"
    if facts.f_files and facts.f_favail == 0:
        yield Result(label, Status.FAILED, "no file can be made: the file system has no inode left")
    elif free < NO_SPACE:
        yield Result(label, Status.FAILED, f"{text}; make room")
    elif total and free < total * LOW_SPACE:
        yield Result(label, Status.WARNING, f"{text}; make room")
    else:
        yield Result(label, Status.OK, text)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


def check_service(settings: Settings, name: str) -> Iterator[Result]:
    """Look at the files that a service's section names."""
    section = settings.section(name)
    htpasswd = getattr(section, "htpasswd_file", None)
    place = settings.places.get(getattr(section, "place", ""))
    if htpasswd is None and place is not None and place.url.startswith("file:"):
        # rest-server's default, which its takeover keeps: in the folder of the repositories.
        beside = Path(unquote(urlsplit(place.url).path), ".htpasswd")
        htpasswd = beside if hasattr(section, "htpasswd_file") and os.path.lexists(beside) else None
    if htpasswd:
        yield _check_htpasswd(f"{name} passwords", Path(htpasswd))
    certificate, key = getattr(section, "tls_cert", None), getattr(section, "tls_key", None)
    if certificate and key:
        yield _check_certificate(f"{name} certificate", Path(certificate), Path(key))


def _check_htpasswd(label: str, path: Path) -> Result:
    try:
        users = Htpasswd(path).users
    except CommandError as error:
        return Result(label, Status.FAILED, str(error))
    if not users:
        return Result(
            label, Status.FAILED, f"{path} holds no user; add one: htpasswd -B {path} USER"
        )
    if path.stat().st_mode & 0o007:
        return Result(label, Status.WARNING, f"others can read {path}; chmod 640 {path}")
    return Result(label, Status.OK, f"{path}: {len(users)} users")


def _check_certificate(label: str, certificate: Path, key: Path) -> Result:
    try:
        validity = check_pair(certificate, key)
    except CommandError as error:
        return Result(label, Status.FAILED, str(error))
    day = datetime.fromtimestamp(validity.ends, UTC).date().isoformat()
    if validity.ends - time.time() < EXPIRES_SOON:
        return Result(label, Status.WARNING, f"{certificate} ends on {day}; renew it")
    return Result(label, Status.OK, f"{certificate} fits its key and holds until {day}")


def check_clock() -> Result:
    """Compare the clock with the youngest thing that must be older than now: this program."""
    installed = Path(__file__).stat().st_mtime
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if time.time() < installed - 86_400:
        return Result("clock", Status.FAILED, f"{now} is before backupgw was installed; set it")
    return Result("clock", Status.OK, now)
