"""Values of layers' options as people write them: sizes, times, counts.

Options come from a settings file, the environment or Python, so whatever type a factory declares
them with, they can be of another, and a person must be told which option is wrong and what to
write. Everything here raises OptionInvalid; the stack adds which layer it was.
"""

from __future__ import annotations

import math
import os
import re
from urllib.parse import urlsplit

from ..backends.errors import BackendError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)(b?)\Z", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]*)\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS = {
    "": 1.0,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "day": 86_400.0,
    "days": 86_400.0,
    "w": 7 * 86_400.0,
    "weeks": 7 * 86_400.0,
}


class OptionInvalid(BackendError):
    """An option has no possible value.

    Attributes:
        option: its name.
        message: what is wrong and what to write.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(option, message)
        self.option = option
        self.message = message

    def __str__(self) -> str:
        return f"{self.option}: {self.message}"


def size(option: str, value: object, *, least: int = 0) -> int:
    """Return bytes: a whole number, or text such as "20 MB" (10^6), "20 MiB" (2^20), "512k".

    As rclone has it, a letter alone means the power of 1024.
    """
    if isinstance(value, str) and (match := _SIZE.match(value.strip())):
        number, letter, binary, unit = match.groups()
        base = 1000 if unit and not binary else 1024
        count = float(number) * base ** _POWERS[letter.lower()]
        if math.isfinite(count) and count >= least:
            return int(count)
    elif isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    bound = f" of at least {least}" if least else ""
    raise OptionInvalid(
        option, f'{value!r} is no number of bytes{bound}; write for example 1000000 or "1 MB"'
    )


def duration(option: str, value: object, *, least: float = 0.0) -> float:
    """Return seconds: a number, or text such as "90 s", "15 min", "36 h", "30 days"."""
    seconds = math.nan
    if isinstance(value, str) and (match := _DURATION.match(value.strip())):
        seconds = float(match[1]) * _SECONDS.get(match[2].lower(), math.nan)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if math.isfinite(seconds) and seconds >= least:
        return seconds
    bound = f" of at least {least:g} s" if least else ""
    raise OptionInvalid(
        option, f'{value!r} is no time{bound}; write for example 90, "15 min" or "30 days"'
    )


def count(option: str, value: object, *, least: int = 0) -> int:
    """Return a whole number; from the environment it comes as text."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise OptionInvalid(option, f"must be a whole number of at least {least}, not {value!r}")


def flag(option: str, value: object) -> bool:
    """Return true or false; from the environment it comes as text."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise OptionInvalid(option, f"must be true or false, not {value!r}")


def text(option: str, value: object) -> str:
    """Return text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise OptionInvalid(option, f"must be text, not {value!r}")


def server(option: str, value: object) -> str:
    """Return the URL of a server, `http(s)://HOST[:PORT]`, without a slash at its end; a path may
    follow, a user or a query may not."""
    if isinstance(value, str) and re.match(r"https?://[^/@?#\s][^@?#\s]*\Z", value, re.IGNORECASE):
        try:
            parts = urlsplit(value)
            if parts.hostname and (parts.port is None or parts.port > 0):
                return value.rstrip("/")
        except ValueError:  # no such port, or a bracket too many
            pass
    raise OptionInvalid(option, "must be http(s)://HOST[:PORT]")


def readable(option: str, path: object) -> str:
    """Return the path of a file that can be read. Raises OptionInvalid."""
    if isinstance(path, str) and os.path.isfile(path) and os.access(path, os.R_OK):
        return path
    raise OptionInvalid(option, f"{path!r} is no file that can be read")
