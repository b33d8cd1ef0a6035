"""A user's systemd, in namespaces of its own: it starts timers as on a machine that it runs.

It sees no other unit but its own and the user's, a /run of its own, and one control group below
that of the tests. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from .child import Child

PROGRAM = "/lib/systemd/systemd"
PATIENCE = 30.0
_TARGETS = ("default", "basic", "sysinit", "timers", "shutdown", "exit", "sockets", "paths")
_SETUP = """
echo $$ > "$GROUP/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --cgroup sh -c '
    mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run || exit
    mount --bind "$RUNTIME" "$RUNTIME"
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit
    mkdir -p /run/systemd/system
    "$SYSTEMD" --user
    exit'
"""
"""systemd is not the first process there: as that it would be the machine's."""


class UserSystemd:
    """A running systemd of a user.

    Args:
        folder: an empty one.

    Attributes:
        environment: what a command needs to reach it.
    """

    def __init__(self, folder: Path) -> None:
        self._units = folder / "targets"
        self._units.mkdir(parents=True)
        for name in _TARGETS:
            (self._units / f"{name}.target").write_text(
                f"[Unit]\nDescription={name}\nDefaultDependencies=no\n"
                + ("Wants=timers.target\n" if name == "default" else "")
            )
        self._runtime = folder / "run"
        self._runtime.mkdir(mode=0o700)
        self._log = folder / "systemd.log"
        top = Path("/sys/fs/cgroup")
        unified = top / "unified"
        self._group = (unified if unified.is_dir() else top) / f"backupgw-test-{os.getpid()}"
        home = folder / "home"
        home.mkdir()
        self.environment = {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_RUNTIME_DIR": str(self._runtime),
        }
        self._process: Child[bytes] | None = None
        self._inside = ""

    def __enter__(self) -> Self:
        self._group.mkdir()
        path = f"{self.environment['XDG_CONFIG_HOME']}/systemd/user:{self._units}"
        with open(self._log, "wb") as log:
            self._process = Child(
                ["sh", "-c", _SETUP],
                env={
                    "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
                    "GROUP": str(self._group),
                    "RUNTIME": str(self._runtime),
                    "SYSTEMD": PROGRAM,
                    "SYSTEMD_UNIT_PATH": path,
                    "SYSTEMD_LOG_TARGET": "console",
                    "container": "test",
                    **self.environment,
                },
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            self._await((self._runtime / "systemd" / "private").exists, "systemd did not start")
        except BaseException:
            self._process.end()
            raise
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._inside = children.read_text().split()[0]
        return self

    def _await(self, ready: object, why: str) -> None:
        assert callable(ready)
        ends = time.monotonic() + PATIENCE
        while not ready():
            assert self._process is not None
            ended = self._process.poll()
            assert ended is None, f"{why}: {ended}: {self._log.read_text()[-2000:]}"
            assert time.monotonic() < ends, why
            time.sleep(0.05)

    def words(self, *command: str) -> list[str]:
        """Return the command line that runs a command where this systemd runs the machine."""
        return ["nsenter", "--target", self._inside, "--mount", "--pid", "--", *command]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.end()
        ends = time.monotonic() + PATIENCE
        while self._group.exists():
            try:
                for folder, _, _ in os.walk(self._group, topdown=False):
                    os.rmdir(folder)
            except OSError:  # its processes are about to end
                assert time.monotonic() < ends
                time.sleep(0.05)
        shutil.rmtree(self._runtime, ignore_errors=True)
