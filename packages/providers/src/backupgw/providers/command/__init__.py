"""`backupgw provider`: configures providers, tries them, and moves files to and from them."""

from __future__ import annotations

import gc
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backupgw.runtime.command import Command, add_json_option, global_options, whole_number

Verb = Callable[..., ArgumentParser]


def configure(parser: ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]

    def verb(name: str, text: str, *, also: tuple[str, ...] = (), **more: Any) -> ArgumentParser:
        added: ArgumentParser = verbs.add_parser(
            name, parents=options, help=text, aliases=list(also), **more
        )
        added.set_defaults(verb=name)
        add_json_option(added)
        return added

    _configure_looking(verb)
    _configure_changing(verb)
    _configure_trying(verb)
    _configure_moving(verb)


def _configure_looking(verb: Verb) -> None:
    verb("list", "list all providers, those that cannot be used too", also=("list-providers",))
    show = verb(
        "show", "tell how a provider is configured, secrets hidden", also=("get-credentials",)
    )
    show.add_argument("provider", metavar="PROVIDER")
    show.add_argument("--all", action="store_true", help="fields at their defaults, too")
    ls = verb("ls", "list the files at a provider; --json: one object a line")
    ls.add_argument("provider", metavar="PROVIDER")
    ls.add_argument("prefix", nargs="?", default="", metavar="PREFIX")
    ls.add_argument("-l", "--long", action="store_true", help="with size (bytes) and time (UTC)")
    ls.add_argument(
        "--max-files", type=whole_number(1, 1 << 60), metavar="N", help="at most so many"
    )
    calls = verb("calls", "tell how many requests went to a provider's service, and what they cost")
    calls.add_argument("providers", nargs="*", metavar="PROVIDER")


def _configure_changing(verb: Verb) -> None:
    enable = verb("enable", "use a provider", also=("enable-provider",))
    enable.add_argument("provider", metavar="PROVIDER")
    enable.add_argument(
        "--type", metavar="KIND", help="a second provider of this kind, under a name of its own"
    )
    enable.add_argument(
        "-s", "--set", metavar="FIELD=VALUE", action="append", default=[], dest="fields",
        help="and set this field, as `set` does; can be given several times",
    )  # fmt: skip
    enable.add_argument(
        "fields_too", metavar="FIELD=VALUE", nargs="*", help="the same without --set"
    )
    disable = verb("disable", "no longer use a provider", also=("disable-provider",))
    disable.add_argument("provider", metavar="PROVIDER")
    forget = verb("forget", "forget how a provider is configured; what it keeps, it keeps")
    forget.add_argument("provider", metavar="PROVIDER")
    setting = verb("set", "set a field of a provider", also=("set-config",))
    setting.add_argument("provider", metavar="PROVIDER")
    setting.add_argument("field", metavar="FIELD")
    setting.add_argument(
        "value", nargs="?", metavar="VALUE", help="left out: asked for, or read from standard input"
    )
    unset = verb("unset", "take a field back to its default", also=("unset-config",))
    unset.add_argument("provider", metavar="PROVIDER")
    unset.add_argument("field", metavar="FIELD")
    get = verb("get", "show a field of a provider", also=("get-config",))
    get.add_argument("provider", metavar="PROVIDER")
    get.add_argument("field", nargs="?", metavar="FIELD")
    _configure_credentials(verb)
    bring = verb(
        "import",
        "take over providers from the settings of the HOMESERVER backup system (JSON)",
        also=("set-credentials-json",),
    )
    bring.add_argument("file", metavar="FILE", help="- is standard input")
    bring.add_argument("--dry-run", action="store_true", help="only tell, change nothing")


def _configure_credentials(verb: Verb) -> None:
    credentials = verb(
        "set-credentials",
        "set a provider's credentials",
        description="The password is asked for, or read from standard input. What user and "
        "password stand for is on each provider's page: an access key and its secret, for example.",
    )
    credentials.add_argument("provider", metavar="PROVIDER")
    credentials.add_argument("-u", "--username", metavar="USER", help="left out: asked for")
    credentials.add_argument(
        "-p",
        "--password",
        metavar="PASSWORD",
        help="here every user of this machine can see it; better leave it out",
    )
    credentials.add_argument(
        "--password-file", metavar="FILE", type=Path, help="read from there at each use"
    )
    credentials.add_argument("--password-env", metavar="NAME", help="a variable that has it")
    remove = verb("remove-credentials", "forget a provider's credentials")
    remove.add_argument("provider", metavar="PROVIDER")
    connect = verb("connect", "get a grant by a web page (Google Drive, Dropbox)")
    connect.add_argument("provider", metavar="PROVIDER")


