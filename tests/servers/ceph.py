"""A Ceph of one machine with its S3 service: monitor, object store and radosgw as Debian has them.

About ten seconds until it answers. Everything lies in one folder, ends by SIGKILL, and comes up
again with what it had: that is what the daemons are made for.
"""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from .free_port import free_port
from .process import START_TIMEOUT, ServerFailed, ServerProcess
from .s3 import S3Server

PROGRAMS = ("ceph", "ceph-authtool", "monmaptool", "ceph-mon", "ceph-osd", "radosgw")
"""What a test marked `root` has to name."""

_IDENTITIES = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
    "client.rgw.a": ("mon", "allow rw", "osd", "allow rwx"),
}
"""Who the daemons are to each other, and what each may do."""

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {folder}/keyring
run dir = {folder}
admin socket =
crash dir = {folder}
log file = /dev/null
mon cluster log file = /dev/null
mon data = {folder}/mon
osd data = {folder}/osd
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mgr initial modules =
paxos propose interval = 0.05
paxos min wait = 0.02
mon tick interval = 1
osd objectstore = bluestore
osd memory target = 939524096
bluestore block create = true
bluestore block size = 6442450944
rgw thread pool size = 64
rgw frontends = beast endpoint=127.0.0.1:{s3} tcp_nodelay=1
"""


class Ceph(S3Server):
    """A Ceph with radosgw. A context manager.

    Args:
        folder: for all it keeps; some 200 MB and what is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / "ceph.conf"
        self._port = 0
        self._below: list[ServerProcess] = []
        self._gateway: ServerProcess | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pids(self) -> list[int]:
        """Of all its processes that run."""
        gateway = [] if self._gateway is None else [self._gateway]
        return [process.pid for process in (*self._below, *gateway)]

    def start(self) -> None:
        new = not self._file.exists()
        try:
            if new:
                self._make()
            self._run_below(new=new)
            if new:
                self._admin(
                    *["user", "create", "--uid", "test", "--display-name", "test"],
                    *["--access-key", self.key_id, "--secret-key", self.secret],
                )
            self.start_gateway()
        except BaseException:
            self.kill()
            raise

    def start_gateway(self) -> None:
        """Run radosgw alone, after `kill_gateway`."""
        self._gateway = self._daemon(
            "radosgw", "-n", "client.rgw.a", ready="starting handler: beast"
        )

    def kill_gateway(self) -> None:
        """End radosgw by SIGKILL; what is below it goes on."""
        if self._gateway is not None:
            self._gateway.kill()
            self._gateway = None

    def kill(self) -> None:
        self.kill_gateway()
        while self._below:
            self._below.pop().kill()

    def stop(self) -> None:
        self.kill()

    def revoke_key(self) -> None:
        """Make the service know the key no more, at once."""
        self._admin("user", "suspend", "--uid", "test")

    def restore_key(self) -> None:
        """Undo `revoke_key`."""
        self._admin("user", "enable", "--uid", "test")

    def _make(self) -> None:
        """Write the configuration, and the monitor's and the store's folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        v2, v1, self._port = free_port(), free_port(), free_port()
        fsid = str(uuid.uuid4())
        self._file.write_text(
            _CONFIGURATION.format(fsid=fsid, v2=v2, v1=v1, s3=self._port, folder=self.folder)
        )
        keyring = str(self.folder / "keyring")
        for number, (identity, rights) in enumerate(_IDENTITIES.items()):
            caps = [
                word
                for pair in zip(rights[::2], rights[1::2], strict=True)
                for word in ("--cap", *pair)
            ]
            new = ["--create-keyring"] if number == 0 else []
            _run("ceph-authtool", keyring, *new, "--gen-key", "-n", identity, *caps)
        monitors = str(self.folder / "monmap")
        address = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        _run(
            "monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monitors
        )
        (self.folder / "mon").mkdir()
        _run(
            "ceph-mon",
            *self._common(),
            "--mkfs",
            "-i",
            "a",
            "--monmap",
            monitors,
            "--keyring",
            keyring,
        )

    def _run_below(self, *, new: bool) -> None:
        monitor = self._daemon(
            "ceph-mon", "-i", "a", ready=r"mon\.a is new leader|mon\.a@0\(leader\)"
        )
        self._below.append(monitor)
        if new:
            store = str(uuid.uuid4())
            _run("ceph", *self._common(), "--connect-timeout", "30", "osd", "new", store)
            (self.folder / "osd").mkdir()
            _run("ceph-osd", *self._common(), "-i", "0", "--mkfs", "--osd-uuid", store)
        self._below.append(self._daemon("ceph-osd", "-i", "0", ready="state: booting -> active"))

    def _admin(self, *arguments: str) -> None:
        _run("radosgw-admin", *self._common(), *arguments)

    def _common(self) -> list[str]:
        return ["-c", str(self._file)]

    def _daemon(self, program: str, *arguments: str, ready: str) -> ServerProcess:
        # -d: in the foreground, with the log on standard error.
        return ServerProcess([program, "-d", *self._common(), *arguments], ready=ready)


def _run(program: str, *arguments: str) -> str:
    """Run a program to its end. Raises ServerFailed with what it said."""
    done = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise ServerFailed(f"{program} {arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout
