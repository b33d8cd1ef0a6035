"""What can go wrong with restic, told by its exit status, and before 0.17 by its words.

restic's documentation lists the statuses ("Exit codes" in its chapter on scripting): 1 an error, 3
a snapshot that lacks unreadable files, 10 no repository (0.17), 11 locked (0.17), 12 a wrong
password (0.17.1), 130 interrupted. Older versions end with 1 for all but 3 and 130.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..command import CommandError

INCOMPLETE = 3
"""Exit status of a backup whose snapshot lacks what could not be read."""
INTERRUPTED = 130


class ResticError(CommandError):
    """The family of what leaves this package; `str()` is one line without secrets.

    Attributes:
        retryable: whether the same may succeed later without anybody doing anything.
        exit_status: restic's; None where it was not run to its end.
    """

    retryable: bool = False

    def __init__(self, message: str, *, exit_status: int | None = None) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class ResticUnusable(ResticError):
    """There is no restic, or one that is too old or does not start."""


class RepositoryMissing(ResticError):
    """There is certainly no repository at this place: not a mere failure to look."""


class WrongPassword(ResticError):
    """The repository's password is another."""


class RepositoryRefused(ResticError):
    """The place refuses: credentials are missing or wrong, or do not allow it."""


class RepositoryAway(ResticError):
    """The place does not answer."""

    retryable = True


class RepositoryDamaged(ResticError):
    """The repository contradicts itself."""


class OutOfSpace(ResticError):
    """A disk or a quota is full."""


class SnapshotMissing(ResticError):
    """There is no such snapshot, or it lacks what was asked for."""


class SourceMissing(ResticError):
    """Nothing of what was to be backed up is there."""


@dataclass(frozen=True)
class Holder:
    """Who has locked a repository, by restic's own account.

    Attributes:
        lock: the first digits of the lock's id.
    """

    pid: int
    host: str
    exclusive: bool
    lock: str = ""


class RepositoryLocked(ResticError):
    """Another restic has locked the repository, or has died and left its lock.

    Attributes:
        holder: None where restic does not say.
    """

    retryable = True

    def __init__(
        self, message: str, *, exit_status: int | None = None, holder: Holder | None = None
    ) -> None:
        super().__init__(message, exit_status=exit_status)
        self.holder = holder


class ResticStopped(ResticError):
    """It was asked to stop, by us or by somebody at its terminal."""


class ResticKilled(ResticError):
    """A signal that was not ours ended it."""

    retryable = True


class ResticFailed(ResticError):
    """Everything else."""


_HOLDER = re.compile(
    r"locked (?P<exclusive>exclusively )?by PID (?P<pid>\d+) on (?P<host>\S+) by .*?"
    r"(?:storage ID (?P<lock>[0-9a-f]+)|$)",
    re.DOTALL,
)
_NO_CONFIG = re.compile(
    # What each of restic's places says of an object that is not there, and of nothing else.
    r"unable to open config file: .*?(?:no such file or directory|file does not exist"
    r"|<config/[^>]*> does not exist|does not exist\b|specified key does not exist|key not found"
    r"|unexpected HTTP response \(404\)|404 Not Found)",
    re.DOTALL | re.IGNORECASE,
)
_REFUSED = re.compile(
    r"access denied|forbidden|unauthorized|\b40[13]\b|permission denied|InvalidAccessKeyId"
    r"|SignatureDoesNotMatch",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"connection refused|connection reset|no such host|i/o timeout|no route to host"
    r"|network is unreachable|TLS handshake timeout|server misbehaving|broken pipe"
    r"|unexpected EOF|\b50[0234]\b.*(?:http|response|gateway|unavailable)",
    re.IGNORECASE,
)
_FULL = re.compile(
    r"no space left on device|disk quota exceeded|insufficient storage|\b507\b", re.IGNORECASE
)
_DAMAGED = re.compile(
    r"ciphertext verification failed|config cannot be loaded|repository contains errors"
    r"|tree .* not found|number of used blobs is larger|load index .*invalid|invalid data returned",
    re.IGNORECASE,
)
_NO_SNAPSHOT = re.compile(
    r"no matching ID found|no snapshot found|failed to find snapshot|invalid id \"|snapshot .* not "
    r"found|path .*: not found|cannot find snapshot",
    re.IGNORECASE,
)
_NO_SOURCE = re.compile(r"all (?:target|source) directories/files do not exist", re.IGNORECASE)


def from_exit(status: int, said: Sequence[str], *, what: str) -> ResticError:
    """Return the error that an exit status, with what was printed about it, stands for.

    Args:
        status: not 0; negative for a signal, as subprocess has it.
        said: lines of standard error and messages of errors, without secrets.
        what: which command it was: "restic backup".
    """
    text = "\n".join(said)
    line = f"{what}: {summary(said) or f'ended with status {status}'}"
    if status < 0:
        return ResticKilled(f"{what} was ended by signal {-status}", exit_status=status)
    if status == INTERRUPTED:
        return ResticStopped(f"{what} was interrupted", exit_status=status)
    kind: type[ResticError] = ResticFailed
    if status == 10 or (status == 1 and _NO_CONFIG.search(text)):
        kind = RepositoryMissing
    elif status == 11 or "unable to create lock in backend: repository is already" in text:
        return RepositoryLocked(line, exit_status=status, holder=_holder(text))
    elif status == 12 or "wrong password or no key found" in text:
        kind = WrongPassword
    elif _NO_SOURCE.search(text):
        kind = SourceMissing
    else:
        for pattern, candidate in (
            (_DAMAGED, RepositoryDamaged),
            (_FULL, OutOfSpace),
            (_NO_SNAPSHOT, SnapshotMissing),
            (_REFUSED, RepositoryRefused),
            (_AWAY, RepositoryAway),
        ):
            if pattern.search(text):
                kind = candidate
                break
    return kind(line, exit_status=status)


def _holder(text: str) -> Holder | None:
    found = _HOLDER.search(text)
    if found is None:
        return None
    return Holder(
        int(found["pid"]), found["host"], found["exclusive"] is not None, found["lock"] or ""
    )


def summary(said: Sequence[str], longest: int = 500) -> str:
    """Return in one line what matters of what restic said: what is fatal, else its last words."""
    lines = [" ".join(each.split()) for each in said if each.strip()]
    fatal = [line for line in lines if line.startswith("Fatal: ")]
    while fatal and fatal[-1].startswith("Fatal: "):
        fatal[-1] = fatal[-1].removeprefix("Fatal: ")
    chosen = fatal[-1] if fatal else " / ".join(lines[-3:])
    return chosen if len(chosen) <= longest else f"{chosen[: longest - 1]}…"
