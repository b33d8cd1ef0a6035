"""`rclone rcd`, the program behind the places that rclone reaches: one for a process of ours.

It is started when it is first needed and again when it died, and it ends with this process, also
when that is killed (PR_SET_PDEATHSIG). It listens on a socket that was made for it and handed over
(systemd's way of doing that), in a folder that is this user's alone, so nobody waits until it is
ready and nobody else gets in its place. User and password are random, and in its environment; its
command line says nothing but `rclone rcd`.
"""

from __future__ import annotations

import atexit
import base64
import collections
import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import lru_cache
from http.client import HTTPConnection

from .errors import BackendDoesNotExist, BackendError
from .rest_connections import Connections
from .rest_dialing import ProgramConnection, wait_at_most
from .rest_wire import BLOCK

logger = logging.getLogger(__name__)

MINIMUM = (1, 68, 0)
"""The first version whose `rcd` takes a socket that is handed over (2024-09)."""

FAREWELL = 5.0
"""Seconds that it may take to end when it is asked to."""

_PREFIX = "backupgw-rclone-"
_IDLE = 32
_TRIES = 3
_WAIT = 0.2
_NO_START = re.compile(r"Fatal error|CRITICAL|Failed to (start|load|create)")

_LAUNCHER = """\
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
parent, descriptor, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if os.getppid() != parent:
    sys.exit("the program that wanted rclone has ended")
if descriptor != 3:  # where sd_listen_fds(3) looks
    os.dup2(descriptor, 3)
    os.close(descriptor)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="backupgw")
os.execv(program, [program, "rcd"])
"""

_WANTED = {
    "RCLONE_RC_SERVE": "true",
    "RCLONE_RC_NO_AUTH": "false",
    "RCLONE_RC_WEB_GUI": "false",
    "RCLONE_RC_JOB_EXPIRE_DURATION": "1s",  # their answers would be kept
    "RCLONE_RC_JOB_EXPIRE_INTERVAL": "1s",
    # What is cut off within that many bytes would be stored as if it were whole (`Rcat`).
    "RCLONE_STREAMING_UPLOAD_CUTOFF": "0",
    "RCLONE_USE_SERVER_MODTIME": "true",  # S3 would be asked once an item in each listing
    "RCLONE_INPLACE": "true",  # temporary names are ours, and never listed
    "RCLONE_ASK_PASSWORD": "false",
    "RCLONE_AUTO_CONFIRM": "true",
    "RCLONE_USE_JSON_LOG": "false",
    "RCLONE_LOG_FILE": "",
}
_UNLESS_SET = {
    "RCLONE_LOW_LEVEL_RETRIES": "5",
    "RCLONE_CONTIMEOUT": "15s",
    "RCLONE_TIMEOUT": "1m",
    "RCLONE_BUFFER_SIZE": "1M",
}
"""Gives up sooner than rclone would: the layers and clients above try again too."""


