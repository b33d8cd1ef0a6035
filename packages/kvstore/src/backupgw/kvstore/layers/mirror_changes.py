"""Changing names at all places of a mirror, so that afterwards it is known who holds what.

A change is acknowledged when `quorum` places have acknowledged it. Those that did not are recorded
as having missed it before the caller hears of anything. Where fewer acknowledged, the change
failed: the places that did it are the ones that are wrong then, and are put right from those that
did not, so a change that failed does not appear later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from ..backends.errors import BackendConnectionError, BackendError, ObjectNotFound
from .mirror_journal import Journal
from .mirror_places import Place, PlaceTimeout, is_trouble
from .mirror_reads import Reads

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Changes:
    """Changing names at the places of a mirror.

    Args:
        quorum: places that must acknowledge.
        wake: called when a place has missed something.
    """

    def __init__(self, reads: Reads, quorum: int, wake: Callable[[], None]) -> None:
        self.reads = reads
        self.quorum = quorum
        self._places = reads.places
        self._journal: Journal = reads.journal
        self._wake = wake

    def usable(self, what: str) -> list[Place]:
        """Return the places that are up. Raises BackendConnectionError for fewer than a quorum."""
        found = [place for place in self._places if place.usable]
        if len(found) < self.quorum:
            down = "; ".join(f"{p}: {p.reason}" for p in self._places if not p.usable)
            raise BackendConnectionError(
                f"{what}: {len(found)} of {len(self._places)} places are up, and {self.quorum} "
                f"must be ({down})"
            )
        return found

    def everywhere(
        self,
        names: Sequence[str],
        work: Callable[[Place], Future[T]],
        *,
        check: Callable[[], object] | None = None,
        gone_is_done: bool = False,
        places: Callable[[], Sequence[Place]] | None = None,
    ) -> list[T]:
        """`change` by calls that places make on their own; returns what they returned."""
        return self.change(
            names,
            self.usable(names[0]),
            start=work,
            wait=lambda place, future: place.wait(future),
            check=check,
            gone_is_done=gone_is_done,
            choose=places,
        )

    def change(
        self,
        names: Sequence[str],
        places: Sequence[Place],
        *,
        start: Callable[[Place], Future[T]],
        wait: Callable[[Place, Future[T]], T],
        check: Callable[[], object] | None = None,
        gone_is_done: bool = False,
        choose: Callable[[], Sequence[Place]] | None = None,
    ) -> list[T]:
        """Change names at places, side by side, while nobody else changes them.

        Args:
            places: who is asked to; all others have missed it then.
            start, wait: begin the change at a place, and wait for its end.
            check: raises where the change may not be; called with the names held.
            gone_is_done: ObjectNotFound is what was wanted.
            choose: replaces `places`, chosen with the names held.

        Raises:
            BackendError: fewer than a quorum did it.
        """
        with self._journal.changing(names):
            if check is not None:
                check()
            if choose is not None:
                places = choose()
                if len(places) < self.quorum:
                    raise BackendConnectionError(
                        f"{names[0]}: {len(places)} places hold it as it should be and are up, "
                        f"and {self.quorum} must"
                    )
            clean_before = {
                place.label
                for place in self._places
                if place.trusted
                and not any(place.label in self._journal.missed_by(name) for name in names)
            }
            self._journal.begin(names)
            done, failed = self._run(places, names, start, wait, gone_is_done=gone_is_done)
            if len(done) < self.quorum:
                self._failed(names, done, failed, clean_before)
                raise self.too_few(names[0], failed)
            wrong = [place for place in self._places if place not in done]
            self._journal.settle(
                names, right=[p.label for p in done], wrong=[p.label for p in wrong]
            )
            if wrong:
                self._wake()
            for place, error in failed.items():
                logger.warning("%s: %s missed it: %s", names[0], place, error)
            return [result for result in done.values() if result is not None]

    def _run(
        self,
        places: Sequence[Place],
        names: Sequence[str],
        start: Callable[[Place], Future[T]],
        wait: Callable[[Place, Future[T]], T],
        *,
        gone_is_done: bool,
    ) -> tuple[dict[Place, T | None], dict[Place, Exception]]:
        done: dict[Place, T | None] = {}
        failed: dict[Place, Exception] = {}
        futures: dict[Place, Future[T]] = {}
        for place in places:
            try:
                futures[place] = start(place)
            except BackendError as error:
                failed[place] = error
        for place, future in futures.items():
            try:
                done[place] = wait(place, future)
            except ObjectNotFound as error:
                if gone_is_done:
                    done[place] = None
                else:
                    failed[place] = error
            except PlaceTimeout as error:
                failed[place] = error
                # It may still happen, after later changes of the name: then it is wrong again.
                future.add_done_callback(lambda _, place=place: self._too_late(place, names))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - decided on below, like any failed place
                failed[place] = error
        return done, failed

    def _too_late(self, place: Place, names: Sequence[str]) -> None:
        try:
            self._journal.miss(place.label, names)
        except BackendError as error:
            logger.warning("%s: %s; a full repair is needed", place, error)

    def _failed(
        self,
        names: Sequence[str],
        done: Mapping[Place, object],
        failed: Mapping[Place, Exception],
        clean_before: set[str],
    ) -> None:
        """Record a change that failed: wrong is who did it, or may have."""
        unknown = [place for place, error in failed.items() if is_trouble(error)]
        untouched = [
            place
            for place in self._places
            if place.label in clean_before and place not in done and place not in unknown
        ]
        if untouched:
            wrong = [*done, *unknown]
            self._journal.settle(names, right=(), wrong=[place.label for place in wrong])
        elif done and not any(place.label in clean_before for place in unknown):
            # Who did it were the only ones that held the names as they should be.
            self._journal.settle(
                names,
                right=[place.label for place in done],
                wrong=[place.label for place in self._places if place not in done],
            )
        else:
            # Nobody can be asked now what they hold; the intent stays, and decides it later.
            for place in done:
                self._journal.miss(place.label, names)
        self._wake()

    def made_folders(self, folders: Sequence[str], start: Callable[[Place], Future[None]]) -> None:
        """Make folders at all places. They need no intent: a folder too many or too few after a
        crash is nothing that anybody was told."""
        places = self.usable(folders[0])
        done, failed = self._run(
            places, folders, start, lambda place, future: place.wait(future), gone_is_done=False
        )
        for place in self._places:
            if done and place not in done:
                self._journal.miss(place.label, folders)
                self._wake()
        if len(done) < self.quorum:
            raise self.too_few(folders[0], failed)

    def synced(self, name: str, places: Sequence[Place]) -> None:
        """Have the places that hold an item make it durable. Raises like `change`."""
        done, failed = self._run(
            places,
            [name],
            lambda place: place.start(lambda backend: backend.sync(name)),
            lambda place, future: place.wait(future),
            gone_is_done=False,
        )
        lacking = [p for p, error in failed.items() if isinstance(error, ObjectNotFound)]
        if lacking and not done:
            raise failed[lacking[0]]
        for place in lacking:
            self.reads.found_missing(place, name)
        if len(done) < self.quorum:
            raise self.too_few(name, failed)

    def resolve(self, name: str) -> None:
        """Decide what a change that never ended has led to. Call with the name held.

        Either outcome is right, as nobody was told of any; in doubt the item is kept.
        """
        if not self._journal.is_intent(name):
            return
        holding: Place | None = None
        first: Place | None = None
        for place in self.reads.candidates(name):
            info = place.call(lambda backend: backend.info(name))
            first = first or place
            if info.exists:
                holding = place
                break
        right = holding or first
        if right is None:
            raise self.reads.nowhere(name)
        logger.info("%s: a change that never ended is completed from %s", name, right)
        others = [place.label for place in self._places if place is not right]
        self._journal.settle([name], right=[right.label], wrong=others)

    def too_few(self, name: str, failed: Mapping[Place, Exception]) -> Exception:
        """Return the error of a change that too few places made."""
        answers = [error for error in failed.values() if not is_trouble(error)]
        if answers and len(failed) - len(answers) < self.quorum:
            return answers[0]
        told = "; ".join(f"{place}: {error}" for place, error in failed.items())
        error = BackendConnectionError(
            f"{name}: fewer than {self.quorum} of {len(self._places)} places took it ({told})"
        )
        error.__cause__ = next(iter(failed.values()), None)
        return error
