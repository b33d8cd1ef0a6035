"""A disk whose power can be cut, inside User-Mode Linux: dm-flakey's drop_writes.

While the power is on, the device mapper passes everything through. From the cut on, every write
and every flush is acknowledged and thrown away, as a machine that lost its power would have it:
what had reached the disk is there, what had not is gone. Mounted again, the file system replays
its journal.

The switch is one suspend (without syncing the file system, without flushing) and one resume with a
table that lies ready. It is done by ioctl rather than by dmsetup, because the start of another
process takes long enough for somebody else's sync to save what the test means to lose.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from pathlib import Path

# linux/dm-ioctl.h
_DM_DEV_SUSPEND = 0xC138FD06  # _IOWR(0xfd, 6, struct dm_ioctl), which has 312 bytes
_SUSPEND = 1 << 1
_SKIP_LOCKFS = 1 << 10
_NOFLUSH = 1 << 11
_HEADER = struct.Struct("=3I2IIiIIIQ128s129s7x")

NAME = "victim"
DEVICE = Path("/dev/mapper", NAME)


class Disk:
    """A fresh file system on a device mapper target over `device`, mounted at `folder`."""

    def __init__(self, device: Path, folder: Path, filesystem: str) -> None:
        self._device = device
        self._folder = folder
        self._filesystem = filesystem
        self._sectors = int(_run("blockdev", "--getsz", str(device)))
        self._control = os.open("/dev/mapper/control", os.O_RDWR)

    def format(self) -> None:
        """Make an empty file system and mount it."""
        self._map()
        quick = ["-F", "-q", "-E", "lazy_itable_init=1,nodiscard"]
        options = {"ext4": quick, "xfs": ["-f", "-q", "-K"]}[self._filesystem]
        _run(f"mkfs.{self._filesystem}", *options, str(DEVICE))
        self._mount()
        dropping = f"0 {self._sectors} flakey {self._device} 0 0 3600 1 drop_writes"
        _run("dmsetup", "load", NAME, "--table", dropping)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and nobody is told."""
        self._ioctl(_SUSPEND | _SKIP_LOCKFS | _NOFLUSH)
        self._ioctl(0)

    def power_up(self) -> None:
        """Forget all that was only in memory, and mount what the disk holds."""
        _run("umount", str(self._folder))
        _run("dmsetup", "remove", "--retry", NAME)
        Path("/proc/sys/vm/drop_caches").write_text("3")
        self._map()
        self._mount()

    def remove(self) -> None:
        """Unmount, and check the file system's own soundness.

        Raises:
            RuntimeError: the file system's checker found damage.
        """
        _run("umount", str(self._folder))
        checker = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}[self._filesystem]
        _run(*checker, str(DEVICE))
        _run("dmsetup", "remove", "--retry", NAME)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._control)

    def _map(self) -> None:
        table = f"0 {self._sectors} linear {self._device} 0"
        _run("dmsetup", "create", NAME, "--noudevrules", "--noudevsync", "--table", table)

    def _mount(self) -> None:
        _run("mount", "-t", self._filesystem, str(DEVICE), str(self._folder))

    def _ioctl(self, flags: int) -> None:
        header = bytearray(
            _HEADER.pack(4, 0, 0, _HEADER.size, 0, 0, 0, flags, 0, 0, 0, NAME.encode(), b"")
        )
        fcntl.ioctl(self._control, _DM_DEV_SUSPEND, header)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout
