"""`backupgw backup prune`: removes the backups that no rule keeps any more."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime

from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.runtime.command import CommandError, UsageError
from backupgw.runtime.commands.store.output import error_text, line, table
from backupgw.runtime.restic import ResticStopped, StopSignal

from .archives import Archive
from .backups import Backup, find
from .report import Reporter, Result, exit_status
from .restic_target import restic_at
from .retention import Decision, Keep, decide
from .settings import SetSettings
from .site import Site, Target, target


def prune(arguments: Namespace, site: Site, reporter: Reporter, stop: StopSignal) -> int:
    """Prune sets at their providers, and return the exit status."""
    names = [arguments.set] if arguments.set else sorted(site.backup.sets)
    given = _keep_of_flags(arguments)
    if not names:
        raise UsageError("say which set: --set NAME (there is none in the settings)")
    results: list[Result] = []
    for name in names:
        wanted = site.backup.sets.get(name)
        keep = given or _keep_of(site, wanted)
        if keep is None:
            if arguments.set:
                raise UsageError(
                    f"{name}: nothing says what to keep; write keep = {{ daily = 7 }} in "
                    f"[backup.sets.{name}], or give --keep-daily 7 and the like"
                )
            continue
        targets = site.targets_of(arguments.provider, wanted)
        results += _prune(site, name, keep, targets, reporter, stop, dry=arguments.dry_run)
    if not results:
        raise UsageError("no set says what to keep; write keep = { daily = 7 } in [backup]")
    return exit_status(results)


def prune_set(
    site: Site,
    name: str,
    wanted: SetSettings,
    targets: Sequence[str],
    reporter: Reporter,
    stop: StopSignal,
) -> list[Result]:
    """Prune a set as its settings say; nothing where they say nothing."""
    keep = _keep_of(site, wanted)
    return [] if keep is None else _prune(site, name, keep, targets, reporter, stop, dry=False)


def _keep_of(site: Site, wanted: SetSettings | None) -> Keep | None:
    keep = (wanted.keep if wanted else None) or site.backup.keep
    return None if keep is None else keep.keep()


def _keep_of_flags(arguments: Namespace) -> Keep | None:
    counts = {name: getattr(arguments, f"keep_{name}") for name, _ in Keep().rules()}
    given = {name: count for name, count in counts.items() if count is not None}
    if not given:
        return None
    keep = Keep(**given)
    if not keep:
        raise UsageError("that would keep no backup at all")
    return keep


def _prune(
    site: Site,
    name: str,
    keep: Keep,
    targets: Sequence[str],
    reporter: Reporter,
    stop: StopSignal,
    *,
    dry: bool,
) -> list[Result]:
    results: list[Result] = []
    for provider in targets:
        try:
            with target(site, provider) as at:
                found = find(site, at, stop=stop, set_name=name, host=site.host)
                gone = 0
                # Each kind by itself: a set that became restic's keeps its last archives.
                for kind in ("restic", "archive"):
                    some = [backup for backup in found if backup.kind == kind]
                    if not some:
                        continue
                    decisions = decide([_local(backup) for backup in some], keep)
                    _show(some, decisions, reporter, dry=dry)
                    going = [some[each.index] for each in decisions if not each.kept]
                    gone += len(going)
                    if going and not dry:
                        _remove(site, at, going, stop)
                if not dry:
                    with site.status.changing() as status:
                        status.of(name, provider).pruned = time.time()
        except ResticStopped:
            raise KeyboardInterrupt from None
        except (BackendError, CommandError) as error:
            text = error_text(error)
            reporter.warn(f"{name} at {provider}: {text}")
            reporter.record("pruned", {"set": name, "provider": provider, "error": text})
            results.append("failed")
            continue
        results.append("done")
        fields = {"set": name, "provider": provider, "removed": gone, "kept": len(found) - gone}
        reporter.record("pruned", {**fields, "dry_run": dry, "error": ""})
        what = "would be removed" if dry else "removed"
        reporter.say(f"{name} at {provider}: {gone} {what}, {len(found) - gone} kept")
    return results


def _local(backup: Backup) -> datetime:
    """Return the time whose days count: a snapshot's own, for an archive this machine's."""
    return backup.time.astimezone() if isinstance(backup.held, Archive) else backup.time


def _show(some: list[Backup], decisions: list[Decision], reporter: Reporter, *, dry: bool) -> None:
    for each in decisions:
        backup = some[each.index]
        reporter.record(
            "decision",
            {
                "provider": backup.provider, "set": backup.set, "id": backup.id,
                "time": backup.time.isoformat(), "kind": backup.kind, "keep": each.kept,
                "reasons": list(each.reasons),
            },
        )  # fmt: skip
    if dry and not reporter.json:
        table(
            [
                (
                    "keep" if each.kept else "remove",
                    some[each.index].id,
                    some[each.index].time.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
                    ", ".join(each.reasons),
                )
                for each in decisions
            ]
        )
        line("")


def _remove(site: Site, at: Target, going: list[Backup], stop: StopSignal) -> None:
    snapshots = [each.held.id for each in going if not isinstance(each.held, Archive)]
    for each in going:
        if isinstance(each.held, Archive):
            try:
                at.place.delete(each.held.item)
            except ObjectNotFound:
                continue  # somebody else was quicker
    if snapshots:
        with restic_at(site, at, stop=stop) as restic:
            restic.forget(snapshots, stop=stop)
            restic.prune(stop=stop)
