"""What a restic may touch of the disk while it reads folders that somebody else writes to.

restic opens by paths. Whoever owns the folder that it reads can put a link to another folder in the
place of one between the moment restic has listed it and the moment it opens what is in it, and
would find the host's files in the next restore. So restic is held by the kernel (landlock(7), by
`launcher.py`) to the folders that it is to read, and to what it needs for itself:

- read and run: itself, and the system's libraries;
- read: certificates, the names of hosts, users and time zones, as far as anybody may read them;
- write: its cache, its temporary files in there, and a repository on this disk.

What the kernel does not hold back are the names, sizes and times of files elsewhere: never what is
in them. Files with credentials are handed over beforehand (`Repository.handed_over`), and ssh and
rclone, which have such files, run beside it (`bridge.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from . import launcher
from .errors import ResticUnusable

Rule = tuple[str | int, str]

_LIBRARIES = (
    *("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64"),
    *("/usr/local/lib", "/usr/local/lib64", "/nix/store", "/gnu/store"),
)
_PUBLIC = (
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group"),
    *("/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/resolv.conf", "/etc/services"),
    *("/etc/protocols", "/etc/localtime", "/usr/share/zoneinfo", "/etc/mime.types"),
    *("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/certs"),
    *("/etc/pki/tls/cert.pem", "/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted"),
    *("/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
    *("/usr/share/pki", "/var/lib/ca-certificates", "/dev/random", "/dev/urandom", "/dev/zero"),
    *("/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/sys/devices/system/cpu"),
)
_RESOLVERS = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman")
"""Where /etc/resolv.conf may lead to; files in there are replaced while restic runs."""


def why_not() -> str | None:
    """Return why this machine's programs cannot be confined; None: they can."""
    if launcher.landlock_version() > 0:
        return None
    return (
        "this kernel has no Landlock (Linux 5.13 and newer have it, unless it is switched off: "
        "cat /sys/kernel/security/lsm)"
    )


def rules(
    programs: Sequence[str],
    folders: Sequence[int],
    *,
    writable: Sequence[str],
    environment: Mapping[str, str],
    readable: Sequence[str] = (),
) -> list[Rule]:
    """Return what a restic may touch.

    Args:
        programs: that it may run, its own among them.
        folders: descriptors of the folders that it reads.
        writable: of the repository, the cache and temporary files.
        environment: that it gets.
        readable: further files that are no secret.

    Raises:
        ResticUnusable: nothing can be confined here.
    """
    why = why_not()
    if why is not None:
        raise ResticUnusable(f"restic cannot be confined: {why}")
    certificates = [environment.get("SSL_CERT_FILE", "")]
    certificates += environment.get("SSL_CERT_DIR", "").split(":")
    found: list[Rule] = [(program, "run") for program in programs]
    found += [(path, "run") for path in _LIBRARIES]
    found += [(path, "read") for path in (*_PUBLIC, *_RESOLVERS, *readable)]
    found += [(path, "read") for path in certificates if os.path.isabs(path)]
    found += [("/dev/null", "write")]
    found += [(path, "write") for path in writable]
    found += [(folder, "read") for folder in folders]
    return found


def as_text(found: Sequence[Rule], moved: Sequence[tuple[int, int]] = ()) -> str:
    """Return rules, and descriptors that get other numbers, as `launcher.py` takes them."""
    return json.dumps({"rules": found, "moved": moved})
