"""What kind of file system a folder lies on."""

from __future__ import annotations

import ctypes

ON_DISK = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0xF2F52010,  # F2FS
    }
)
"""`f_type` of file systems that wait for nothing but this machine's disks (statfs(2)). All of them
have RWF_NOWAIT."""

IN_MEMORY = frozenset({0x01021994})
"""`f_type` of tmpfs, which waits for nothing and refuses RWF_NOWAIT."""

_libc = ctypes.CDLL(None, use_errno=True)
_fstatfs = getattr(_libc, "fstatfs64", None) or _libc.fstatfs


def kind(fd: int) -> int:
    """Return the `f_type` of the file system that an open file lies on, 0 where nobody can tell."""
    found = (ctypes.c_long * 64)()  # struct statfs, which begins with f_type, has 120 bytes
    return found[0] & 0xFFFFFFFF if _fstatfs(fd, found) == 0 else 0


def is_local(fd: int) -> bool:
    """Whether an open file lies on this machine: on a disk or in memory."""
    return kind(fd) in ON_DISK | IN_MEMORY
