"""ssh and rclone for a confined restic: started beside it, and not by it.

A confined restic (`confinement.py`) may not read ssh's keys and rclone's configuration, nor may
what it starts. So where its address needs one of the two, we start that program as restic would,
outside, and what restic starts in its place only passes bytes on between restic and two pipes.

Which commands restic runs for which address: its sources, internal/backend/sftp and
internal/backend/rclone; the options that replace them: its manual, "Preparing a new repository".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from .child import tethered
from .errors import ResticUnusable
from .repository import Repository

_PATIENCE = 10.0
"""Seconds that the program has to end once restic is gone."""
_MOST_SAID = 64 << 10


@dataclass
class Bridge:
    """The way to a program that runs beside restic.

    Attributes:
        options: that restic gets.
        descriptors: that it inherits.
        moved: what numbers these are to get there.
        programs: that it must be able to run.
        said: what the program had to say of its own, once it has ended.
    """

    options: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    moved: list[tuple[int, int]] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    said: str = ""


@contextlib.contextmanager
def bridge(
    repository: Repository, environment: Mapping[str, str], taken: Sequence[int]
) -> Iterator[Bridge]:
    """Run the program that a repository is reached by while the block lasts; none: an empty one.

    Args:
        environment: that restic gets.
        taken: descriptors that it inherits already.

    Raises:
        ResticUnusable: a program is missing.
    """
    command = command_for(repository.url)
    found = Bridge()
    if not command:
        yield found
        return
    path = environment.get("PATH", os.defpath)
    program, shell, cat = (_which(name, path) for name in (command[0], "sh", "cat"))
    with contextlib.ExitStack() as stack:
        said = os.memfd_create("said", os.MFD_CLOEXEC)
        stack.callback(os.close, said)
        theirs_in, to_program = os.pipe2(os.O_CLOEXEC)
        from_program, theirs_out = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                tethered([program, *command[1:]], signal.SIGTERM),
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=said,
                env=dict(environment),
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            os.close(to_program)
            os.close(from_program)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        # Shells know descriptors of one digit. Each process keeps only its own end of each pipe, so
        # that whoever ends is noticed by the other.
        reads, writes = [each for each in range(9, 2, -1) if each not in taken][:2]
        passing = f"{cat} <&{reads} {writes}>&- & exec {cat} >&{writes} {reads}<&-"
        instead = f"{shell} -c '{passing}'"
        kind = "sftp.command" if repository.url.startswith("sftp:") else "rclone.program"
        found.options = [f"--option={kind}={instead}"]
        found.descriptors = [from_program, to_program]
        found.moved = [(from_program, reads), (to_program, writes)]
        found.programs = [os.path.realpath(each) for each in (shell, cat)]
        try:
            yield found
        finally:
            for each in found.descriptors:
                os.close(each)
            _end(process)
            found.said = os.pread(said, _MOST_SAID, 0).decode(errors="replace")


def command_for(address: str) -> list[str]:
    """Return what restic runs to reach a repository; nothing: it reaches it by itself."""
    scheme, _, rest = address.partition(":")
    if scheme == "rclone":
        return ["rclone", "serve", "restic", "--stdio", "--b2-hard-delete", rest]
    if scheme != "sftp":
        return []
    if rest.startswith("//"):
        parts = urlsplit(address)
        user, host, port = unquote(parts.username or ""), parts.hostname or "", parts.port
    else:
        login = rest.partition(":")[0]
        user, _, host = login.rpartition("@")
        port = None
    if not host or host.startswith("-") or user.startswith("-"):
        raise ResticUnusable("the repository's address names no host")
    return [
        *("ssh", host),
        *(("-p", str(port)) if port else ()),
        *(("-l", user) if user else ()),
        *("-s", "sftp"),
    ]


def _which(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise ResticUnusable(f"there is no {name} in PATH; the repository is reached by it")
    return os.path.abspath(found)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a program whose input has ended."""
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
