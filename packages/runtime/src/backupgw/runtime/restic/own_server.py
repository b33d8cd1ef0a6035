"""A server of restic's protocol that is this process's own, in front of any `[places.NAME]`.

It is the installed service `rest` in a child process, found by its entry point. It listens on
loopback on a socket that this process has bound and keeps: a client that comes while the child is
being started, or again after it died, waits instead of being refused. User and password are random
at each start and known to nobody else. The child ends with this process, also when that is killed.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

from ..command import CommandError
from .child import tethered

if TYPE_CHECKING:
    from types import TracebackType

    from ..settings import Settings

log = logging.getLogger(__name__)

START_LIMIT = 60.0
"""Seconds until it must serve; a place far away is opened first."""
_LONGEST_PAUSE = 30.0
_READY = b"start server on "


class OwnServerFailed(CommandError):
    """The server does not start; the message is its own."""


class OwnServer:
    """A restserver in front of a place, from `start` to `close`.

    Args:
        settings: of the gateway, with the place.
        place: its name.
    """

    def __init__(self, settings: Settings, place: str) -> None:
        self._settings = settings
        self._place = place
        self._user = f"own-{secrets.token_hex(4)}"
        self._password = secrets.token_urlsafe(32)
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._ready = False
        self._failure: str | None = None
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self.starts = 0
        """How often it was started."""

    def start(self) -> None:
        """Start it, and return once it serves.

        Raises:
            OwnServerFailed: it does not.
        """
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        self._listener = listener
        self._keeper = threading.Thread(target=self._keep, name="own-restserver", daemon=True)
        self._keeper.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure, START_LIMIT)
            failure = None if self._ready else self._failure or "it does not get ready"
        if failure is not None:
            self.close()
            raise OwnServerFailed(f"restic's server in front of {self._place}: {failure}")

    def url(self, path: str) -> str:
        """Return restic's address of a repository in the place, with the credential in it.

        Args:
            path: of the repository in the place: letters, digits, - and _ between slashes.
        """
        assert self._listener is not None, "it was not started"
        port = self._listener.getsockname()[1]
        return f"rest:http://{self._user}:{self._password}@127.0.0.1:{port}/{path.strip('/')}/"

    @property
    def process_id(self) -> int | None:
        """Of the child that runs now."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def close(self) -> None:
        """End it. Idempotent."""
        self._closing.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        if self._keeper is not None:
            self._keeper.join()
        if self._listener is not None:
            self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _password_line(self) -> bytes:
        import bcrypt

        # Random as it is, the password needs no costly hash: each new connection pays for it.
        hashed = bcrypt.hashpw(self._password.encode(), bcrypt.gensalt(4))
        return b"%b:%b\n" % (self._user.encode(), hashed)

    # -- the keeper's thread, which the child is tied to

    def _keep(self) -> None:
        pause = 0.5
        while not self._closing.is_set():
            served = self._run_once()
            if self._closing.is_set():
                return
            pause = 0.5 if served else min(2 * pause, _LONGEST_PAUSE)
            log.warning(
                "restic's server in front of %s has ended (%s); it is started again",
                self._place,
                self._failure or "without a word",
            )
            self._closing.wait(pause)

    def _run_once(self) -> bool:
        """Run a child to its end; return whether it has served."""
        assert self._listener is not None
        descriptor = self._listener.fileno()
        command = [sys.executable, "-c", "from backupgw.runtime.restic.own_server import serve\n"
                   "serve()", str(descriptor)]  # fmt: skip
        served = False
        last = ""
        try:
            process = subprocess.Popen(
                tethered(command, signal.SIGTERM),
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        except OSError as error:
            self._tell(None, f"it cannot be started: {error.strerror}")
            return False
        with process:
            self._process = process
            self.starts += 1
            if self._closing.is_set():
                process.terminate()
            assert process.stdin is not None
            assert process.stderr is not None
            try:
                given = (self._settings, self._place, self._password_line())
                pickle.dump(given, process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                log.debug("restic's own server did not read its settings")
            for line in process.stderr:
                if line.startswith(_READY):
                    served = True
                    self._tell(process, None)
                    continue
                last = line.decode(errors="replace").strip() or last
                sys.stderr.write(line.decode(errors="replace"))
            status = process.wait()
        self._tell(None, last or f"it ended with status {status}")
        return served

    def _tell(self, process: subprocess.Popen[bytes] | None, failure: str | None) -> None:
        with self._changed:
            self._ready = process is not None
            self._failure = failure
            self._changed.notify_all()


def serve() -> None:
    """Be the child: read the settings from standard input, serve on the socket that was handed."""
    from ..command import CommandError
    from ..http.host import Hosted, run
    from ..services import import_function, installed_services

    settings, place, users = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent's
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rest"}
    given = int(sys.argv[1])
    if given != 3:  # where sd_listen_fds(3) looks
        os.dup2(given, 3)
        os.close(given)
    # A file without a name: it is on no disk, and gone with this process however that ends.
    descriptor = os.memfd_create("htpasswd", os.MFD_CLOEXEC)
    os.write(descriptor, users)
    htpasswd = f"/proc/self/fd/{descriptor}"
    try:
        service = installed_services()["rest"]
        settings = own_settings(settings, place, htpasswd)
        from .. import log as logging_setup

        logging_setup.configure(settings.log.level, settings.log.format)
        if service.prepare is not None:
            import_function(service.prepare)(settings)
        hosted = Hosted(
            name="rest",
            app="backupgw.runtime.commands.serve:build",
            argument=(service.app, settings),
            options=settings.section("rest"),
        )
        status = run([hosted])
    except KeyError:
        print("backupgw-restserver is not installed", file=sys.stderr)  # noqa: T201
        status = 1
    except Exception as error:  # noqa: BLE001 - the parent shows this line; a traceback says less
        known = isinstance(error, CommandError)
        print(error if known else f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        status = 1
    sys.exit(status)


_KEPT = (
    "quota", "max_size", "ledger", "trash", "verify", "group_accessible_repos", "threads",
)  # fmt: skip
"""What of the service's own section concerns the place rather than who may come."""


def own_settings(settings: Settings, place: str, htpasswd: str) -> Settings:
    """Return settings for a server of one user in front of a place.

    Where the gateway's own service has the same place, limits and upkeep are the same: nobody gets
    around a quota by this door.
    """
    import dataclasses

    from ..services import installed_services
    from ..settings_auth import AuthSettings

    model = installed_services()["rest"].settings
    given = settings.sections.get("rest")
    kept = {}
    if given is not None and getattr(given, "place", None) == place:
        kept = {name: value for name, value in given.model_dump(exclude_unset=True).items()
                if name in _KEPT}  # fmt: skip
    section = model.model_validate(
        {
            **kept,
            "place": place,
            "htpasswd_file": htpasswd,
            "listen": ["127.0.0.1:0"],
            "idle_timeout": 300,
            "workers": 1,
        }
    )
    return dataclasses.replace(
        settings,
        sections={**settings.sections, "rest": section},
        gateway={**settings.gateway, "auth": AuthSettings()},
    )
