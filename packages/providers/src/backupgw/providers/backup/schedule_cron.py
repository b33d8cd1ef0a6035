"""Entries of cron: two lines for a set, in the user's own table."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from backupgw.runtime.command import CommandError

_MARK = re.compile(r"# backupgw-backup ([a-z0-9_-]+)\Z")
_LIMIT = 60.0


def names() -> dict[str, str]:
    """Return the sets that have an entry, with its five fields. Raises CommandError."""
    found = {}
    lines = _read()
    for number, line in enumerate(lines[:-1]):
        if match := _MARK.match(line):
            found[match[1]] = " ".join(lines[number + 1].split()[:5])
    return found


def write(
    set_name: str, fields: str, command: Sequence[str], environment: Mapping[str, str]
) -> bool:
    """Put a set's entry into the table, instead of what it had; return whether anything changed.

    Raises:
        CommandError: there is no cron, or it refuses.
    """
    words = [*(f"{key}={value}" for key, value in environment.items()), *command]
    # In cron a % ends the command (crontab(5)), also within quotes.
    line = " ".join(shlex.quote(word) for word in ["env", *words]).replace("%", "\\%")
    if "\n" in line:
        raise CommandError("a path with a line break cannot be in a table of cron's")
    before = _read()
    wanted = [f"# backupgw-backup {set_name}", f"{fields} {line}"]
    at = _find(before, set_name)
    after = [*before, *wanted] if at is None else [*before[:at], *wanted, *before[at + 2 :]]
    if after == before:
        return False
    _store(after)
    return True


def remove(set_name: str) -> bool:
    """Take a set's entry out of the table; return whether there was one."""
    before = _read()
    at = _find(before, set_name)
    if at is None:
        return False
    _store(before[:at] + before[at + 2 :])
    return True


def _find(lines: Sequence[str], set_name: str) -> int | None:
    for number, line in enumerate(lines):
        match = _MARK.match(line)
        if match and match[1] == set_name:
            return number
    return None


def _read() -> list[str]:
    done = _crontab("-l")
    if done.returncode:
        if "no crontab for" in done.stderr:
            return []
        raise CommandError(f"crontab -l: {done.stderr.strip() or done.returncode}")
    return done.stdout.splitlines()


def _store(lines: Sequence[str]) -> None:
    done = _crontab("-", given="".join(f"{line}\n" for line in lines))
    if done.returncode:
        raise CommandError(f"crontab refuses: {done.stderr.strip() or done.returncode}")


def _crontab(word: str, *, given: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which("crontab") is None:
        raise CommandError("there is no crontab here; install cron, or leave --cron out")
    try:
        return subprocess.run(
            ["crontab", word], input=given, capture_output=True, text=True, timeout=_LIMIT
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"crontab does not answer within {_LIMIT:.0f} s") from None
