"""A verification of a place: all files by several threads, in order, with what they find."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from backupgw.kvstore.backends.base import Backend
from backupgw.runtime.authorisation.patterns import path_matches

from . import survey
from .verify_findings import Finding, Problem
from .verify_objects import Stopped, Verifier
from .verify_state import VerifyState
from .verify_walk import Candidate, candidates

THREADS = min(4, os.cpu_count() or 1)
_AHEAD = 8
"""Files for each thread that are found before they are read, and done before they are noted."""


def wanted(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a repository is one of those that patterns name; none name all."""
    cleaned = [pattern.strip("/") for pattern in patterns]
    return lambda path: not cleaned or any(path_matches(each, path, "") for each in cleaned)


def fitting_nothing(place: Backend, patterns: Sequence[str]) -> list[str]:
    """Return the patterns that fit no repository there is.

    Raises:
        BackendError: the place cannot be listed.
    """
    left = list(patterns)
    for path in survey.find(place) if left else ():
        left = [pattern for pattern in left if not wanted([pattern])(path)]
        if not left:
            break
    return left


def total_bytes(place: Backend, patterns: Sequence[str]) -> int:
    """Return how many bytes there are to read, by listing all of it: for a progress bar.

    Raises:
        BackendError: the place cannot be listed.
    """
    return sum(each.size for each in candidates(place, wanted(patterns)))


def verify(
    verifier: Verifier,
    state: VerifyState,
    *,
    quarantine: bool,
    threads: int = THREADS,
    on_file: Callable[[int], None] = lambda _size: None,
    on_finding: Callable[[Finding], None] = lambda _finding: None,
) -> None:
    """Go through what the state has left, and note what is found there.

    Args:
        quarantine: whether what is damaged is set aside.
        threads: files that are read at a time.
        on_file: told the size of each file that was dealt with.
        on_finding: told what is wrong with one.

    Raises:
        Stopped: it was asked to stop; another run goes on from here.
        BackendError: the place cannot be listed; likewise.
    """
    under_way: deque[tuple[Candidate, Future[Finding | None]]] = deque()

    def settle() -> None:
        candidate, future = under_way[0]
        finding = future.result()
        under_way.popleft()
        if finding is not None:
            state.found(finding)
        state.done(candidate.position, candidate.size)
        on_file(candidate.size)
        if finding is None:
            return
        if quarantine and finding.problem is Problem.DAMAGED:
            # Noted first: what was set aside cannot be found again after a kill.
            state.save()
            finding = verifier.set_aside(finding)
            state.amend(finding)
        on_finding(finding)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="verify")
    try:
        record = state.record
        for candidate in candidates(verifier.place, wanted(record.repositories), record.after):
            if verifier.stopping:
                raise Stopped
            under_way.append((candidate, pool.submit(verifier.verify, candidate)))
            if len(under_way) >= threads * _AHEAD:
                settle()
        while under_way:
            settle()
    except BaseException:
        verifier.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        state.save()
        raise
    pool.shutdown()
    state.finish()
