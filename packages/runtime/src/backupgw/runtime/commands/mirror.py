"""`backupgw mirror`: how the places of a mirror are; repairing them, and taking a new disk in."""

from __future__ import annotations

import os
import pwd
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ..command import Command, CommandError, Exit, UsageError, add_json_option, global_options
from .mirror_work import Mirrored, opened, reason_of, work_under_bar
from .store.output import error_text, json_document, line, table

if TYPE_CHECKING:
    from backupgw.kvstore.layers.mirror import MirrorLayer
    from backupgw.kvstore.layers.mirror_inspection import Found

    from ..settings import Settings


def configure(parser: ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]
    status = verbs.add_parser(
        "status",
        parents=options,
        help="tell how each place of a mirror is",
        description="Ask each place now, changing nothing. Exit status: 0 all are up and hold "
        "everything, 3 some are not or do not, 1 none is up.",
    )
    repair = verbs.add_parser(
        "repair",
        parents=options,
        help="compare the places and make them the same",
        description="Put right what the journal knows of, then compare everything. Gateways may "
        "go on meanwhile. Exit status: 0 the places hold the same now, 3 some of it could not be "
        "put right or a place is down, 1 nothing could be done.",
    )
    repair.add_argument(
        "--compare",
        choices=("presence", "size", "content"),
        default="size",
        help="how closely: whether items are there, also their sizes, also every byte; "
        "default %(default)s",
    )
    repair.add_argument(
        "--extras",
        choices=("report", "remove", "copy"),
        default="report",
        help="items that only a new place holds: tell of them, set them aside, or copy them to "
        "the others; default %(default)s",
    )
    adopt = verbs.add_parser(
        "adopt",
        parents=options,
        help="take a replaced disk into a mirror and fill it",
        description="Mark a place as it is now as one of the mirror's and copy to it what the "
        "others hold. Exit status as for repair.",
    )
    for verb in (status, repair, adopt):
        verb.add_argument("place", metavar="PLACE", help="the place with the layer mirror")
        add_json_option(verb)
    adopt.add_argument(
        "which", metavar="WHICH", help="its number in `mirror status`, or its name in the settings"
    )
    adopt.add_argument(
        "--create", action="store_true", help="make it where it does not exist (is it mounted?)"
    )
    adopt.add_argument(
        "--force", action="store_true", help="even if it is marked as another mirror's"
    )
    for verb in (repair, adopt):
        verb.add_argument("--dry-run", action="store_true", help="only tell, change nothing")


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    from .. import log
    from ..settings import load

    # What the layer has to say of single items is in the answer.
    log.configure("debug" if arguments.debug else "error")
    mirrored = _find(load(arguments.config, serving=()), arguments.place)
    match arguments.verb:
        case "status":
            return _status(arguments, mirrored)
        case "repair":
            return _repair(arguments, mirrored)
        case _:
            return _adopt(arguments, mirrored)


def _find(settings: Settings, name: str) -> Mirrored:
    from backupgw.kvstore.layers.base import Layer
    from backupgw.kvstore.layers.mirror import MirrorLayer

    from ..settings_errors import did_you_mean
    from ..settings_layers import mirrored_places

    names = {each: mirrored_places(each, place.layers) for each, place in settings.places.items()}
    mirrors = [each for each, places in names.items() if places]
    if name not in settings.places:
        raise UsageError(f"there is no [places.{name}]; {did_you_mean(name, mirrors or names)}")
    if not names[name]:
        known = ", ".join(mirrors) or "none"
        raise UsageError(f"{name} is no mirror: it has no layer mirror (mirrors: {known})")
    found = settings.open_place(name)
    # What lies around the mirror (a trash, a cache) is not needed, and would start work of its own.
    while not isinstance(found, MirrorLayer):
        assert isinstance(found, Layer)
        found = found.inner
    found.self_repair = False
    return Mirrored(found, name, names[name])


# -- status


def _status(arguments: Namespace, mirrored: Mirrored) -> int:
    places = mirrored.layer.inspect()
    if arguments.json:
        json_document(
            {
                "mirror": mirrored.name,
                "quorum": mirrored.layer.quorum,
                "places": [_record(mirrored, found) for found in places],
            }
        )
    else:
        rows: list[tuple[str, ...]] = [("place", "name", "state", "missed", "what")]
        rows += [_row(mirrored, found) for found in places]
        table(rows, right=(0, 3))
    if not any(found.status.state == "up" for found in places):
        return Exit.FAILED
    return Exit.DONE if all(_is_well(found) for found in places) else Exit.PARTLY


def _is_well(found: Found) -> bool:
    status = found.status
    return status.state == "up" and not status.missed and status.trusted


