"""Borg 2 as a client: a home of its own, a repository, commands that must succeed."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from . import peers

ALIAS = '''
import importlib, importlib.abc, importlib.machinery, sys

class KernelAsBorgstore(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Whoever imports borgstore gets the kernel's module of the same name."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "borgstore":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return importlib.import_module("backupgw.kvstore" + spec.name.removeprefix("borgstore"))

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, KernelAsBorgstore())
'''


@functools.cache
def _installed_kernel() -> Path:
    """Install the kernel as a user would, for the Python that Borg brings; return the folder."""
    folder = Path(tempfile.mkdtemp(prefix="kernel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*pip, *options, str(peers.ROOT / "packages/kvstore")], check=True, timeout=200)
    return folder


class Borg2Failed(Exception):
    """A command of Borg's did not succeed; the message holds what it printed."""


class Borg2:
    """Runs Borg 2 on one repository.

    Args:
        folder: where its home is made.
        repository: as BORG_REPO has it.
        on_kernel: let it store by our kernel instead of borgstore.
    """

    def __init__(self, folder: Path, repository: str, *, on_kernel: bool = False) -> None:
        self.home = folder
        folder.mkdir(exist_ok=True)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "BORG_REPO": repository,
            "BORG_PASSPHRASE": "for tests",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "YES",
        }
        if on_kernel:
            alias = folder / "alias"
            alias.mkdir(exist_ok=True)
            (alias / "sitecustomize.py").write_text(ALIAS)
            self.environment["BORG2_PATH"] = f"{alias}:{_installed_kernel()}"

    def run(
        self, *arguments: str, directory: Path | None = None, more: Mapping[str, str] | None = None
    ) -> str:
        """Return what a command printed to standard output. Raises Borg2Failed."""
        done = subprocess.run(
            [peers.get(peers.BORG2).path, *arguments],
            env=self.environment | dict(more or {}),
            cwd=directory or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        if done.returncode:
            said = f"{done.stdout}{done.stderr}"
            raise Borg2Failed(f"borg2 {' '.join(arguments)}: {done.returncode}\n{said}")
        return done.stdout
