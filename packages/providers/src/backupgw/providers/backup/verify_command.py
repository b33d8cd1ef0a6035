"""`backupgw backup verify`: whether what is stored can still be read, a sample of it or all."""

from __future__ import annotations

import random
import time
from argparse import Namespace
from contextlib import closing

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.layers.encrypt_age import Undecryptable
from backupgw.runtime.command import CommandError
from backupgw.runtime.commands.store.output import error_text
from backupgw.runtime.commands.store.progress import State
from backupgw.runtime.restic import RepositoryDamaged, ResticStopped, StopSignal

from . import archives
from .archives import Archive, ArchiveReader, Damaged
from .report import Amounts, Reporter, Result, exit_status
from .restic_target import has_repository, restic_at
from .site import Site, Target, target

SAMPLE = "5%"


def verify(arguments: Namespace, site: Site, reporter: Reporter, stop: StopSignal) -> int:
    """Verify at each provider; exit status 1 where all of them, 3 where some are damaged."""
    results: list[Result] = []
    for name in site.targets_of(arguments.provider):
        began = time.monotonic()
        error = ""
        checked: list[str] = []
        try:
            with target(site, name) as at:
                if has_repository(at):
                    _restic(site, at, full=arguments.full, sample=arguments.sample, stop=stop)
                    checked.append("the restic repository")
                found = archives.find(at.place, host=None if arguments.all_hosts else site.host)
                for archive in _sample(found, full=arguments.full):
                    _archive(site, at, archive, reporter)
                    checked.append(archive.item)
            if not checked:
                error = "there is no backup to verify"
        except ResticStopped:
            raise KeyboardInterrupt from None
        except (BackendError, CommandError) as failure:
            error = error_text(failure)
            _note(site, name, error, damaged=_is_damage(failure))
        else:
            _note(site, name, "", damaged=False)
        results.append("failed" if error else "done")
        reporter.record(
            "verified",
            {
                "provider": name, "ok": not error, "error": error, "checked": checked,
                "full": arguments.full, "seconds": time.monotonic() - began,
            },
        )  # fmt: skip
        if error:
            reporter.warn(f"{name}: {error}")
        else:
            how = "all of it" if arguments.full else "a sample"
            reporter.say(
                f"{name}: {len(checked)} verified ({how}), {time.monotonic() - began:.1f} s"
            )
    site.write_metrics()
    return exit_status(results)


def _is_damage(error: Exception) -> bool:
    return isinstance(error, RepositoryDamaged | Damaged | Undecryptable)


def _restic(site: Site, at: Target, *, full: bool, sample: str, stop: StopSignal) -> None:
    with restic_at(site, at, stop=stop) as restic:
        restic.check(read_data="all" if full else sample, stop=stop)


def _sample(found: list[Archive], *, full: bool) -> list[Archive]:
    """Return the last of each set, and one other."""
    if full:
        return found
    last = {(archive.host, archive.set): archive for archive in found}
    others = [archive for archive in found if archive not in last.values()]
    return [*last.values(), *random.sample(others, min(1, len(others)))]


def _archive(site: Site, at: Target, archive: Archive, reporter: Reporter) -> None:
    amounts = Amounts()
    key = site.keys.archive_key_or_none()
    with (
        reporter.progress(amounts.state),
        closing(ArchiveReader(at.place, archive, key)) as stream,
    ):
        for count, _ in enumerate(archives.members(archives.read_tar(stream), stream)):
            amounts.set("", State(stream.taken, count, archive.size))


def _note(site: Site, provider: str, error: str, *, damaged: bool) -> None:
    """Note it with each set that has backups there; a place that is away is no damage."""
    with site.status.changing() as status:
        for _, at, record in status.all():
            if at == provider:
                if not error:
                    record.verified, record.verify_error = time.time(), ""
                elif damaged:
                    record.verify_error = error
