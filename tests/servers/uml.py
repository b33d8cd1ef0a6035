"""User-Mode Linux: a Linux kernel of its own as an ordinary process, for faults that this machine's
kernel cannot have (power loss by device mapper, XFS quotas, NFS, netem).

The guest's root is this machine's tree (hostfs), so it runs our own virtual environment and leaves
its results in ordinary files. It sees this machine's files as root: a guest program writes only to
the folder that it was given and to file systems that it mounted itself.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .child import Child

MODULES = Path("/usr/lib/uml/modules")
"""Where Debian's package user-mode-linux has its modules, one folder a kernel version."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UmlError(RuntimeError):
    """The guest did not boot, or did not end by itself in time."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a guest program ended: its exit status, its output, and the guest kernel's messages."""

    status: int
    output: str
    console: str


def missing() -> str | None:
    """Say what keeps User-Mode Linux from running here, or None."""
    if os.geteuid() != 0:
        return "User-Mode Linux tests need root"
    for program, package in (("linux.uml", "user-mode-linux"), ("modprobe", "kmod")):
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is missing: apt-get install {package}"
    if kernel_modules() is None:
        return f"no kernel modules in {MODULES}: apt-get install user-mode-linux"
    return None


def kernel_modules() -> Path | None:
    """The folder of the guest kernel's modules, whose name is the kernel's version."""
    folders = sorted(MODULES.iterdir()) if MODULES.is_dir() else []
    return folders[-1] if folders else None


def run(
    command: Sequence[str],
    *,
    disks: Sequence[Path] = (),
    modules: Sequence[str] = (),
    memory: str = "1G",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float = 300,
) -> Finished:
    """Boot a guest, run `command` in it as root, switch it off, and tell how that ended.

    Args:
        disks: image files that the guest sees as /dev/ubda, /dev/ubdb, …
        modules: kernel modules to load first (`dm-flakey`, `nfsd`).
        memory: the guest's memory, such as `512M`.
        environment: added to a minimal environment.
        directory: the command's working directory, by default the one of the caller.
        timeout: seconds until the guest is killed.

    Raises:
        UmlError: it did not come up, or did not end within `timeout`.
    """
    if reason := missing():
        raise UmlError(reason)
    with tempfile.TemporaryDirectory(prefix="uml-") as name:
        work = Path(name)
        init = _write_init(work, command, modules, environment or {}, directory or Path.cwd())
        kernel = shutil.which("linux.uml", path=_PATH) or "linux.uml"
        arguments = [
            kernel, f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/",
            "rw", f"init={init}", f"uml_dir={work}", "umid=guest", "con=null", "con0=null,fd:2",
            *(f"ubd{number}={disk}" for number, disk in enumerate(disks)),
        ]  # fmt: skip
        with (work / "console").open("wb") as console:
            process = Child(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=console,
                start_new_session=True,
            )
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise UmlError(f"the guest ran for {timeout} s\n{_told(work)}") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        status = work / "status"
        if not status.exists() or not status.read_text().strip():
            raise UmlError(f"the guest did not run its command to the end\n{_told(work)}")
        return Finished(int(status.read_text()), _read(work / "output"), _read(work / "console"))


def _write_init(
    work: Path,
    command: Sequence[str],
    modules: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
) -> Path:
    version = kernel_modules()
    assert version is not None
    # modprobe wants its modules below lib/modules/VERSION; the package has them elsewhere.
    (work / "lib/modules").mkdir(parents=True)
    (work / "lib/modules" / version.name).symlink_to(version)
    variables = {
        "PATH": _PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        # No udev in the guest: dmsetup makes its own nodes and waits for nobody.
        "DM_DISABLE_UDEV": "1",
        **environment,
    }
    lines = [
        "#!/bin/sh",
        *(f"export {key}={shlex.quote(value)}" for key, value in variables.items()),
        "mount -t proc proc /proc",
        "mount -t sysfs sysfs /sys",
        "mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev",
        "mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm",
        "for folder in /run /mnt; do mount -t tmpfs tmpfs $folder; done",
        "ip link set lo up",
        *(f"modprobe -d {shlex.quote(str(work))} {shlex.quote(name)}" for name in modules),
        f"cd {shlex.quote(str(directory))}",
        f"{shlex.join(command)} >{work}/output 2>&1 </dev/null",
        f"echo $? >{work}/status",
        "sync",
        "echo o >/proc/sysrq-trigger",
        "sleep 60",  # the kernel ends before that
    ]
    init = work / "init.sh"
    init.write_text("\n".join(lines) + "\n")
    init.chmod(0o755)
    return init


def _read(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _told(work: Path) -> str:
    return f"{_read(work / 'output')[-4000:]}\n{_read(work / 'console')[-2000:]}"