def _configure_trying(verb: Verb) -> None:
    test = verb(
        "test",
        "see whether providers answer and let us in",
        also=("test-providers",),
        description="Without a name: all that are enabled.",
    )
    test.add_argument("providers", nargs="*", metavar="PROVIDER")
    test.add_argument(
        "--create", action="store_true", help="make a container that is not there any more"
    )
    cycle = verb(
        "test-cycle",
        "store a file, fetch it, compare every byte, and delete it",
        description="Without a name: at all that are enabled.",
    )
    cycle.add_argument("providers", nargs="*", metavar="PROVIDER")
    cycle.add_argument(
        "-i", "--include", metavar="FILE", type=Path, action="append", default=[],
        help="with these files; default: a fresh one of 1 MiB",
    )  # fmt: skip
    check = verb(
        "check",
        "compare a folder of this machine with what a provider has",
        description="Exit status 0: everything is there; 1: something is missing or different.",
    )
    check.add_argument("provider", metavar="PROVIDER")
    check.add_argument("local", metavar="LOCAL", type=Path)
    check.add_argument("folder", nargs="?", default="", metavar="FOLDER")
    check.add_argument("--content", action="store_true", help="fetch and compare every byte")


def _configure_moving(verb: Verb) -> None:
    upload = verb(
        "upload",
        "store files",
        description="An upload that was interrupted is carried on by the same command. "
        "Exit status 3: some files failed.",
    )
    upload.add_argument("provider", metavar="PROVIDER")
    upload.add_argument("files", nargs="+", metavar="FILE", type=Path)
    upload.add_argument("--name", metavar="NAME", help="what a single file is called there")
    upload.add_argument("--folder", default="", metavar="FOLDER", help="where they go")
    _add_jobs(upload)
    download = verb(
        "download", "fetch a file, or all in a folder", description="Exit status 3: some failed."
    )
    download.add_argument("words", nargs="+", metavar="[PROVIDER] NAME [TARGET]")
    download.add_argument("-p", "--provider", metavar="PROVIDER", help="instead of the first word")
    download.add_argument("-t", "--target", metavar="PATH", type=Path, help="a file or a folder")
    download.add_argument("--force", action="store_true", help="replace files that are there")
    download.add_argument(
        "-r",
        "--recursive",
        action="store_true",
        help="all in the folder NAME (. is everything); what is in TARGET already is left alone",
    )
    _add_jobs(download)
    delete = verb("delete", "delete files")
    delete.add_argument("provider", metavar="PROVIDER")
    delete.add_argument("names", nargs="+", metavar="NAME")
    delete.add_argument("--prefix", action="store_true", help="all whose names start with these")
    delete.add_argument("--dry-run", action="store_true", help="only tell, change nothing")
    sync = verb(
        "sync",
        "make a provider have what a folder of this machine has",
        description="A file that is there with the same size, and was stored after it was last "
        "changed, is left alone. Exit status 3: some files failed.",
    )
    sync.add_argument("provider", metavar="PROVIDER")
    sync.add_argument("local", metavar="LOCAL", type=Path)
    sync.add_argument("folder", nargs="?", default="", metavar="FOLDER")
    sync.add_argument(
        "--delete", action="store_true", help="delete there what is not in the folder"
    )
    sync.add_argument("--dry-run", action="store_true", help="only tell, change nothing")
    sync.add_argument("-v", "--verbose", action="store_true", help="tell each file")
    _add_jobs(sync)
    clean = verb("clean", "clear away what interrupted uploads have left")
    clean.add_argument("providers", nargs="*", metavar="PROVIDER")
    clean.add_argument(
        "--older-than", default="7 days", metavar="TIME", help="default %(default)s; 0 is all"
    )


def _add_jobs(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-j", "--jobs", type=whole_number(1, 20), metavar="N",
        help="files at a time; default: the provider's connection_pool_size",
    )  # fmt: skip


def run(arguments: Namespace) -> int:
    """Do what the verb says; only what it needs is imported."""
    # What is imported stays. To look through it for what does not is a tenth of a command's start;
    # the session goes on with that once the place is open.
    gc.disable()
    try:
        return _run(arguments)
    finally:
        gc.enable()


def _run(arguments: Namespace) -> int:
    from .session import Session

    with Session(arguments) as session:
        match arguments.verb:
            case "list" | "show" | "calls":
                from . import looking

                return looking.run(session)
            case "ls" | "delete" | "download" | "upload":
                from . import files

                return files.run(session)
            case "test" | "test-cycle":
                from . import trying

                return trying.run(session)
            case "sync" | "check":
                from . import folders

                return folders.run(session)
            case "clean" | "connect":
                from . import upkeep

                return upkeep.run(session)
            case _:
                from . import changing

                return changing.run(session)


command = Command(
    name="provider",
    help="configure providers, try them, move files to and from them",
    configure=configure,
    run=run,
)
