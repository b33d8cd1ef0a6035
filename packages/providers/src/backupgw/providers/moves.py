"""A file that is to be moved to or from a provider, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backupgw.kvstore.backends.errors import BackendError

from .base import BaseProvider, ProgressCallback


class ProviderFailed(BackendError):
    """A provider said that something failed, and not why."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to be moved. `size` in bytes, 0 where it is not known."""

    name: str
    path: Path
    size: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job."""

    job: Job
    size: int
    error: BaseException | None = None
    seconds: float = 0.0


Move = Callable[[BaseProvider, Job, ProgressCallback], bool]


def upload(provider: BaseProvider, job: Job, tell: ProgressCallback) -> bool:
    """Store a job's file."""
    return provider.upload(job.path, job.name, tell)


def download(provider: BaseProvider, job: Job, tell: ProgressCallback) -> bool:
    """Fetch a job's file."""
    return provider.download(job.name, job.path, tell)


def failure_of(provider: BaseProvider, what: str) -> BaseException:
    """Return why a call of a provider answered False."""
    if provider.last_error is not None:
        return provider.last_error
    return ProviderFailed(f"{what} failed; the provider says no more, its log may")
