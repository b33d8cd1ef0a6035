"""`backupgw provider` clean and connect."""

from __future__ import annotations

import sys

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.backends.grants import begin
from backupgw.kvstore.layers.options import OptionInvalid, duration
from backupgw.runtime.command import CommandError, Exit, UsageError
from backupgw.runtime.commands.store.output import error_text, json_document, line, remark

from ..place_provider import PlaceProvider
from ..registry import PROVIDERS
from .session import Session, clean

LONGEST_CODE = 4096


def run(session: Session) -> int:
    """Do what the verb says."""
    return _clean(session) if session.arguments.verb == "clean" else _connect(session)


def _clean(session: Session) -> int:
    try:
        older_than = duration("--older-than", session.arguments.older_than)
    except OptionInvalid as error:
        raise UsageError(str(error)) from error
    records, failed = [], 0
    for configured in session.chosen(session.arguments.providers):
        try:
            removed = clean(session.place_provider(configured.name), older_than)
        except (BackendError, CommandError) as error:
            failed += 1
            remark(error_text(error))
            continue
        records.append({"provider": configured.name, "removed": removed})
        if not session.json:
            line(f"{configured.name}: cleared away {removed} unfinished uploads")
    if session.json:
        json_document(records)
    return Exit.DONE if not failed else Exit.PARTLY if records else Exit.FAILED


def _connect(session: Session) -> int:
    name = session.arguments.provider
    configured = session.providers.get(name)
    kind = PROVIDERS[configured.kind]
    if not issubclass(kind, PlaceProvider):
        raise CommandError(f"{name}: needs no grant")
    secrets = {key: each.reveal() for key, each in session.providers.secrets_of(name).items()}
    try:
        url, options = kind.grant({**configured.config, **secrets})
        grant = begin(url, options)
    except BackendError as error:
        raise CommandError(f"{name}: {error_text(error)}") from error
    remark(f"visit this page, on any machine, and agree:\n\n    {grant.visit}\n")
    if sys.stdin.isatty():
        sys.stderr.write("The code that it shows: ")
        sys.stderr.flush()
    code = sys.stdin.readline(LONGEST_CODE).strip()
    if not code:
        raise CommandError("no code came; nothing was changed")
    try:
        session.providers.set(name, {grant.option: grant.finish(code)})
    except BackendError as error:
        raise CommandError(f"{name}: {error_text(error)}") from error
    if session.json:
        json_document({"name": name, "connected": True})
    else:
        line(f"{name} is connected; `backupgw provider test {name}` tries it")
    return Exit.DONE