class RcloneProcess:
    """The `rclone rcd` of a program and a settings file. Safe for many threads.

    Args:
        program: absolute path.
        config: rclone's settings file, None for its own idea.
    """

    def __init__(self, program: str, config: str | None) -> None:
        self._program = program
        self._config = config
        self._user = secrets.token_hex(8)
        self._password = secrets.token_hex(32)
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._folder, self._folder_fd = _private_folder()
        login = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        self.connections = Connections(
            "rclone",
            self._dial,
            {"Authorization": f"Basic {login}"},
            idle=_IDLE,
            tries=_TRIES,
            wait=_WAIT,
        )

    @property
    def folder(self) -> str:
        """A folder of this user's alone, for values on their way."""
        return self._folder

    @property
    def pid(self) -> int | None:
        """The program's id, None while it does not run."""
        running = self._running
        return running.pid if running is not None and running.alive else None

    def said(self) -> str:
        """Return why the program ended, "" while it runs."""
        running = self._running
        return running.said() if running is not None and not running.alive else ""

    def connect(self) -> socket.socket:
        """Return a connection to the program, started where it does not run.

        Raises:
            OSError: it ended at once.
            BackendError: it cannot be started.
        """
        with self._lock:
            running = self._running
            if running is None or not running.alive:
                if running is not None:
                    logger.warning("rclone ended: %s; starting it again", running.said())
                running = self._running = self._start()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(running.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _dial(self, timeout: float) -> HTTPConnection:
        return _Connection(self, timeout)

    def _start(self) -> _Running:
        path = os.path.join(self._folder, secrets.token_hex(4))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            listener.bind(path)
            listener.listen(128)
            return _Running(self._program, path, listener, self._environment())

    def _environment(self) -> dict[str, str]:
        environment = {**_UNLESS_SET, **os.environ, **_WANTED}
        environment["RCLONE_RC_USER"] = self._user
        environment["RCLONE_RC_PASS"] = self._password
        environment.pop("RCLONE_RC_ADDR", None)
        environment.pop("NOTIFY_SOCKET", None)
        if self._config is not None:
            environment["RCLONE_CONFIG"] = self._config
        return environment

    def stop(self) -> None:
        """End the program and remove the folder."""
        self.connections.close()
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.stop()
        with contextlib.suppress(OSError):
            os.close(self._folder_fd)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Connection(ProgramConnection):
    """A connection to the program, which is started when it does not run."""

    program = "rclone"

    def __init__(self, process: RcloneProcess, timeout: float) -> None:
        super().__init__("rclone", timeout=timeout, blocksize=BLOCK)
        self._process = process

    def said(self) -> str:
        return self._process.said()

    def connect(self) -> None:
        self.sock = self._process.connect()
        wait_at_most(self.sock, float(self.timeout or 0))


class _Running:
    """One run of the program. The thread that started it lives as long: PR_SET_PDEATHSIG looks at
    the thread, not at its process."""

    def __init__(
        self, program: str, path: str, listener: socket.socket, environment: Mapping[str, str]
    ) -> None:
        self.path = path
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=10)
        self._ended = threading.Event()
        self._started = threading.Event()
        self._trouble: OSError | None = None
        self._keeper = threading.Thread(
            target=self._keep, args=(program, listener, environment), name="rclone", daemon=True
        )
        self._keeper.start()
        self._started.wait()
        if self._trouble is not None:
            raise BackendError(f"{program} cannot be started: {self._trouble.strerror}")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._ended.is_set()

    def _keep(self, program: str, listener: socket.socket, environment: Mapping[str, str]) -> None:
        try:
            descriptor = listener.fileno()
            process = self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
                    *(str(os.getpid()), str(descriptor), program),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=dict(environment),
                pass_fds=(descriptor,),
                start_new_session=True,  # Ctrl-C is for us: it must outlast our last requests
            )
            self.pid = process.pid
        except OSError as error:
            self._trouble = error
            self._ended.set()
            return
        finally:
            self._started.set()
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                self._lines.append(line.decode(errors="replace").strip())
        process.wait()
        self._ended.set()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def said(self) -> str:
        """Return how it ended, and why where it could not start. Its other lines are about
        operations, and may hold what is secret."""
        reasons = [line for line in self._lines if _NO_START.search(line)]
        status = self._process.returncode if self._process is not None else None
        return "; ".join([f"status {status}", *reasons[-1:]])

    def stop(self) -> None:
        """End it."""
        process = self._process
        if process is None or not self.alive:
            return
        process.terminate()
        if not self._ended.wait(FAREWELL):
            process.kill()
        self._keeper.join(FAREWELL)


def _private_folder() -> tuple[str, int]:
    """Make a folder; remove those of processes that were killed. A lock says who lives."""
    parent = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        for entry in [*os.scandir(parent)]:
            if entry.name.startswith(_PREFIX):
                _remove_if_dead(entry.path)
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        with contextlib.suppress(OSError):  # another one may have taken it for a dead one's
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return folder, fd
            os.close(fd)


def _remove_if_dead(folder: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(fd)


_processes: dict[tuple[str, str | None], RcloneProcess] = {}
_processes_lock = threading.Lock()


def shared(binary: str, config: str | None) -> RcloneProcess:
    """Return the process of a program, found in PATH, and a settings file.

    Raises:
        BackendDoesNotExist: there is no such program, or it is too old.
    """
    program = shutil.which(binary)
    if program is None:
        raise BackendDoesNotExist(
            f"rclone: needs the program {binary!r}, which is not there: install it "
            "(https://rclone.org/install/), or name it with RCLONE_BINARY"
        )
    program = os.path.abspath(program)
    _check_version(program)
    with _processes_lock:
        key = (program, config)
        if key not in _processes:
            _processes[key] = RcloneProcess(program, config)
        return _processes[key]


@lru_cache
def _check_version(program: str) -> None:
    """Raise BackendDoesNotExist for what is no rclone, or none that is new enough."""
    least = ".".join(map(str, MINIMUM))
    try:
        done = subprocess.run(
            [program, "version"], capture_output=True, timeout=60, check=True, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendDoesNotExist(f"{program} tells no version, so it is no rclone") from error
    found = re.match(r"rclone v(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    if found is None:
        raise BackendDoesNotExist(f"{program} tells no version, so it is no rclone")
    if tuple(int(part or 0) for part in found.groups()) < MINIMUM:
        raise BackendDoesNotExist(
            f"{program} is {found[0]}; rclone {least} or newer is needed: install it "
            "(https://rclone.org/install/), or name a newer one with RCLONE_BINARY"
        )


@atexit.register
def _stop_all() -> None:
    with _processes_lock:
        stopping = [*_processes.values()]
        _processes.clear()
    for process in stopping:
        process.stop()


def _forget() -> None:
    """In a forked process: what runs belongs to the parent."""
    global _processes_lock
    _processes.clear()
    _processes_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
