"""`backupgw backup list` and `status`."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import CommandError, Exit
from backupgw.runtime.commands.store.output import (
    cell,
    error_text,
    json_document,
    json_line,
    line,
    size_text,
    table,
)
from backupgw.runtime.restic import StopSignal

from .backups import Backup, find
from .report import Reporter, Result, exit_status
from .site import Site, target
from .state import Record, metrics_text


def list_backups(arguments: Namespace, site: Site, reporter: Reporter, stop: StopSignal) -> int:
    """Show the backups that providers hold; one that cannot be asked is told, never left out."""
    found: list[Backup] = []
    results: list[Result] = []
    for name in site.targets_of(arguments.provider):
        try:
            with target(site, name) as at:
                host = None if arguments.all_hosts else site.host
                found += find(site, at, stop=stop, set_name=arguments.set, host=host)
            results.append("done")
        except (BackendError, CommandError) as error:
            why = error_text(error).removeprefix(f"{name}: ")
            reporter.warn(f"{name}: cannot be listed: {why}")
            if arguments.json:
                json_line({"event": "failed", "provider": name, "error": error_text(error)})
            results.append("failed")
    found.sort(key=lambda backup: backup.time)
    if arguments.json:
        for backup in found:
            json_line(_record(backup))
    elif found:
        rows: list[tuple[str, ...]] = [("ID", "TIME", "SET", "PROVIDER", "KIND", "SIZE", "HOST")]
        rows += [_row(backup) for backup in found]
        table(rows, right=(5,))
    elif set(results) == {"done"}:
        line("no backups")
    return exit_status(results)


def _record(backup: Backup) -> dict[str, object]:
    return {
        "event": "backup",
        "id": backup.id,
        "time": backup.time.isoformat(),
        "set": backup.set,
        "provider": backup.provider,
        "kind": backup.kind,
        "bytes": backup.size,
        "host": backup.host,
    }


def _row(backup: Backup) -> tuple[str, ...]:
    return (
        backup.id,
        backup.time.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        cell(backup.set) or "-",
        backup.provider,
        backup.kind,
        "-" if backup.size is None else size_text(backup.size),
        cell(backup.host),
    )


def status(arguments: Namespace, site: Site) -> int:
    """Show what is known of the last runs. Exit status 1 where the last one of any is not whole."""
    known = site.status.read()
    records = [
        (name, provider, record, state_of(site, name, record))
        for name, provider, record in known.all()
        if arguments.set is None or arguments.set == name
    ]
    if arguments.prometheus:
        line(metrics_text(known).removesuffix("\n"))
    elif arguments.json:
        json_document([_status_record(*each) for each in records])
    elif not records:
        line("nothing was backed up yet")
    else:
        rows = [("SET", "PROVIDER", "STATE", "LAST RUN", "LAST WHOLE", "FILES", "SIZE", "NEW")]
        rows += [
            (
                name, provider, state, _time(record.ended), _time(record.success),
                str(record.files), size_text(record.bytes), size_text(record.added),
            )
            for name, provider, record, state in records
        ]  # fmt: skip
        table(rows, right=(5, 6, 7))
        for name, provider, record, _ in records:
            for text in filter(None, (record.error, record.verify_error)):
                line(f"{name} at {provider}: {text}")
    well = all(state in ("done", "running") for *_, state in records)
    return Exit.DONE if well else Exit.FAILED


def state_of(site: Site, name: str, record: Record) -> str:
    """Return how a set's last run at a provider went: one that was killed could not say so."""
    if record.began > record.ended:
        return "running" if site.status.is_running(name) is not None else "interrupted"
    if record.verify_error:
        return "damaged"
    return record.result or "never"


def _status_record(name: str, provider: str, record: Record, state: str) -> dict[str, object]:
    from dataclasses import asdict

    return {"set": name, "provider": provider, "state": state, **asdict(record)}


def _time(seconds: float) -> str:
    if not seconds:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
