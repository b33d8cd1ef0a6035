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
from collections.abc import Sequence
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
        password: the user's, who may then log in by it; needs root, and changes nothing of this
            machine: the server has its own view of /etc/shadow.
        settings: further lines of sshd_config.
    """

    def __init__(
        self, folder: Path, *, password: str | None = None, settings: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.port = 0
        self._password = password
        self._more = tuple(settings)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._process: ServerProcess | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        found = program()
        if found is None:
            raise ServerFailed("sshd is missing: run `make peers`")
        for key in ("host", "other-host", "client"):
            make_key(self.folder / key)
        self.allow()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it insists on its empty folder
        for left in reversed(range(ATTEMPTS)):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            try:
                self.start()
            except ServerFailed:
                if not left:
                    raise
            else:
                return self
        raise AssertionError("the last attempt returns or raises")

    def start(self) -> None:
        """Run it, again on the port that it had. Raises ServerFailed."""
        settings = self.folder / "sshd_config"
        settings.write_text(self._settings())
        command = [program() or "sshd", "-D", "-e", "-f", str(settings)]
        if self._password is not None:
            command = _with_shadow(self.folder, self.user, self._password, command)
        self._process = ServerProcess(command, ready=r"Server listening on 127\.0\.0\.1 port")

    def stop(self) -> None:
        """End it and its connections, those that come at this moment as well."""
        assert self._process is not None
        if self._process.running:
            os.kill(self._process.pid, signal.SIGSTOP)  # so it takes no more of them
            self.drop()
        self._process.kill()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _settings(self) -> str:
        return f"""\
Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.folder}/host
PidFile {self.folder}/pid
AuthorizedKeysFile {self.folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication {"no" if self._password is None else "yes"}
KbdInteractiveAuthentication no
PermitRootLogin {"prohibit-password" if self._password is None else "yes"}
Subsystem sftp internal-sftp
MaxStartups 100
SetEnv PATH={PATH} XDG_CONFIG_HOME={self.folder} XDG_STATE_HOME={self.folder}
""" + "".join(f"{line}\n" for line in self._more)

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

    def config(self, alias: str, *lines: str, host_key: str | None = "host") -> str:
        """Return a block of ssh_config for this server, with its key known and ours at hand.

        Args:
            alias: by which the server is then reached.
            lines: further settings, which win.
            host_key: which key is known: "host", "other-host", or None for none.
        """
        known = self.folder / f"known-{host_key}"
        key = "" if host_key is None else (self.folder / f"{host_key}.pub").read_text()
        known.write_text(f"[127.0.0.1]:{self.port} {key}" if key else "")
        keys = [line for line in lines if line.startswith("IdentityFile ")]
        settings = [
            *lines,
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {self.user}",
            *([] if keys else [f"IdentityFile {self.folder}/client"]),
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {known}",
            "GlobalKnownHostsFile none",
        ]
        return "".join(f"{line}\n" for line in (f"Host {alias}", *settings))

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None
        return self._process.pid

    @property
    def sessions(self) -> list[int]:
        """The processes of all connections, those that do the work included."""
        assert self._process is not None
        return _below(self._process.pid)

    def drop(self) -> int:
        """Kill the processes of all connections, as a crash or an impatient firewall would;
        return how many there were."""
        killed = self.sessions
        for child in killed:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return len(killed)


def _below(pid: int) -> list[int]:
    """Return a process's children with theirs."""
    try:
        children = [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []
    return [each for child in children for each in (child, *_below(child))]


def _with_shadow(folder: Path, user: str, password: str, command: list[str]) -> list[str]:
    """Return a command that runs `command` where the user has that password."""
    command_line = ["openssl", "passwd", "-6", "-stdin"]
    made = subprocess.run(
        command_line, input=password, text=True, capture_output=True, check=True, timeout=60
    ).stdout.strip()
    shadow = folder / "shadow"
    shadow.touch(mode=0o600)
    shadow.write_text(f"{user}:{made}:19000:0:99999:7:::\n")
    script = 'mount --bind "$1" /etc/shadow && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(shadow), *command]


def make_key(path: Path) -> None:
    """Make a pair of keys without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
