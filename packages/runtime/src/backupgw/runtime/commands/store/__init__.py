"""`backupgw store`: looks into places, and changes, copies, checks and measures what is in them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...command import Command, add_json_option, global_options, whole_number

if TYPE_CHECKING:
    from .location import Places

_WHERE = """\
Where something is:
  main                   the place main of the settings ([places.main])
  main:alice/data        alice/data in it
  file:///srv/b          the place at a URL
  file:///srv/b::alice   alice in it; a :: of the URL itself is written %3A%3A
"""


def configure(parser: ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]

    def verb(name: str, text: str, **more: Any) -> ArgumentParser:
        added: ArgumentParser = verbs.add_parser(
            name,
            parents=options,
            help=text,
            epilog=_WHERE,
            formatter_class=RawDescriptionHelpFormatter,
            **more,
        )
        add_json_option(added)
        return added

    _configure_looking(verb)
    _configure_items(verb)
    _configure_copy(verb)
    _configure_places(verb)
    _configure_reap(verb)
    _configure_auth(verb)


Verb = Callable[..., ArgumentParser]


def _configure_looking(verb: Verb) -> None:
    ls = verb("ls", "list a folder, or the places; --json: one object a line")
    ls.add_argument("location", nargs="?", metavar="WHERE")
    ls.add_argument("-l", "--long", action="store_true", help="with size (bytes) and time (UTC)")
    ls.add_argument("-R", "--recursive", action="store_true", help="all that is below it")
    info = verb("info", "tell what is known of a place, a folder or an item")
    info.add_argument("location", metavar="WHERE")
    info.add_argument("--hash", action="store_true", help="the item's SHA-256, too")
    du = verb("du", "add up what lies below a folder; --json: one object a line")
    du.add_argument("location", metavar="WHERE")
    du.add_argument(
        "--depth",
        type=whole_number(0, 1000),
        default=1,
        metavar="N",
        help="how deep folders are told; default %(default)s",
    )


def _configure_items(verb: Verb) -> None:
    cat = verb("cat", "write an item to standard output")
    cat.add_argument("location", metavar="ITEM")
    cat.add_argument(
        "--offset", type=int, default=0, metavar="BYTES", help="first byte; negative: from the end"
    )
    cat.add_argument(
        "--size", type=whole_number(0, 1 << 62), metavar="BYTES", help="how many at most"
    )
    get = verb("get", "fetch an item into a file")
    get.add_argument("source", metavar="ITEM")
    get.add_argument("file", nargs="?", metavar="FILE", help="a file, a folder, or - for stdout")
    get.add_argument("--force", action="store_true", help="replace a file that is there")
    put = verb("put", "store a file as an item")
    put.add_argument("file", metavar="FILE", help="- is standard input")
    put.add_argument("target", metavar="WHERE", help="the item, or the folder that gets it")
    put.add_argument("--force", action="store_true", help="replace an item that is there")
    put.add_argument("--create", action="store_true", help="make the place if there is none")
    rm = verb("rm", "delete items and folders")
    rm.add_argument("locations", nargs="+", metavar="WHERE")
    rm.add_argument("-r", "--recursive", action="store_true", help="folders with all in them")
    rm.add_argument("-v", "--verbose", action="store_true", help="tell each item")
    _add_dry_run(rm)
    mv = verb("mv", "rename an item, or all below a folder, within a place")
    mv.add_argument("source", metavar="FROM")
    mv.add_argument("target", metavar="TO", help="the new name, or a folder that is there")
    mv.add_argument("--force", action="store_true", help="replace items that are there")
    _add_dry_run(mv)


def _configure_copy(verb: Verb) -> None:
    copy = verb(
        "copy",
        "copy from any place to any place",
        description="Copy an item, or all that is below a folder, into a folder. What is at the "
        "target already is left alone, so a copy that was interrupted is carried on by the same "
        "command. Nothing is deleted at the target. Exit status 3: some items failed.",
    )
    copy.add_argument("source", metavar="FROM")
    copy.add_argument("target", metavar="TO")
    copy.add_argument(
        "--verify",
        action="store_true",
        help="read everything back and compare hashes, what was there already too",
    )
    copy.add_argument(
        "--compare",
        choices=("auto", "size", "hash"),
        default="auto",
        help="when an item counts as copied: same size; same SHA-256; auto: same size, and same "
        "hash where both places know it, else younger than the source's (default)",
    )
    copy.add_argument(
        "-j",
        "--jobs",
        type=whole_number(1, 256),
        default=8,
        metavar="N",
        help="items at a time; default %(default)s",
    )
    copy.add_argument("--create", action="store_true", help="make the target if there is none")
    copy.add_argument("-v", "--verbose", action="store_true", help="tell each item")
    _add_dry_run(copy)


def _configure_places(verb: Verb) -> None:
    check = verb(
        "check",
        "check a place against every promise, before it is trusted",
        description="Run the checks that every place must pass, in a folder of their own that is "
        "removed again. A place with a trash keeps what they delete.",
    )
    check.add_argument("location", nargs="?", metavar="PLACE")
    check.add_argument("--only", metavar="TEXT", help="the checks whose name contains this")
    check.add_argument("--list", action="store_true", help="list the checks, run none")
    check.add_argument("--soak", action="store_true", help="full counts; takes long")
    check.add_argument(
        "--create", action="store_true", help="make the place if there is none, then remove it"
    )
    undelete = verb(
        "undelete",
        "bring back what lies in the trash of a place",
        description="Bring back the last value of an item, with -r of all items below a folder; "
        "with --at the values of that time.",
    )
    undelete.add_argument("location", metavar="WHERE")
    undelete.add_argument("--list", action="store_true", help="list what is kept, change nothing")
    undelete.add_argument("-r", "--recursive", action="store_true", help="all below a folder")
    undelete.add_argument("--at", metavar="TIME", help="2027-01-31T18:00, UTC unless it says more")
    undelete.add_argument(
        "--replace", action="store_true", help="items that are there go to the trash themselves"
    )
    undelete.add_argument("-v", "--verbose", action="store_true", help="tell each item")
    _add_dry_run(undelete)
    bench = verb(
        "bench",
        "measure how fast a place is",
        description="Write, read, list and delete items in a fresh folder, which is removed again.",
    )
    bench.add_argument("location", metavar="WHERE")
    bench.add_argument(
        "--sizes", default="4k,1M,16M", metavar="LIST", help="of the items; default %(default)s"
    )
    bench.add_argument(
        "--count",
        type=whole_number(1, 100_000),
        metavar="N",
        help="items of each size; default 64 MiB of them, 4 to 100",
    )
    bench.add_argument(
        "--threads", type=whole_number(1, 256), default=4, metavar="N", help="default %(default)s"
    )


def _configure_reap(verb: Verb) -> None:
    reap = verb(
        "reap",
        "clear away what writers that died have left in places",
        description="Remove what uploads that nobody will finish have left: temporary files, parts "
        "of objects, checkpoints that are too old. Items, the trash and what was set aside stay. "
        "Meant for every night. Exit status 3: some places failed.",
    )
    reap.add_argument(
        "places", nargs="*", metavar="PLACE", help="default: all places of the settings"
    )
    reap.add_argument(
        "--older-than",
        default="24 h",
        metavar="TIME",
        help="to which nothing came for so long, an hour at least; default %(default)s",
    )


def _configure_auth(verb: Verb) -> None:
    auth = verb(
        "auth",
        "get the grant by which a place acts for its owner (Dropbox, Google Drive)",
        description="Show a page to visit, on any machine, ask for the code that it leads to (a "
        "browser of this machine may bring it by itself), and write the grant to the file that the "
        "place's settings name.",
    )
    auth.add_argument("place", metavar="NAME", help="a place of the settings")
    auth.add_argument(
        "--no-browser", action="store_true", help="open no browser, where there is one"
    )


def _add_dry_run(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell, change nothing")


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    from ... import log
    from ...settings import load
    from .location import Places

    log.configure("debug" if arguments.debug else "warning")
    with Places(load(arguments.config, serving=())) as places:
        return _verb(arguments.verb)(arguments, places)


def _verb(name: str) -> Callable[[Namespace, Places], int]:
    """Return the function of a verb; only what it needs is imported."""
    match name:
        case "ls" | "info" | "du":
            from .look import du, info, ls

            return {"ls": ls, "info": info, "du": du}[name]
        case "cat" | "get" | "put":
            from .transfer import cat, get, put

            return {"cat": cat, "get": get, "put": put}[name]
        case "rm" | "mv":
            from .change import mv, rm

            return {"rm": rm, "mv": mv}[name]
        case "copy":
            from .copy import copy

            return copy
        case "check":
            from .check import check

            return check
        case "auth":
            from .auth import auth

            return auth
        case "reap":
            from .reap import reap

            return reap
        case "undelete":
            from .undelete import undelete

            return undelete
        case _:
            from .bench import bench

            return bench


command = Command(
    name="store",
    help="look into places; copy, change, check and measure what is in them",
    configure=configure,
    run=run,
)
