"""Timers of systemd: two units for a set, of the system or of a user.

They are checked by `systemd-analyze` before they are put in place, and name everything that the
backup needs of the environment it was set up in, since a timer has none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backupgw.runtime.command import CommandError, UsageError

from .state import write_whole

PREFIX = "backupgw-backup-"
SYSTEM = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")
"""Is there where systemd runs the machine: sd_booted(3)."""
_MARK = "# Written by `backupgw backup schedule`; `backupgw backup schedule remove` removes it."
_FILE = re.compile(rf"{PREFIX}(.+)\.timer\Z")
_LIMIT = 60.0


@dataclass(frozen=True)
class Units:
    """Where units lie, and how systemd is told.

    Attributes:
        folder: of the units.
        user: a user's own systemd rather than the system's.
        start: tell systemd; without, the files are only written.
    """

    folder: Path
    user: bool
    start: bool

    def names(self) -> dict[str, str]:
        """Return the sets that have a timer, with its calendar."""
        try:
            entries = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return {}
        found = {}
        for entry in entries:
            if match := _FILE.match(entry):
                text = (self.folder / entry).read_text(errors="replace")
                calendar = re.search(r"^OnCalendar=(.*)$", text, re.MULTILINE)
                if _MARK in text and calendar:
                    found[match[1]] = calendar[1]
        return found

    def write(
        self,
        set_name: str,
        calendar: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        delay: int,
    ) -> bool:
        """Write the units of a set and start the timer; return whether anything changed.

        Args:
            command: an absolute path, and arguments.
            delay: seconds by which a start is put off at random, so that not all machines come to a
                provider at once.

        Raises:
            UsageError: systemd does not know such a calendar.
            CommandError: systemd refuses the units, or they cannot be written.
        """
        check_calendar(calendar)
        name = PREFIX + set_name
        texts = {
            f"{name}.service": service_text(set_name, command, environment),
            f"{name}.timer": timer_text(set_name, calendar, delay),
        }
        _verify(texts, user=self.user)
        changed = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot make {self.folder}: {error.strerror}") from error
        for file, text in texts.items():
            path = self.folder / file
            there = path.read_text(errors="replace") if path.exists() else None
            if there is not None and _MARK not in there:
                raise CommandError(f"{path} is there and was not written by backupgw; move it away")
            if there != text:
                write_whole(path, text.encode(), 0o644)
                changed = True
        if self.start:
            self._systemctl("daemon-reload")
            self._systemctl("enable", f"{name}.timer")
            self._systemctl("restart" if changed else "start", f"{name}.timer")
        return changed

    def remove(self, set_name: str) -> bool:
        """Stop the timer of a set and remove its units; return whether there were any."""
        name = PREFIX + set_name
        if set_name not in self.names():
            return False
        if self.start:
            self._systemctl("disable", "--now", f"{name}.timer")
        for file in (f"{name}.timer", f"{name}.service"):
            (self.folder / file).unlink(missing_ok=True)
        if self.start:
            self._systemctl("daemon-reload")
        return True

    def _systemctl(self, *words: str) -> None:
        command = ["systemctl", *(["--user"] if self.user else []), *words]
        done = _run(command)
        if done.returncode:
            raise CommandError(f"{' '.join(command)}: {_last(done)}")


def user_folder(environ: Mapping[str, str]) -> Path:
    """Return where a user's own units lie."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    return Path(base, "systemd", "user")


def check_calendar(calendar: str) -> None:
    """Raise UsageError where systemd does not know such times."""
    done = _run(["systemd-analyze", "calendar", "--", calendar])
    if done.returncode:
        raise UsageError(f"{calendar!r}: systemd does not know such times: {_last(done)}")


def _verify(texts: Mapping[str, str], *, user: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="backupgw-units-") as folder:
        for file, text in texts.items():
            Path(folder, file).write_text(text)
        paths = [str(Path(folder, file)) for file in texts]
        # Only our own units: others may be broken, and are not ours to complain of.
        words = ["--user"] if user else []
        done = _run(["systemd-analyze", "verify", "--recursive-errors=no", *words, "--", *paths])
        if done.returncode:
            raise CommandError(f"systemd refuses the units: {_last(done)}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise CommandError(f"there is no {command[0]} here; --cron schedules by cron instead")
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{command[0]} does not answer within {_LIMIT:.0f} s") from None


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return lines[0] if lines else f"it ended with status {done.returncode}"


def service_text(set_name: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the unit that backs a set up."""
    lines = [
        _MARK,
        "[Unit]",
        f"Description=Backup of {set_name}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={' '.join(map(_quoted, command))}",
        *(f"Environment={_quoted(f'{key}={value}')}" for key, value in environment.items()),
        "Nice=10",
        "IOSchedulingClass=best-effort",
        "IOSchedulingPriority=7",
        # To the command alone, which ends restic and its server in their order, without a trace;
        # that takes as long as a place's answer.
        "KillMode=mixed",
        "TimeoutStopSec=120",
    ]
    return "\n".join(lines) + "\n"


def timer_text(set_name: str, calendar: str, delay: int) -> str:
    """Return the unit that starts it; a time that passed while the machine was off is made up."""
    lines = [
        _MARK,
        "[Unit]",
        f"Description=Backup of {set_name}, by the calendar",
        "",
        "[Timer]",
        f"OnCalendar={calendar}",
        "Persistent=true",
        f"RandomizedDelaySec={delay}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """Return a word as systemd.service(5) reads it: no specifiers, no variables."""
    if any(sign in word for sign in "\n\r\0"):
        raise CommandError(f"{word!r} cannot be in a unit: it has a line break")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
