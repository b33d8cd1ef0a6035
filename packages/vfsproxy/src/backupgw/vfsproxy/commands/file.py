"""`backupgw vfs file`: what is in a folder, by hand."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from backupgw.runtime.command import CommandError, Exit
from backupgw.runtime.commands.new_file import new_file
from backupgw.runtime.commands.store.output import cell, json_document, line, size_text, time_text
from backupgw.runtime.commands.store.transfer import counted, opened_input

from .session import folder_of, session
from .verbs import FOLDER, add_verbs

if TYPE_CHECKING:
    from ..core import Core
    from ..folders.access import FolderAccess
    from ..folders.records import Permission

_CHUNK = 1 << 20


def configure(parser: ArgumentParser) -> None:
    """Add the verbs."""
    verbs = add_verbs(
        parser,
        {
            "ls": "list what is in a folder",
            "get": "fetch a file",
            "put": "store a file",
            "mkdir": "make a folder in it, and those above",
            "rm": "delete files",
            "mv": "give a file or folder another name",
            "cp": "copy it",
        },
    )
    for verb in verbs.values():
        verb.add_argument("folder", metavar="FOLDER", help=FOLDER)
    add = verbs["ls"].add_argument
    add("path", metavar="PATH", nargs="?", default="", help="a folder in it")
    add("-r", "--recursive", action="store_true", help="and all that is below")
    add = verbs["get"].add_argument
    add("path", metavar="PATH")
    add("file", metavar="FILE", nargs="?", help="default its name; - is standard output")
    add("--force", action="store_true", help="replace what is there")
    add = verbs["put"].add_argument
    add("file", metavar="FILE", help="- is standard input")
    add("path", metavar="PATH", nargs="?", help="default the file's name; DIR/ is in it")
    add("--force", action="store_true", help="replace what is there")
    verbs["mkdir"].add_argument("path", metavar="PATH")
    add = verbs["rm"].add_argument
    add("paths", metavar="PATH", nargs="+")
    add("-r", "--recursive", action="store_true", help="folders too, with all that is in them")
    for name in ("mv", "cp"):
        add = verbs[name].add_argument
        add("path", metavar="PATH")
        add("target", metavar="NEW-PATH")
        add("--to", metavar="FOLDER", help="another folder that it comes into")
        add("--force", action="store_true", help="replace a file that is there")


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.names import InvalidName

    from ..files.refusals import refusal_of

    verbs = {
        "ls": _list,
        "get": _get,
        "put": _put,
        "mkdir": _mkdir,
        "rm": _remove,
        "mv": _move,
        "cp": _move,
    }
    with session(options) as core:
        try:
            return verbs[options.action](core, options)
        except (BackendError, InvalidName) as error:
            name = getattr(options, "path", None) or ""
            raise CommandError(refusal_of(error, name).detail) from error


def _access(core: Core, folder: str, needed: Permission) -> FolderAccess:
    from ..identity import OPERATOR

    return core.folders.resolve(OPERATOR, folder_of(core, folder).id, needed)


def _list(core: Core, options: Namespace) -> int:
    from backupgw.kvstore.backends.errors import ObjectNotFound

    from ..api.file_documents import entry_document
    from ..files import names
    from ..files.listing import entries
    from ..folders.records import Permission

    access = _access(core, options.folder, Permission.READ_ONLY)
    path = names.lying(access.files, names.checked_folder(options.path))
    first = True
    if options.json:
        sys.stdout.write("[")
    try:
        for entry in entries(access.files, path, recursive=options.recursive):
            if options.json:
                document = entry_document(entry.path, entry.info).model_dump_json()
                sys.stdout.write(f"{'' if first else ','}\n{document}")
                first = False
            else:
                directory = entry.info.directory
                size = "-" if directory else size_text(entry.info.size)
                shown = cell(entry.path) + ("/" if directory else "")
                line(f"{size:>10}  {time_text(entry.info.mtime):20}  {shown}")
    except ObjectNotFound as error:
        # A folder that nothing was stored in yet need not be there.
        if path:
            raise CommandError(f"there is no folder {path!r}") from error
    if options.json:
        sys.stdout.write("]\n" if first else "\n]\n")
    return Exit.DONE


def _get(core: Core, options: Namespace) -> int:
    from ..files import changes, names
    from ..folders.records import Permission

    access = _access(core, options.folder, Permission.READ_ONLY)
    name = names.lying(access.files, names.checked(options.path))
    if changes.look(access.files, name).directory:
        raise CommandError(f"{name!r} is a folder; fetch its files, or download it as an archive")
    with access.files.open_reader(name) as reader:
        if options.file == "-":
            while chunk := reader.read(_CHUNK):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return Exit.DONE
        path = Path(options.file or name.rpartition("/")[2])
        if path.is_dir():
            path /= name.rpartition("/")[2]
        size = reader.item_size
        with new_file(path, replace=options.force) as file, counted(options, size) as count:
            while chunk := reader.read(_CHUNK):
                file.write(chunk)
                count(len(chunk))
    if options.json:
        json_document({"path": name, "file": str(path), "size": size})
    return Exit.DONE


def _put(core: Core, options: Namespace) -> int:
    from ..api.file_documents import entry_document
    from ..files import names
    from ..files.parents import check_parents
    from ..files.refusals import exists
    from ..folders.records import Permission

    if options.file != "-" and Path(options.file).is_dir():
        raise CommandError(f"{options.file} is a folder; put stores one file")
    given = options.path or ""
    if given in ("", ".") or given.endswith("/"):
        if options.file == "-":
            raise CommandError("standard input has no name; say which path it gets")
        given = f"{given.rstrip('/')}/{Path(options.file).name}".removeprefix("./").lstrip("/")
    name = names.new(given)
    access = _access(core, options.folder, Permission.READ_WRITE)
    info = access.files.info(name)
    if info.exists and (info.directory or not options.force):
        raise exists(name)
    check_parents(access.files, name)
    with (
        opened_input(options.file) as (file, size),
        counted(options, size) as count,
        access.files.open_writer(name, size=size, if_absent=not options.force) as writer,
    ):
        while chunk := file.read(_CHUNK):
            writer.write(chunk)
            count(len(chunk))
    if options.json:
        json_document(entry_document(name, access.files.info(name)).model_dump(mode="json"))
    return Exit.DONE


def _mkdir(core: Core, options: Namespace) -> int:
    from ..api.file_documents import entry_document
    from ..files import changes, names
    from ..folders.records import Permission

    access = _access(core, options.folder, Permission.READ_WRITE)
    name = names.new(options.path)
    changes.make_folder(access.files, name, parents=True, exist_ok=True)
    if options.json:
        json_document(entry_document(name, access.files.info(name)).model_dump(mode="json"))
    return Exit.DONE


def _remove(core: Core, options: Namespace) -> int:
    from ..file_changes import FileChanges
    from ..files import changes, names
    from ..folders.records import Permission

    access = _access(core, options.folder, Permission.READ_WRITE_DELETE)
    for path in options.paths:
        changes.look(access.files, names.lying(access.files, names.checked(path)))
    done = sum(
        FileChanges(core).delete(access, path, recursive=options.recursive)
        for path in dict.fromkeys(options.paths)
    )
    return _done(options, done)


def _move(core: Core, options: Namespace) -> int:
    from ..file_changes import FileChanges
    from ..folders.records import Permission

    moves = options.action == "mv"
    needed = Permission.READ_WRITE_DELETE if moves else Permission.READ_ONLY
    source = _access(core, options.folder, needed)
    target = _access(core, options.to or options.folder, Permission.READ_WRITE)
    changed = FileChanges(core)
    act = changed.move if moves else changed.copy
    return _done(
        options, act(source, options.path, target, options.target, overwrite=options.force)
    )


def _done(options: Namespace, done: int) -> int:
    if options.json:
        json_document({"done": done})
    elif done != 1:
        line(f"{done} files and folders")
    return Exit.DONE
