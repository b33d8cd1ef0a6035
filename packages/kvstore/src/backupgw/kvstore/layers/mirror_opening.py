"""Which places belong to a mirror: making, opening and recognising them.

Each place carries the mirror's mark, an item of the kernel's own with the mirror's name and the
place's number. A folder whose disk is not mounted has no mark, so it is neither believed to be
empty nor filled; nor are two places taken for each other when somebody swaps them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..backends.base import Backend
from ..backends.errors import (
    BackendDoesNotExist,
    BackendError,
    ObjectNotFound,
)
from ..names import RESERVED_PREFIX, KernelPath
from .mirror_journal import Journal, is_later, new_identity, next_identity
from .mirror_places import CLOSED, Place

logger = logging.getLogger(__name__)

MARK = KernelPath(f"{RESERVED_PREFIX}-mirror")


class NotThePlace(BackendError):
    """What was opened is not the place that belongs to the mirror."""


class Opening:
    """Making, opening and removing the places of a mirror.

    Args:
        path, sync: of the journal.
    """

    def __init__(self, places: Sequence[Place], path: str, *, sync: bool) -> None:
        self._places = places
        self._path = path
        self._sync = sync
        self._journal: Journal | None = None

    def create(self) -> None:
        """Make all places and begin the journal anew."""
        journal = Journal(self._path, sync=self._sync)
        made: list[Place] = []
        try:
            for place in self._places:
                place.backend.create()
                made.append(place)
            identity = new_identity()
            for place in self._places:
                with place.backend as backend:
                    backend.store(MARK, _mark(identity, place.label))
            journal.found({place.label: True for place in self._places}, identity=identity)
        except BaseException:
            for place in made:
                place.backend.destroy()  # it was made just now, and is empty
            raise
        finally:
            journal.close()

    def destroy(self) -> None:
        """Remove all places. Raises BackendDoesNotExist where there is none."""
        missing: list[BackendError] = []
        for place in self._places:
            try:
                place.backend.destroy()
            except BackendDoesNotExist as error:
                missing.append(error)
        if len(missing) == len(self._places):
            raise missing[0]
        journal = Journal(self._path, sync=self._sync)
        try:
            journal.found({}, identity="")
        finally:
            journal.close()

    def open(self) -> Journal:
        """Open the places, and return the journal."""
        journal = self._journal = Journal(self._path, sync=self._sync)
        try:
            with journal.changing([MARK]):
                if journal.identity()[0] == "":
                    self._begin(journal)
                known = journal.places()
                for place in self._places:
                    if place.label not in known:
                        self._make_new(place)
            errors = self._bring_up()
            if not any(place.usable and place.trusted for place in self._places):
                self._raise(errors)
        except BaseException:
            for place in self._places:
                place.take_down(CLOSED)
                place.shut()
            journal.close()
            raise
        return journal

    def _make_new(self, place: Place) -> None:
        """Make a place that was added to the mirror, unless it is there."""
        try:
            place.backend.create()
        except BackendError as error:
            logger.debug("%s: %s", place, error)  # where it is not there either, opening tells

    def _bring_up(self) -> dict[Place, BackendError]:
        """Open all places side by side; return why some are down."""
        errors: dict[Place, BackendError] = {}

        def bring_up(place: Place) -> None:
            try:
                place.bring_up(lambda backend: self.check(place, backend))
            except BackendError as error:
                errors[place] = error
                place.reason = str(error)
                logger.warning("%s is down: %s", place, error)

        with ThreadPoolExecutor(len(self._places)) as threads:
            list(threads.map(bring_up, self._places))
        return errors

    def _raise(self, errors: dict[Place, BackendError]) -> None:
        others = [e for e in errors.values() if not isinstance(e, BackendDoesNotExist)]
        raise (others or [*errors.values()])[0]

    def _begin(self, journal: Journal) -> None:
        """Take the places as they are into a new journal. All of them must be there."""
        missing: list[Place] = []
        identities: set[str] = set()
        empty = True
        for place in self._places:
            try:
                place.backend.open()
            except BackendDoesNotExist:
                missing.append(place)
                if len(missing) == len(self._places):
                    raise
                continue
            try:
                found = read_mark(place.backend)
                empty = empty and next(place.backend.list(""), None) is None
            finally:
                place.backend.close()
            if found is not None:
                identities.add(found[0])
                if found[1] != place.label or len(identities) > 2:
                    raise NotThePlace(f"{place} is {_told(found)}")
        known = bool(identities)
        identity = _taken_over(identities) if known else new_identity()
        if known:
            logger.warning(
                "the journal %s is new, and what places missed is not known; they will be compared",
                self._path,
            )
        for place in missing:
            place.backend.create()
        for place in self._places:
            with place.backend as backend:
                backend.store(MARK, _mark(identity, place.label))
        journal.found(
            {place.label: True for place in self._places},
            identity=identity,
            unsure=known or not empty,
        )

    def check(self, place: Place, backend: Backend) -> None:
        """See that an opened backend is the place it should be. Raises NotThePlace.

        A place that the journal does not know is a new one: it gets its mark, and is to be filled.
        """
        journal = self._journal
        if journal is None:
            raise NotThePlace("the mirror is not open")
        identity, _ = journal.identity()
        trusted = journal.places().get(place.label)
        found = read_mark(backend)
        if found is None and trusted is None:
            self.adopt(place, backend)
            return
        refuse_other(place, found, identity)
        place.trusted = bool(trusted)

    def let_go(self, place: Place) -> None:
        """Take a place down that another journal has taken over meanwhile.

        Raises:
            BackendError: it cannot be told.
        """
        journal = self._journal
        if journal is None:
            return
        reason = overtaken(place.call(read_mark), place, journal.identity()[0])
        if reason is not None:
            place.take_down(reason)

    def adopt(self, place: Place, backend: Backend) -> None:
        """Mark an opened backend as a place that is to be filled."""
        journal = self._journal
        if journal is None:
            raise NotThePlace("the mirror is not open")
        place.trusted = False
        journal.trust(place.label, False)
        backend.store(MARK, _mark(journal.identity()[0], place.label))


Check = Callable[[Place, Backend], None]


def _mark(identity: str, label: str) -> bytes:
    return f"{identity} {label}\n".encode()


def _taken_over(identities: set[str]) -> str:
    """Return what the mirror is called by the journal that takes it over.

    Args:
        identities: of the places' marks; two where a takeover was broken off between them.

    Raises:
        NotThePlace: they are of two mirrors.
    """
    if len(identities) == 1:
        return next_identity(*identities)
    for one in identities:
        if next_identity(one) in identities:
            return next_identity(one)
    raise NotThePlace(
        f"the places are marked as those of two mirrors: {', '.join(i[:8] for i in identities)}"
    )


def overtaken(found: tuple[str, str] | None, place: Place, identity: str) -> str | None:
    """Return what to say of a place that another journal has taken over, None for any other."""
    if found is None or found[1] != place.label or not is_later(found[0], identity):
        return None
    return (
        f"{place} was taken over by a newer journal: two machines must not use one mirror; if "
        "this one's journal is the older, move it away"
    )


def refuse_other(place: Place, found: tuple[str, str] | None, identity: str) -> None:
    """Raise NotThePlace unless the mark that was found is the place's in the mirror `identity`."""
    if found is None:
        raise NotThePlace(
            f"{place} has not got the mirror's mark: is its disk mounted? If it was replaced, "
            "it has to be adopted"
        )
    if (reason := overtaken(found, place, identity)) is not None:
        raise NotThePlace(reason)
    if found != (identity, place.label):
        raise NotThePlace(f"{place} is {_told(found)}")


def read_mark(backend: Backend) -> tuple[str, str] | None:
    """Return (mirror, place) of a backend's mark; None without one."""
    try:
        text = backend.load(MARK, size=200).decode(errors="replace")
    except ObjectNotFound:
        return None
    identity, _, label = text.strip().partition(" ")
    return identity, label


def _told(found: tuple[str, str]) -> str:
    return f"marked as place {found[1]} of the mirror {found[0][:8]}"
