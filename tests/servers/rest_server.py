"""rest-server 0.14, the reference: started with the flags that its users know.

`RestServer` also describes whatever takes the same command line, so that one test runs against
the reference and against ours (`gateway.Gateway`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from urllib.parse import quote

import bcrypt

from . import peers
from .process import ServerProcess
from .running import Running
from .tls import Certificate

TCP = "tcp"
TLS = "tls"
UNIX = "unix"


class RestServer(Running):
    """A rest-server on a free port of 127.0.0.1, or on a unix socket. A context manager."""

    name = peers.REST_SERVER

    def __init__(
        self,
        folder: Path,
        *,
        transport: str = TCP,
        certificate: Certificate | None = None,
        users: Mapping[str, str] | None = None,
        append_only: bool = False,
        private_repos: bool = False,
        address: str | None = None,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a server; `start` or `with` runs it.

        Args:
            folder: the root of its repositories.
            transport: TCP, TLS (needs `certificate`) or UNIX.
            users: passwords by user name; None turns authentication off.
            address: listen here (`127.0.0.1:PORT`) instead of on a free port.
            flags: more of rest-server's flags.
        """
        self.folder = folder.absolute()
        self.transport = transport
        self.certificate = certificate if transport == TLS else None
        self.users = users
        self._address = address or "127.0.0.1:0"
        self._flags = [
            *["--append-only"] * append_only,
            *["--private-repos"] * private_repos,
            *flags,
        ]
        self._environment = environment
        self._process: ServerProcess | None = None
        self._private: Path | None = None

    @classmethod
    def program(cls) -> list[str]:
        """The command up to the flags. Raises LookupError where the program is missing."""
        return [str(peers.get(peers.REST_SERVER).path)]

    def start(self) -> None:
        """Run it until `stop`. Raises process.ServerFailed with what it printed."""
        # Short: a unix socket's path may have 107 bytes, and pytest's folders are long.
        self._private = Path(tempfile.mkdtemp(prefix="gw-"))
        try:
            self._process = ServerProcess(
                [*self.program(), *self._arguments(), *self._flags],
                ready=r"start server on (\S+)",
                # No settings of this machine's user may reach a test.
                environment={"XDG_CONFIG_HOME": str(self._private), **(self._environment or {})},
                directory=self._private,
            )
        except BaseException:
            self.stop()
            raise

    def _arguments(self) -> list[str]:
        listen = f"unix:{self.socket}" if self.transport == UNIX else self._address
        arguments = ["--path", str(self.folder), "--listen", listen]
        if self.users is None:
            arguments.append("--no-auth")
        else:
            arguments += ["--htpasswd-file", str(self.htpasswd)]
            self.htpasswd.write_text("".join(starmap(htpasswd_line, self.users.items())))
            self.htpasswd.chmod(0o600)
        if self.transport == TLS:
            assert self.certificate is not None
            arguments += ["--tls", "--tls-cert", str(self.certificate.chain)]
            arguments += ["--tls-key", str(self.certificate.key)]
        return arguments

    def stop(self) -> None:
        """End it and remove its socket and password file; idempotent."""
        try:
            if self._process is not None:
                self._process.stop()
        finally:
            if self._private is not None:
                shutil.rmtree(self._private, ignore_errors=True)

    @property
    def socket(self) -> Path:
        """Where a unix socket is, while the server runs."""
        assert self._private is not None, "the server was not started"
        return self._private / "s"

    @property
    def htpasswd(self) -> Path:
        """The password file, while the server runs."""
        assert self._private is not None, "the server was not started"
        return self._private / "htpasswd"

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None, "the server was not started"
        return self._process

    @property
    def port(self) -> int:
        return int(self.process.match[1].rpartition(":")[2])

    @property
    def address(self) -> str | tuple[str, int]:
        """What a socket connects to: a path or (host, port)."""
        return str(self.socket) if self.transport == UNIX else ("127.0.0.1", self.port)

    def repository(self, path: str = "", *, user: str | None = None) -> str:
        """restic's name for the repository at `path`, with a user's name and password in it."""
        login = ""
        if user is not None:
            password = (self.users or {}).get(user, "")
            login = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        path = f"{path}/" if path else ""
        if self.transport == UNIX:
            return f"rest:http+unix://{login}{self.socket}:/{path}"
        scheme = "https" if self.transport == TLS else "http"
        return f"rest:{scheme}://{login}127.0.0.1:{self.port}/{path}"


def htpasswd_line(user: str, password: str) -> str:
    """A line as `htpasswd -B` writes it, at the lowest cost so that tests are quick."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
