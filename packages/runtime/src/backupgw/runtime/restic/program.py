"""The restic program: where it is, how old it is, what it can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from .errors import ResticUnusable

OLDEST = (0, 14, 0)
"""Debian 12's; the oldest that tests run against."""
_TIMEOUT = 30.0
_VERSION = re.compile(r"restic (\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class ResticProgram:
    """A restic that was found and asked for its version.

    Attributes:
        path: absolute.
    """

    path: str
    version: tuple[int, int, int]

    @property
    def shown(self) -> str:
        """As people write it: `restic 0.14.0 (/usr/bin/restic)`."""
        return f"restic {'.'.join(map(str, self.version))} ({self.path})"

    @property
    def restores_subfolders(self) -> bool:
        """Whether `restore ID:/folder` is understood."""
        return self.version >= (0, 16, 0)

    @property
    def waits_for_locks(self) -> bool:
        """Whether there is `--retry-lock`."""
        return self.version >= (0, 16, 0)

    @property
    def ends_on_sigterm(self) -> bool:
        """Whether SIGTERM lets it tidy up; an older one would leave its lock, and knows SIGINT."""
        return self.version >= (0, 17, 0)

    @property
    def compressions(self) -> tuple[str, ...]:
        """What `--compression` may be."""
        if self.version >= (0, 18, 0):
            return ("auto", "off", "fastest", "better", "max")
        return ("auto", "off", "max")


def find_program(name: str = "restic", *, path: str | None = None) -> ResticProgram:
    """Return the restic program of a name or path.

    Args:
        name: looked for in PATH unless it has a slash.
        path: instead of the environment's PATH.

    Raises:
        ResticUnusable: there is none, it does not start, or it is too old.
    """
    found = shutil.which(name, path=path)
    if found is None:
        if os.path.sep in name and os.path.exists(name):
            raise ResticUnusable(f"{name} cannot be run: it is no program that this user may start")
        raise ResticUnusable(
            f"there is no {name}{'' if os.path.sep in name else ' in PATH'}; install restic "
            "(apt-get install restic), or name the program in the settings"
        )
    found = os.path.abspath(found)
    try:
        done = subprocess.run(
            [found, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/"},
        )
    except subprocess.TimeoutExpired:
        raise ResticUnusable(f"{found} does not say its version within {_TIMEOUT:.0f} s") from None
    except OSError as error:
        raise ResticUnusable(f"{found} cannot be run: {error.strerror}") from error
    match = _VERSION.match(done.stdout.decode(errors="replace"))
    if done.returncode or match is None:
        raise ResticUnusable(f"{found} does not say which version of restic it is")
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST[:2]))
        raise ResticUnusable(
            f"{found} is restic {'.'.join(map(str, version))}; install {oldest} or newer "
            "(apt-get install restic, or https://github.com/restic/restic/releases)"
        )
    return ResticProgram(found, version)
