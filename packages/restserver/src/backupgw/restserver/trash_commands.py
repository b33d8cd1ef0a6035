"""`backupgw rest trash`: what clients have deleted, listed, brought back, and let go of for good.

For the operator alone: no protocol reaches the trash.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backupgw.runtime.command import CommandError, Exit, UsageError, add_json_option, global_options

from .amounts import plain, size_text

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend
    from backupgw.kvstore.layers.trash import TrashLayer
    from backupgw.kvstore.layers.trash_contents import Entry
    from backupgw.runtime.settings import Settings

    from .trash_selection import Selection

_LINE = "{:<17} {:>10} {:<8} {:<12} {:<17}  {}"
_SUMMARY = "{:>9} {:>10} {:<17} {:<17} {:<20}  {}"


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    verbs = parser.add_subparsers(dest="trash_verb", metavar="COMMAND", required=True)
    options = [global_options()]
    listing = verbs.add_parser("list", parents=options, help="list what lies in the trash")
    listing.add_argument(
        "--summary", action="store_true", help="one line for each repository instead of each object"
    )
    restoring = verbs.add_parser(
        "restore",
        parents=options,
        help="bring back what was deleted",
        description="Bring back what was deleted; with --since what was there at that moment, the "
        "config as it was then. What is replaced or taken away goes to the trash.",
    )
    restoring.add_argument(
        "--exact",
        action="store_true",
        help="put into the trash what was written after the moment of --since",
    )
    emptying = verbs.add_parser(
        "empty",
        parents=options,
        help="remove what was kept long enough; with --force all that is selected",
    )
    emptying.add_argument(
        "--force", action="store_true", help="also what the trash would keep for longer; needs REPO"
    )
    emptying.add_argument(
        "--clock-is-right",
        action="store_true",
        help="remove although the clock may have jumped: it has not",
    )
    for each, about in (
        (listing, "only of these"),
        (restoring, "of these"),
        (emptying, "of these"),
    ):
        each.add_argument(
            "--repo",
            metavar="REPO",
            help=f"{about}: ann/laptop, 'ann/*', '**' for all, / for the one at the root",
        )
        each.add_argument(
            "--since",
            metavar="TIME",
            help='what was deleted after "2026-11-20 03:00" (local) or "36 h" ago',
        )
        each.add_argument("--path", metavar="DIR", help="folder of the repositories")
        add_json_option(each)
    for each in (restoring, emptying):
        each.add_argument(
            "--dry-run", action="store_true", help="change nothing, and say what would change"
        )


def run(options: Namespace) -> int:
    """Do what the subcommand says; return the exit status."""
    from backupgw.runtime.settings import load

    from .cli import place_overrides
    from .place import has_trash, opened, refuse_foreign_user, trash_layer
    from .settings import RestSettings

    selection = _selection(options)
    settings = load(options.config, place_overrides(options.path))
    name = settings.section("rest", RestSettings).place
    if not has_trash(settings):
        raise CommandError(
            f"the place {name!r} has no trash: what is deleted there is gone. "
            f'Write in [places.{name}]: layers = [{{ layer = "trash", keep = "30 days" }}]'
        )
    if options.trash_verb != "list":
        refuse_foreign_user(settings)
    with opened(settings) as place:
        layer = trash_layer(place)
        assert layer is not None
        match options.trash_verb:
            case "list":
                return _list(options, place, selection)
            case "restore":
                return _restore(options, place, layer, selection)
            case _:
                return _empty(options, settings, place, selection)


def _selection(options: Namespace) -> Selection:
    from .moments import parse_moment
    from .trash_selection import Selection

    repository = None
    if options.repo is not None:
        if not options.repo:
            raise UsageError("--repo is not empty; / means the repository at the root")
        repository = options.repo.strip("/")
    elif options.trash_verb == "restore" or getattr(options, "force", False):
        raise UsageError("name a repository with --repo; --repo '**' means all of them")
    since = None if options.since is None else parse_moment(options.since)
    if getattr(options, "exact", False) and since is None:
        raise UsageError("--exact needs the moment: --since")
    if options.trash_verb == "empty" and not options.force and (options.repo or options.since):
        raise UsageError("without --force the whole trash is gone through; --repo needs --force")
    return Selection(repository, since)


# -- list


def _list(options: Namespace, place: Backend, selection: Selection) -> int:
    from backupgw.kvstore.layers.trash_contents import Trash

    entries = selection.entries(Trash(place))
    if options.summary:
        _summarise(options, entries)
        return Exit.DONE
    with _output(options) as tell:
        if not options.json:
            tell("", _LINE.format("deleted", "size", "how", "by", "kept until", "object"))
        for entry in entries:
            tell(_document(entry), _line(entry))
    return Exit.DONE


def _summarise(options: Namespace, entries: Iterator[Entry]) -> None:
    from .limits import repository_of
    from .moments import minute, stamp
    from .trash_totals import Totals

    totals: dict[str | None, Totals] = {}
    for entry in entries:
        totals.setdefault(repository_of(entry.name), Totals()).add(entry)
    head = ("objects", "size", "first deleted", "last deleted", "by", "repository")
    with _output(options) as tell:
        if not options.json:
            tell("", _SUMMARY.format(*head))
        for repo in sorted(totals, key=lambda name: name or ""):
            found = totals[repo]
            document = {
                "repository": repo,
                "objects": found.objects,
                "bytes": found.bytes,
                "first_deleted": stamp(found.first),
                "last_deleted": stamp(found.last),
                "by": sorted(found.by),
            }
            cells = (found.objects, size_text(found.bytes), minute(found.first), minute(found.last))
            by = plain(", ".join(sorted(found.by)) or "-")
            tell(document, _SUMMARY.format(*cells, by, "-" if repo is None else plain(repo or "/")))


@contextmanager
def _output(options: Namespace) -> Iterator[Any]:
    """Give a function that prints a line, or adds a document to an array that grows as it is
    written: a trash may hold millions."""
    separator = "["

    def tell(document: object, line: str) -> None:
        nonlocal separator
        if not options.json:
            sys.stdout.write(f"{line.rstrip()}\n")
            return
        sys.stdout.write(f"{separator}\n{json.dumps(document, ensure_ascii=False)}")
        separator = ","

    yield tell
    if options.json:
        sys.stdout.write("[]\n" if separator == "[" else "\n]\n")


def _document(entry: Entry) -> dict[str, Any]:
    from .moments import stamp

    return {
        "name": entry.name,
        "bytes": entry.size,
        "deleted": stamp(entry.when),
        "kept_until": stamp(entry.until),
        "how": entry.how.name.lower(),
        "by": entry.who or None,
        "path": entry.path,
    }


def _line(entry: Entry) -> str:
    from .moments import minute

    how, who = entry.how.name.lower(), plain(entry.who or "-")
    until = minute(entry.until)
    return _LINE.format(
        minute(entry.when), size_text(entry.size), how, who, until, plain(entry.name)
    )


# -- restore


def _restore(options: Namespace, place: Backend, layer: TrashLayer, selection: Selection) -> int:
    from .progress import Progress
    from .trash_restoring import Restoring

    with Progress(quiet=options.json) as progress:
        restoring = Restoring(
            place,
            layer,
            selection,
            exact=options.exact,
            dry_run=options.dry_run,
            on_restored=lambda entry: progress.step(entry.size),
        )
        restored = restoring.run()
    for message in restored.failed:
        print(f"backupgw: {plain(message)}", file=sys.stderr)  # noqa: T201
    if options.json:
        document = {
            "dry_run": options.dry_run,
            "objects": restored.items,
            "bytes": restored.bytes,
            "replaced": restored.replaced,
            "present": restored.present,
            "removed": restored.removed,
            "failed": restored.failures,
        }
        print(json.dumps(document, indent=2))  # noqa: T201
    else:
        verb = "would bring back" if options.dry_run else "brought back"
        print(  # noqa: T201
            f"{verb} {restored.items} objects, {size_text(restored.bytes)}"
            + (f"; {restored.replaced} in place of others" if restored.replaced else "")
            + (f"; {restored.present} are there already" if restored.present else "")
            + (f"; {restored.removed} written since are in the trash" if restored.removed else "")
            + (f"; {restored.failures} could not be" if restored.failures else "")
        )
    return Exit.PARTLY if restored.failures else Exit.DONE


# -- empty


def _empty(options: Namespace, settings: Settings, place: Backend, selection: Selection) -> int:
    from backupgw.kvstore.layers.trash_clock import ClockDoubted

    from .trash_emptying import expire, remove_selected

    try:
        if options.force:
            removed = remove_selected(place, selection, dry_run=options.dry_run)
        else:
            removed = expire(place, trusted=options.clock_is_right, dry_run=options.dry_run)
    except ClockDoubted as error:
        raise CommandError(f"{error}: if it is, use --clock-is-right") from error
    if not options.dry_run:
        from backupgw.kvstore.layers.trash_contents import Trash

        from .operator_jobs import note_trash

        note_trash(settings, Trash(place).contents())
    if options.json:
        document = {"dry_run": options.dry_run, "objects": removed.items, "bytes": removed.bytes}
        print(json.dumps(document, indent=2))  # noqa: T201
    else:
        verb = "would remove" if options.dry_run else "removed"
        print(f"{verb} {removed.items} objects, {size_text(removed.bytes)}")  # noqa: T201
    return Exit.DONE