def _row(mirrored: Mirrored, found: Found) -> tuple[str, ...]:
    status = found.status
    what = error_text(reason_of(status))
    if not what and not status.trusted:
        what = "not filled yet, and not read from until it is: backupgw mirror repair"
    name = mirrored.places[int(status.place) - 1]
    return (status.place, name, str(status.state), str(status.missed), what or "-")


def _record(mirrored: Mirrored, found: Found) -> dict[str, object]:
    status = found.status
    return {
        "place": int(status.place),
        "name": mirrored.places[int(status.place) - 1],
        "state": str(status.state),
        "missed": status.missed,
        "filled": status.trusted,
        "known": found.known,
        "reason": error_text(reason_of(status)) if status.reason else None,
    }


# -- repair and adopt


def _repair(arguments: Namespace, mirrored: Mirrored) -> int:
    from backupgw.kvstore.layers.mirror_repair import Compare, Extras, RepairReport

    layer = mirrored.layer
    found = layer.inspect()
    if arguments.dry_run:
        _refuse_unknown(mirrored, found)
    else:
        _refuse_foreign_user(layer)
    report = RepairReport()
    with opened(mirrored):
        return work_under_bar(
            arguments,
            mirrored,
            report,
            lambda: layer.repair(
                compare=Compare(arguments.compare),
                extras=Extras(arguments.extras),
                dry_run=arguments.dry_run,
                report=report,
            ),
        )


def _refuse_unknown(mirrored: Mirrored, found: list[Found]) -> None:
    """A dry run must not open what opening would make."""
    for each in found:
        if not each.known:
            raise CommandError(
                f"{mirrored.title(each.status)} has never been part of the mirror, and opening it "
                "would make it so; without --dry-run it is made and filled"
            )


def _adopt(arguments: Namespace, mirrored: Mirrored) -> int:
    from backupgw.kvstore.layers.mirror_repair import RepairReport

    layer = mirrored.layer
    number = _number(arguments.which, mirrored)
    found = layer.inspect()
    chosen = found[number - 1]
    title = mirrored.title(chosen.status)
    if not chosen.known:
        raise CommandError(
            f"{title} is new to the mirror, and is taken in by itself; "
            f"backupgw mirror repair {mirrored.name} does it now"
        )
    if not chosen.exists and not arguments.create:
        raise CommandError(
            f"{title}: {error_text(reason_of(chosen.status))}; is the new disk mounted? "
            "--create makes it where it is to be"
        )
    if chosen.own:
        raise CommandError(
            f"{title} carries the mirror's mark already, there is nothing to adopt; to compare "
            f"what it holds: backupgw mirror repair {mirrored.name}"
        )
    if chosen.mark is not None and not arguments.force:
        raise CommandError(
            f"{title} is marked as place {chosen.mark[1]} of the mirror {chosen.mark[0][:8]}; "
            "are two disks swapped? --force takes it away from that one"
        )
    others = [each for each in found if each is not chosen and each.status.state == "up"]
    if not any(each.status.trusted for each in others):
        raise CommandError(
            "no other place of the mirror that holds everything is up, so it could not be filled; "
            f"see: backupgw mirror status {mirrored.name}"
        )
    if arguments.dry_run:
        if arguments.json:
            json_document({"mirror": mirrored.name, "place": number, "dry_run": True})
        else:
            line(f"would mark {title} as one of {mirrored.name} and fill it from the others")
        return Exit.DONE
    _refuse_foreign_user(layer)
    report = RepairReport()
    with opened(mirrored):
        return work_under_bar(
            arguments,
            mirrored,
            report,
            lambda: layer.adopt(number, create=arguments.create, report=report),
        )


def _number(which: str, mirrored: Mirrored) -> int:
    if which.isascii() and which.isdigit() and 1 <= int(which) <= len(mirrored.places):
        return int(which)
    if mirrored.places.count(which) == 1:
        return mirrored.places.index(which) + 1
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(mirrored.places, 1))
    raise UsageError(f"{which!r} is none of the places of {mirrored.name}: {known}")


def _refuse_foreign_user(layer: MirrorLayer) -> None:
    """What root makes in a mirror of another user's, that user's gateway could not use."""
    if os.geteuid() != 0:
        return
    try:
        owner = os.stat(layer.journal_path).st_uid
    except OSError:
        return
    if owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise CommandError(
            f"the mirror's journal belongs to {name}, and what root makes in its places the "
            f"gateway could not use; run it as that user: sudo -u {name} backupgw …"
        )


command = Command(
    name="mirror",
    help="see how the places of a mirror are, repair them, take in a new disk",
    configure=configure,
    run=run,
)
