"""`backupgw backup create`: sets of the settings, or paths of the command line, to providers."""

from __future__ import annotations

import os
from argparse import Namespace

from backupgw.runtime.command import CommandError, UsageError
from backupgw.runtime.commands.store.output import error_text
from backupgw.runtime.restic import StopSignal

from .creating import Run
from .keys import FOLDER
from .prune_command import prune_set
from .report import Outcome, Reporter, exit_status
from .settings import NAME, SetSettings
from .site import Site


def create(arguments: Namespace, site: Site, reporter: Reporter, stop: StopSignal) -> int:
    """Back up, prune where that is wanted, and return the exit status."""
    sets = _sets(arguments, site)
    outcomes: list[Outcome] = []
    results = []
    for name, wanted in sets.items():
        targets = site.targets_of(arguments.provider, wanted)
        try:
            done = Run(site, name, wanted, targets, reporter, stop).run()
        except UsageError:
            raise
        except CommandError as error:
            # One set that cannot be backed up is no reason to leave out the next.
            reporter.warn(f"{name}: {error_text(error)}")
            reporter.record("failed", {"set": name, "error": error_text(error)})
            results.append("failed")
            continue
        finally:
            _tell_of_keys(site, reporter)
        outcomes += done
        if arguments.prune:
            whole = [each.provider for each in done if each.result in ("done", "partly")]
            results += prune_set(site, name, wanted, whole, reporter, stop)
    results += [outcome.result for outcome in outcomes]
    return exit_status(results)  # type: ignore[arg-type]


def _sets(arguments: Namespace, site: Site) -> dict[str, SetSettings]:
    if arguments.include:
        if len(arguments.set) > 1:
            raise UsageError("-i names files of one set: give one --set, as its name")
        name = arguments.set[0] if arguments.set else "files"
        if not NAME.match(name):
            raise UsageError(f"{name!r}: a set's name has lower-case letters, digits, - and _")
        return {name: _of_the_command_line(arguments)}
    if arguments.exclude or arguments.format or arguments.compression or arguments.no_encrypt:
        raise UsageError(
            "--exclude, --format, --compression and --no-encrypt go with -i; a set has its own in "
            "[backup.sets.NAME]"
        )
    if arguments.set:
        return {name: site.set(name) for name in arguments.set}
    if not site.backup.sets:
        raise UsageError(
            "there is nothing to back up: give paths by -i, or write a [backup.sets.NAME] in "
            f"{site.settings.config or 'the settings file (`backupgw config init` makes one)'}"
        )
    return dict(site.backup.sets)


def _of_the_command_line(arguments: Namespace) -> SetSettings:
    from pydantic import ValidationError

    try:
        return SetSettings.model_validate(
            {
                "paths": [os.path.abspath(path) for path in arguments.include],
                "exclude": arguments.exclude,
                "format": arguments.format or "restic",
                "compression": arguments.compression or "auto",
                "encrypt": not arguments.no_encrypt,
                "one_file_system": arguments.one_file_system,
            }
        )
    except ValidationError as error:
        text = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(text) from None


def _tell_of_keys(site: Site, reporter: Reporter) -> None:
    if not site.keys.made:
        return
    site.keys.made.clear()
    reporter.record("keys-made", {"folder": str(site.folder / FOLDER)})
    reporter.warn(
        f"the keys of your backups were made, in {site.folder / FOLDER}. Without them nobody can "
        "open the backups, you included. Keep a copy away from this machine, on paper or in a "
        "password manager: `backupgw backup keys show` prints it"
    )
