"""Making the places of a mirror the same again.

`replay` puts right what the journal says that places missed. `everything` compares all that the
places hold and needs no journal: what one lacks is copied from another, what is damaged is set
aside and replaced, and what cannot be decided is told and left alone.

Which copy is right: the one whose SHA-256 is its name, where names are such; else the one that
most places hold. Two copies that differ and have no such name are left to the operator.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..backends.base import Backend, ItemInfo
from ..backends.errors import BackendError
from .mirror_changes import Changes
from .mirror_copying import SHA256, copy, digest_of, set_aside
from .mirror_journal import Missed
from .mirror_places import Place
from .mirror_reads import Reads
from .mirror_walk import Folder, walk

logger = logging.getLogger(__name__)

MOST_NAMED = 1000
"""Names of a kind that a report lists; it counts them all."""


class Compare(enum.StrEnum):
    """How closely a repair looks: whether items are there, also their sizes, also every byte."""

    PRESENCE = "presence"
    SIZE = "size"
    CONTENT = "content"


class Extras(enum.StrEnum):
    """What becomes of items that only a new place holds: told of, set aside, or copied to the
    others. While some are left it is not read from."""

    REPORT = "report"
    REMOVE = "remove"
    COPY = "copy"


class Tally:
    """Names of one kind: all counted, the first MOST_NAMED listed."""

    def __init__(self) -> None:
        self.count = 0
        self.names: list[str] = []

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < MOST_NAMED:
            self.names.append(name)

    def __repr__(self) -> str:
        return f"{self.count} {self.names[:5]}"

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(slots=True)
class RepairReport:
    """What a repair found and did; it grows while the repair runs.

    `checked` counts the items that were compared, `checked_bytes` how large they are; `copied`
    were missing somewhere, `replaced` damaged, `removed` not wanted, `extra` held by a new place
    alone and left there, `undecided` different without a way to tell which is right, `failed`
    could not be put right now.
    """

    checked: int = 0
    checked_bytes: int = 0
    copied: Tally = field(default_factory=Tally)
    replaced: Tally = field(default_factory=Tally)
    removed: Tally = field(default_factory=Tally)
    extra: Tally = field(default_factory=Tally)
    undecided: Tally = field(default_factory=Tally)
    failed: Tally = field(default_factory=Tally)

    @property
    def whole(self) -> bool:
        """Whether the places that were looked at hold the same now."""
        return not (self.undecided or self.failed or self.extra)


class Repair:
    """Repairs of one mirror.

    Args:
        dry_run: only look, and report what a repair would do.
    """

    def __init__(self, reads: Reads, changes: Changes, *, dry_run: bool = False) -> None:
        self.places = reads.places
        self._dry_run = dry_run
        self.stopped = False
        self._reads = reads
        self._changes = changes
        self._journal = reads.journal

    # -- what the journal says

    def replay(self, only: Place | None = None) -> RepairReport:
        """Put right what places that are up have missed. What fails stays in the journal."""
        report = RepairReport()
        for place in self.places:
            if place.usable and place.trusted and (only is None or place is only):
                for row in self._journal.missed_at(place.label):
                    if self.stopped or not place.usable:
                        report.failed.add(row.name)
                        break
                    self._replay_one(place, row, report)
        if report.copied or report.removed:
            logger.warning(
                "the mirror: %d items were copied and %d removed that places had missed",
                report.copied.count,
                report.removed.count,
            )
        return report

    def _replay_one(self, place: Place, row: Missed, report: RepairReport) -> None:
        try:
            with self._journal.changing([row.name]):
                self._changes.resolve(row.name)
                current = self._journal.missed_by(row.name).get(place.label)
                if current is not None:
                    self._heal(place, row.name, report)
                    self._journal.healed(current)
        except BackendError as error:
            logger.info("%s: %s cannot be put right yet: %s", row.name, place, error)
            report.failed.add(row.name)

    def _heal(self, place: Place, name: str, report: RepairReport) -> None:
        """Make a name at a place what it is elsewhere. Call with the name held."""
        sources = [other for other in self._reads.candidates(name) if other is not place]
        right = self._right(name, sources, place)
        there = place.call(lambda backend: backend.info(name))
        if right is None:
            if there.exists and there.directory:
                self._change(place, lambda backend: backend.rmdir(name))
            elif there.exists:
                self._change(place, lambda backend: backend.delete(name))
                report.removed.add(name)
        elif right.directory:
            if there.exists and not there.directory:
                self._change(place, lambda backend: backend.delete(name))
            self._change(place, lambda backend: backend.mkdir(name))
        else:
            if there.exists and there.directory:
                self._change(place, lambda backend: backend.rmdir(name))
            self._copy(name, sources, place)
            report.copied.add(name)

    # -- every change goes through one of these, and a dry run makes none

    def _change(self, place: Place, work: Callable[[Backend], object]) -> None:
        if not self._dry_run:
            place.call(work)

    def _copy(self, name: str, sources: Sequence[Place], target: Place) -> None:
        if not self._dry_run:
            copy(name, sources, target)

    def _set_aside(self, name: str, place: Place, *, or_delete: bool = False) -> None:
        if not self._dry_run and not set_aside(name, place) and or_delete:
            place.call(lambda backend: backend.delete(name))

    def _right(self, name: str, sources: Sequence[Place], place: Place) -> ItemInfo | None:
        """Return what a name should be, None where it should not exist."""
        asked = sources or [other for other in self.places if other is not place]
        found: ItemInfo | None = None
        answered = False
        for other in asked:
            if not other.usable:
                answered = answered and bool(sources)
                continue
            info = other.call(lambda backend: backend.info(name))
            answered = True
            if info.exists and (sources or info.directory):
                found = info
                break
        if not answered:
            raise self._reads.nowhere(name)
        return found

    def resolve_intents(self) -> None:
        """Decide changes that a process began and did not live to end."""
        for name in self._journal.intents():
            with self._journal.trying(name) as free:
                if free:
                    self._changes.resolve(name)

    def unsure(self) -> bool:
        """Whether the places may differ in ways that are recorded nowhere."""
        return self._journal.identity()[1]

    # -- everything

    def fill(self, report: RepairReport | None = None) -> RepairReport:
        """Give new places all that the others hold; then they are some of them."""
        return self.everything(Compare.SIZE, Extras.REPORT, report)

    def everything(
        self, compare: Compare, extras: Extras, report: RepairReport | None = None
    ) -> RepairReport:
        """Compare and repair all that the places hold which are up.

        Args:
            report: filled and returned, for who wants to look at it meanwhile.

        Raises:
            BackendError: a place failed on the way; what was repaired until then stays so.
        """
        report = RepairReport() if report is None else report
        places = [place for place in self.places if place.usable]
        if not any(place.trusted for place in places):
            raise self._reads.nowhere("the mirror")
        logger.info("the mirror: comparing %s by %s", ", ".join(map(str, places)), compare)
        for folder in walk(places):
            for name, held in folder.entries():
                self._must_go_on(places)
                try:
                    self._look_at(name, held, places, compare, extras, report)
                except BackendError as error:
                    logger.warning("%s: cannot be repaired now: %s", name, error)
                    report.failed.add(name)
        if not (report.failed or report.extra or self._dry_run):
            for place in places:
                if not place.trusted:
                    place.trusted = True
                    self._journal.trust(place.label, True)
                    logger.warning("%s is filled", place)
            if len(places) == len(self.places):
                self._journal.sure()
        logger.warning("the mirror: %s", report)
        return report

    def _must_go_on(self, places: Iterable[Place]) -> None:
        for place in places:
            if self.stopped or not place.usable:
                raise BackendError(f"the repair was broken off: {place} is down", retryable=True)

    def _look_at(
        self,
        name: str,
        held: Mapping[Place, Folder.Entry],
        places: Sequence[Place],
        compare: Compare,
        extras: Extras,
        report: RepairReport,
    ) -> None:
        if all(entry.directory for entry in held.values()):
            for place in places:
                if place not in held:
                    self._change(place, lambda backend: backend.mkdir(name))
            return
        report.checked += 1
        report.checked_bytes += max(entry.size for entry in held.values())
        same = len(held) == len(places) and (
            compare is Compare.PRESENCE or len({entry.size for entry in held.values()}) == 1
        )
        if same and compare is not Compare.CONTENT:
            return
        with self._journal.changing([name]):
            undecided = self._journal.is_intent(name) and not self._dry_run
            if undecided or self._journal.missed_by(name):
                self._replay_missed(name, report)
                return
            infos = {place: place.call(lambda backend: backend.info(name)) for place in places}
            self._mend(name, infos, compare, extras, report)

    def _replay_missed(self, name: str, report: RepairReport) -> None:
        if not self._dry_run:
            self._changes.resolve(name)
        for label, row in self._journal.missed_by(name).items():
            for place in self.places:
                if place.label == label and place.usable and place.trusted:
                    self._heal(place, name, report)
                    if not self._dry_run:
                        self._journal.healed(row)

    def _mend(
        self,
        name: str,
        infos: Mapping[Place, ItemInfo],
        compare: Compare,
        extras: Extras,
        report: RepairReport,
    ) -> None:
        """Make an item the same at all places. Call with the name held."""
        if any(info.directory for info in infos.values()):
            report.undecided.add(name)
            return
        holding = [place for place, info in infos.items() if info.exists]
        trusted = [place for place in holding if place.trusted]
        if not trusted and extras is not Extras.COPY:
            for place in holding:
                self._extra(name, place, extras, report)
            return
        good = self._good(name, trusted or holding, infos, compare)
        if good is None:
            logger.warning("%s: the copies differ, and which is right cannot be told", name)
            report.undecided.add(name)
            return
        for place in infos:
            if place in good.places:
                continue
            if place in holding:
                if compare is Compare.PRESENCE or good.is_at(place, infos[place].size, name):
                    continue
                logger.warning("%s: damaged at %s%s", name, place, self._verb(", replaced"))
                self._set_aside(name, place)
                report.replaced.add(name)
            else:
                logger.info("%s: missing at %s%s", name, place, self._verb(", copied"))
                report.copied.add(name)
            self._copy(name, good.places, place)

    def _verb(self, done: str) -> str:
        return "" if self._dry_run else done

    def _extra(self, name: str, place: Place, extras: Extras, report: RepairReport) -> None:
        if extras is Extras.REMOVE:
            logger.warning("%s: only %s has it%s", name, place, self._verb(", set aside"))
            self._set_aside(name, place, or_delete=True)
            report.removed.add(name)
        else:
            logger.warning("%s: only %s has it, left there", name, place)
            report.extra.add(name)

    def _good(
        self,
        name: str,
        holding: Sequence[Place],
        infos: Mapping[Place, ItemInfo],
        compare: Compare,
    ) -> _Good | None:
        """Return the copies that are right, None where that cannot be told."""
        sizes = {infos[place].size for place in holding}
        if compare is Compare.PRESENCE or (len(sizes) == 1 and compare is Compare.SIZE):
            return _Good(list(holding), infos[holding[0]].size, None)
        by_digest: dict[str, list[Place]] = {}
        for place in holding:
            try:
                by_digest.setdefault(digest_of(name, place), []).append(place)
            except BackendError as error:
                logger.warning("%s: cannot be read at %s: %s", name, place, error)
        named = name.rpartition("/")[2]
        if named in by_digest:
            best = named
        elif by_digest:
            best = max(by_digest, key=lambda digest: len(by_digest[digest]))
        else:
            return None
        right = by_digest[best]
        if best != named and len(by_digest) > 1 and 2 * len(right) <= len(holding):
            return None
        unread = len(holding) > sum(len(places) for places in by_digest.values())
        if best != named and unread and SHA256.match(named):
            return None  # what can be read does not prove itself
        return _Good(right, infos[right[0]].size, best)


@dataclass(frozen=True, slots=True)
class _Good:
    """The right copies of an item, and what they are."""

    places: list[Place]
    size: int
    digest: str | None

    def is_at(self, place: Place, size: int, name: str) -> bool:
        """Whether a place holds the same."""
        if size != self.size:
            return False
        return self.digest is None or digest_of(name, place) == self.digest
