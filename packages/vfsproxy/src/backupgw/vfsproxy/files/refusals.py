"""Why a file operation is refused, in words about files: what the edge turns into problem+json."""

from __future__ import annotations

from collections.abc import Mapping

from backupgw.kvstore.backends.errors import BackendError, ObjectExists, ObjectNotFound
from backupgw.kvstore.names import InvalidName

from ..problems import Problem, problem_of


class FileRefusal(Problem):
    """An answer other than success.

    Args:
        status: of HTTP.
        code: what programs tell refusals apart by, such as "file-exists".
        detail: one line for a person: what is wrong and what to do.
        headers: to be sent with it.
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        sent = [(key.lower().encode(), value.encode()) for key, value in (headers or {}).items()]
        super().__init__(status, code, detail, headers=sent)


def exists(name: str) -> FileRefusal:
    """Say that something has the name already."""
    return FileRefusal(
        409, "file-exists", f"{name!r} exists already; ask to overwrite it, or take another name"
    )


def missing(name: str) -> FileRefusal:
    """Say that nothing has the name."""
    return FileRefusal(404, "file-not-found", f"there is no {name!r} in this folder")


def refusal_of(error: BackendError | InvalidName, name: str = "") -> Problem:
    """Return what a client is told of an error of the kernel's.

    Args:
        name: the item as the client knows it; the error names it as the volume does.
    """
    if isinstance(error, InvalidName):
        return FileRefusal(400, "invalid-name", f"no such name is possible: it {error}")
    if isinstance(error, ObjectNotFound) and name:
        return missing(name)
    if isinstance(error, ObjectExists) and name:
        return exists(name)
    return problem_of(error, name or "an item")
