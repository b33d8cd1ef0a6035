"""PostgreSQL as Debian has it, on a free port of 127.0.0.1 and a socket, to be stopped and started.

    from tests.servers.postgres import postgres, postgres_url  # fixtures, in a conftest.py

`postgres` is one server for the whole session, with a fresh database for each that asks
(`postgres.new_database()`); a test that stops its server makes its own: `with Postgres() as own`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
import pytest

from . import peers
from .free_port import free_port
from .process import ServerFailed, ServerProcess

USER = "gateway"
PASSWORD = "correct horse/battery"
"""Asked for over TCP; the socket trusts. It needs quoting in a URL, as good ones do."""
QUOTED_PASSWORD = "correct%20horse%2Fbattery"
ATTEMPTS = 5
"""Ports tried: between finding a free one and using it, another program may take it."""
STOP_TIMEOUT = 30
STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""Signals of the postmaster: fast ends every session, immediate is as good as a crash."""

_template: Path | None = None
_making = threading.Lock()


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL that is installed."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    folders = [folder for folder in folders if (folder / "postgres").exists()]
    return max(folders, key=lambda folder: (len(str(folder)), str(folder)), default=None)


def missing() -> str | None:
    """Return why there is no PostgreSQL here, None where there is."""
    if programs() is not None:
        return None
    return f"postgres is missing: {peers.load().missing.get('initdb', 'run `make peers`')}"


class Postgres:
    """A server with its own folder and port, the same after a restart. A context manager.

    Args:
        flags: settings of the server, as `("max_connections=20",)`.
    """

    def __init__(self, *, flags: tuple[str, ...] = ()) -> None:
        self.folder = Path()
        self.port = 0
        self._flags = flags
        self._process: ServerProcess | None = None

    def url(self, database: str = "postgres") -> str:
        """Return a database's URL over TCP, with the password."""
        return f"postgresql://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return a database's URL over the socket, which asks for no password."""
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def output(self) -> str:
        """What the server printed since its last start."""
        return "" if self._process is None else self._process.output

    def start(self) -> None:
        """Run it until `stop`. Raises ServerFailed with what it printed."""
        if not self.folder.name:
            self.folder = _new_folder()
            shutil.copytree(_make_template(), self.folder / "data", copy_function=_copy_owned)
            _own(self.folder / "data")
        for attempt in range(ATTEMPTS):
            port = self.port or free_port()
            try:
                self._process = self._run(port)
            except ServerFailed:
                if self.port or attempt == ATTEMPTS - 1:
                    raise
            else:
                self.port = port
                return

    def _run(self, port: int) -> ServerProcess:
        folder = programs()
        assert folder is not None
        settings = (
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            # A killed server keeps what the kernel has; these tests do not cut the power.
            "fsync=off",
            "max_wal_size=256MB",
            "restart_after_crash=on",
            "log_min_messages=warning",
            "lc_messages=C",
            *self._flags,
        )
        flags = [part for setting in settings for part in ("-c", setting)]
        return ServerProcess(
            [*_as_user(), str(folder / "postgres"), "-p", str(port), *flags],
            environment={"PGDATA": str(self.folder / "data")},
            ready=r"database system is ready to accept connections",
            directory=self.folder,
        )

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End it; its port stays its own for the next start. Idempotent."""
        if self._process is None:
            return
        if self._process.running:
            self._process.process.send_signal(STOPS[mode])
            try:
                self._process.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise ServerFailed(f"postgres did not stop ({mode})") from None
        self._process.stop()
        self._process = None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it and start it again, with the same data on the same port."""
        self.stop(mode)
        self.start()

    def new_database(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of another, and return its URL (TCP).

        Args:
            template: the other's URL; nobody may be connected to it.
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        copied = f" TEMPLATE {template.rpartition('/')[2]}" if template else ""
        self.execute(f"CREATE DATABASE {name}{copied}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser, past everything of ours; return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else list(cursor.fetchall())

    def connections(self, database_url: str) -> int:
        """Return how many sessions others have in a database."""
        name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
        rows = self.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            f"AND datname = '{name}'"
        )
        count = rows[0][0]
        assert isinstance(count, int)
        return count

    def wait_until_left(self, database_url: str, timeout: float = 30) -> int:
        """Return how many sessions others still have when all should have ended: 0 by then.

        A session is listed until its process has seen that its client is gone.
        """
        ends = time.monotonic() + timeout
        while (count := self.connections(database_url)) and time.monotonic() < ends:
            time.sleep(0.02)
        return count

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop("immediate")
        finally:
            self._remove()

    def _remove(self) -> None:
        if self.folder.name:
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_programs(pytestconfig: pytest.Config) -> None:
    """Leave a test out, with the reason, where there is no PostgreSQL; with CI=true it fails."""
    bare = pytestconfig.getoption("--peer-less")
    reason = "postgres, because of --peer-less" if bare else missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"nothing may be left out with CI=true: {reason}", pytrace=False)
    pytest.skip(f"left out: {reason}")


@pytest.fixture(scope="session")
def postgres(postgres_programs: None) -> Iterator[Postgres]:
    """A server that all tests of the session share; none stops it."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A fresh, empty database on the session's server."""
    return postgres.new_database()


def _make_template() -> Path:
    """Run initdb, once in a session, and return its folder."""
    global _template
    with _making:
        if _template is None:
            _template = _initialise()
        return _template


def _initialise() -> Path:
    folder = programs()
    assert folder is not None, "asked for without the fixture"
    # Of pytest's process: several may run at once, and it goes when pytest goes.
    home = _new_folder()
    _removed_at_exit(home)
    secret = home / "password"
    secret.write_text(PASSWORD)
    _own(secret)
    command = [str(folder / "initdb"), "-D", str(home / "data"), "-U", USER, "--no-sync"]
    command += ["-E", "UTF8", "--locale=C.UTF-8", "--auth-local=trust"]
    command += ["--auth-host=scram-sha-256", f"--pwfile={secret}"]
    done = subprocess.run(
        [*_as_user(), *command], cwd=home, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerFailed(f"initdb failed: {done.stdout}{done.stderr}")
    return home / "data"


def _removed_at_exit(folder: Path) -> None:
    import atexit

    process = os.getpid()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def _account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses root: then the packaged user runs it, or nobody."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _as_user() -> list[str]:
    account = _account()
    if account is None:
        return []
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _new_folder() -> Path:
    # Not pytest's: PostgreSQL's user may not enter that, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="backupgw-pg-"))
    _own(folder)
    return folder


def _own(path: Path) -> None:
    account = _account()
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)
        if path.is_dir():
            for entry in path.iterdir():
                if entry.is_dir():
                    _own(entry)


def _copy_owned(source: str, target: str) -> str:
    shutil.copy2(source, target)
    account = _account()
    if account is not None:
        os.chown(target, account.pw_uid, account.pw_gid)
    return target
