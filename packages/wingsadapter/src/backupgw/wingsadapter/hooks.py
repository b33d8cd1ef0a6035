"""Commands before and after a backup: to let a game save its world, say. No shell is involved.

A command does not inherit our environment, but for what a program needs to run, and is told what it
is about by variables. Its output goes to the log.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence

from backupgw.runtime.events.commands import INHERITED
from backupgw.runtime.restic.child import run_child

from .adapter import AdapterError, BackupRequest, Control, Stopped
from .settings import HookSettings

log = logging.getLogger(__name__)

GRACE = 5.0


class Hooks:
    """The commands of the settings."""

    def __init__(self, hooks: Sequence[HookSettings], environ: Mapping[str, str]) -> None:
        self._hooks = hooks
        self._inherited = {
            name: value
            for name, value in environ.items()
            if name in INHERITED or name.startswith("LC_")
        }

    def before(self, request: BackupRequest, adapter: str, control: Control) -> None:
        """Run those before a backup.

        Raises:
            AdapterError: one that is required failed.
            Stopped: it was stopped.
        """
        for hook in self._of("before", request):
            why = self._run(hook, self._variables(request, adapter), control)
            if why is not None and hook.required:
                raise AdapterError(f"the command before the backup: {why}")

    def after(
        self, request: BackupRequest, adapter: str, control: Control, *, successful: bool
    ) -> None:
        """Run those after a backup, however it ended; their failure is none of the backup's."""
        for hook in self._of("after", request):
            variables = self._variables(request, adapter)
            variables["BACKUPGW_SUCCESSFUL"] = "true" if successful else "false"
            self._run(hook, variables, control)

    def _of(self, when: str, request: BackupRequest) -> list[HookSettings]:
        return [
            hook
            for hook in self._hooks
            if hook.when == when and (not hook.servers or request.server in hook.servers)
        ]

    def _variables(self, request: BackupRequest, adapter: str) -> dict[str, str]:
        return {
            **self._inherited,
            "BACKUPGW_SERVER": request.server,
            "BACKUPGW_BACKUP": request.backup,
            "BACKUPGW_ADAPTER": adapter,
            "BACKUPGW_ROOT": request.root,
        }

    def _run(
        self, hook: HookSettings, variables: Mapping[str, str], control: Control
    ) -> str | None:
        """Run a command; return why it failed."""
        program = shutil.which(hook.command[0], path=self._inherited.get("PATH", os.defpath))
        if program is None:
            why = f"there is no program {hook.command[0]}"
            log.warning("hook %s: %s", hook.command[0], why)
            return why
        last: list[str] = []

        def note(line: bytes) -> None:
            text = line.decode(errors="replace")[:500]
            last[:] = [text]
            log.info("hook %s: %s", hook.command[0], text)

        try:
            ended = run_child(
                [os.path.abspath(program), *hook.command[1:]],
                environment=variables,
                on_output=note,
                on_error=note,
                stop=control.stop,
                grace=GRACE,
                time_limit=hook.time_limit,
            )
        except OSError as error:
            return f"{hook.command[0]} cannot be run: {error.strerror}"
        if ended.timed_out:
            return f"{hook.command[0]} took longer than {hook.time_limit:g} s"
        if ended.stopped and hook.when == "before":
            raise Stopped("it was stopped")
        if ended.status == 0:
            return None
        said = f": {last[0]}" if last else ""
        return f"{hook.command[0]} ended with status {ended.status}{said}"
