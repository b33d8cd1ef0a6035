"""OpenSSH's server on a free port of 127.0.0.1, with keys of its own.

    with Sshd(folder) as sshd:
        backend = open_place(f"rest://{sshd.user}@127.0.0.1/{path}", rsh=sshd.client())

Whoever has the key `client()` names is let in as the user who runs this; what they may run is
`allow`'s to say. Nothing of this machine's own ssh settings or keys is used.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .process import ServerFailed, ServerProcess

ATTEMPTS = 5
"""Ports tried: between finding a free one and using it, another program may take it."""
PATH = os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"))
"""Where a login finds its programs: ours and borgstore's first."""


def program() -> str | None:
    """Return the server's path, None where there is none. sshd wants to be started by it."""
    return shutil.which("sshd", path="/usr/local/sbin:/usr/sbin:/sbin")


class Sshd:
    """A server; a context manager.

    Args:
        folder: for keys and settings; made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._process: ServerProcess | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        found = program()
        if found is None:
            raise ServerFailed("sshd is missing: run `make peers`")
        for key in ("host", "other-host", "client"):
            _make_key(self.folder / key)
        self.allow()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it insists on its empty folder
        for left in reversed(range(ATTEMPTS)):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            settings = self.folder / "sshd_config"
            settings.write_text(self._settings())
            try:
                self._process = ServerProcess(
                    [found, "-D", "-e", "-f", str(settings)],
                    ready=r"Server listening on 127\.0\.0\.1 port",
                )
                return self
            except ServerFailed:
                if not left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self.drop()
        self._process.stop()

    def _settings(self) -> str:
        return f"""\
Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.folder}/host
PidFile {self.folder}/pid
AuthorizedKeysFile {self.folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={PATH} XDG_CONFIG_HOME={self.folder} XDG_STATE_HOME={self.folder}
"""

    def allow(self, options: str = "") -> None:
        """Let the client's key in, with options as authorized_keys has them."""
        key = (self.folder / "client.pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{options} {key}".lstrip())

    def client(self, *, host_key: str = "host") -> str:
        """Return the command of a client.

        Args:
            host_key: which key it takes for the server's: "host", or "other-host".
        """
        known = self.folder / f"known-{host_key}"
        key = (self.folder / f"{host_key}.pub").read_text()
        known.write_text(f"[127.0.0.1]:{self.port} {key}")
        settings = {
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": self.folder / "client",
            "BatchMode": "yes",
        }
        words = ["ssh", "-F", "/dev/null", "-p", str(self.port)]
        for name, value in settings.items():
            words += ["-o", f"{name}={value}"]
        return shlex.join(words)

    def drop(self) -> int:
        """Kill the processes of all connections, as a crash or an impatient firewall would;
        return how many there were."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        return len(children)


def _make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
