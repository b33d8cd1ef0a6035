"""Debian packages: taken apart below a folder of ours, or installed where we are root.

`Archive` keeps apt's lists and downloads in a folder of its own, so nothing of the system changes
and root is not needed. The archive's address is the one that this machine uses already, and apt
checks every signature against Debian's own keys.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LISTS_LOCK = Path("/var/lib/apt/lists/lock")
LOCK_TIMEOUT = 400
"""Seconds to wait while another apt runs."""
DOWNLOAD_TIMEOUT = 600
"""Seconds for one apt command that talks to the archive."""


class AptError(Exception):
    """A package could not be had; the message is one line that says why."""


def archive_address() -> str:
    """Return the address of the Debian archive that this machine takes its packages from.

    Raises:
        AptError: not Debian, no apt, or no such address.
    """
    release = dict(
        line.split("=", 1) for line in _text(Path("/etc/os-release")).splitlines() if "=" in line
    )
    system = release.get("ID", "unknown").strip('"')
    if system != "debian":
        raise AptError(f"this is {system}, not Debian")
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise AptError("apt-get or dpkg is missing")
    if not KEYRING.exists():
        raise AptError("the package debian-archive-keyring is missing")
    codename = release.get("VERSION_CODENAME", "sid").strip('"')
    wanted = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    targets = _run(
        ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"], timeout=60
    )
    rows = [line.split(maxsplit=2) for line in targets.splitlines()]
    main = [row for row in rows if len(row) == 3 and row[1] == "main"]
    for suite in (codename, "stable", "testing", "unstable", "sid"):
        for release_name, _, address in main:
            if release_name == suite:
                return address
    raise AptError("apt knows no source for Debian's main component")


class Archive:
    """Packages of several Debian suites, downloaded into a folder and unpacked there."""

    def __init__(self, folder: Path, suites: Sequence[str]) -> None:
        self._folder = folder
        self._suites = suites
        self._options: list[str] = []

    def update(self) -> None:
        """Fetch the lists of the suites. Raises AptError."""
        address = archive_address()
        state = self._folder / "state"
        cache = self._folder / "cache"
        for folder in (state / "lists/partial", cache / "archives/partial"):
            folder.mkdir(parents=True, exist_ok=True)
        sources = self._folder / "sources.list"
        sources.write_text(
            "".join(f"deb [signed-by={KEYRING}] {address} {suite} main\n" for suite in self._suites)
        )
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "-",
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": cache,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            # As root apt would fetch as user _apt, who may not enter our folder.
            "APT::Sandbox::User": "root",
            # Hooks of the machine are for its own lists.
            "APT::Update::Post-Invoke-Success::": "",
        }
        self._options = [
            part for key, value in settings.items() for part in ("-o", f"{key}={value}")
        ]
        _run(["apt-get", "-q", *self._options, "update"], timeout=DOWNLOAD_TIMEOUT)

    def unpack(self, package: str, suite: str, target: Path) -> None:
        """Download a package and unpack it below `target`, which is replaced. Raises AptError."""
        debs = self._folder / "debs" / suite
        debs.mkdir(parents=True, exist_ok=True)
        _run(
            ["apt-get", "-q", *self._options, "download", f"{package}/{suite}"],
            timeout=DOWNLOAD_TIMEOUT,
            cwd=debs,
        )
        found = sorted(debs.glob(f"{package}_*.deb"))
        if not found:
            raise AptError(f"apt-get downloaded no {package} from {suite}")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        _run(["dpkg", "-x", str(found[-1]), str(target)], timeout=120)

    def unpack_whole(self, packages: Sequence[str], target: Path) -> None:
        """Download packages with all that they depend on, down to the C library, and unpack them
        together below `target`, which is replaced. None of their scripts is run. Raises AptError.
        """
        fetch = ["--no-install-recommends", "--download-only", "-y", "install", *packages]
        _run(["apt-get", "-q", *self._options, *fetch], timeout=DOWNLOAD_TIMEOUT)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for deb in sorted((self._folder / "cache/archives").glob("*.deb")):
            _run(["dpkg", "-x", str(deb), str(target)], timeout=120)


def install(packages: Sequence[str]) -> None:
    """Install Debian packages into this machine, with fresh lists where that helps.

    Raises:
        AptError: not root, not Debian, or apt-get failed.
    """
    if os.geteuid() != 0:
        raise AptError("installing Debian packages needs root")
    archive_address()
    command = ["apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT}"]
    request = [*command, "install", "--no-install-recommends", *packages]
    try:
        _run(request, timeout=LOCK_TIMEOUT + DOWNLOAD_TIMEOUT)
    except AptError:
        # A fresh image has no lists, and old lists name packages that are gone.
        _wait_for_lists_lock()
        _run([*command, "update"], timeout=DOWNLOAD_TIMEOUT)
        _run(request, timeout=LOCK_TIMEOUT + DOWNLOAD_TIMEOUT)


def _wait_for_lists_lock() -> None:
    """Wait until no other apt updates the lists: apt's own time-out is for dpkg's lock alone."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AptError(f"another apt held its lists for {LOCK_TIMEOUT} s")

    if not LISTS_LOCK.exists():
        return
    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LOCK_TIMEOUT)
    try:
        with LISTS_LOCK.open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _run(command: Sequence[str], *, timeout: float, cwd: Path | None = None) -> str:
    """Run a command and return its output; AptError carries the line that says why it failed."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    what = f"{command[0]} {command[-1]}" if command[0] != "dpkg" else "dpkg -x"
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise AptError(f"{command[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise AptError(f"{what} took longer than {timeout:.0f} s") from None
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
    if done.returncode:
        last = (complaints or done.stderr.splitlines() or [f"exit status {done.returncode}"])[0]
        # A mirror's address may carry a password.
        raise AptError(f"{what} failed: " + re.sub(r"//[^/@\s]*@", "//", last))
    return done.stdout


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
