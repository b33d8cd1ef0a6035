"""Serve services over HTTP: `run` is what commands call.

One service with one worker runs in this process; anything more gets a supervisor and worker
processes. Everything that can be wrong with addresses, certificates and files is found out here,
before a worker is started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence

from backupgw.runtime.http.access_log import AccessLog
from backupgw.runtime.http.errors import HostError
from backupgw.runtime.http.listeners import Listener, activated_sockets, open_listeners
from backupgw.runtime.http.server import Hosted, serve
from backupgw.runtime.http.tls import Certificate

__all__ = ["Hosted", "run", "run_on"]

logger = logging.getLogger(__name__)

SPARE_FILES = 1024  # descriptors beside those of connections: stored files, pools, logs
Services = list[tuple[Hosted, list[Listener]]]


def run(hosted: Sequence[Hosted]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    The process is to end after it: signals are ignored from the stop on. When requests are
    answered, one line per listener says so on standard error, as rest-server does:
    `start server on 127.0.0.1:8000`.

    Returns:
        0 after a stop that was asked for, 1 when the start failed (the reason is on standard
        error) or a worker had to be killed.
    """
    services: Services = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        _raise_file_limit(max(h.options.max_connections for h in hosted))
        for one in hosted:
            _check(one)
        services.extend(_listen(hosted))
        return _serve(services)
    except HostError as error:
        print(f"backupgw: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the user's answer
        return 1
    finally:
        for _, listeners in services:
            for listener in listeners:
                listener.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_on(hosted: Hosted, connection: socket.socket) -> int:
    """Serve one client on a connected socket until it hangs up; return the exit status as `run`.

    The socket belongs to the host from then on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        _check(hosted)
        return serve(hosted, [], lambda: None, connection)
    except HostError as error:
        print(f"backupgw: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the user's answer
        return 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(services: Services) -> int:
    def announce() -> None:
        for _, listeners in services:
            for listener in listeners:
                print(f"start server on {listener.address}", file=sys.stderr, flush=True)  # noqa: T201
        _notify("READY=1")

    if len(services) == 1 and services[0][0].options.workers == 1:
        return serve(services[0][0], services[0][1], announce)
    # Imported late: one process needs no supervisor.
    from backupgw.runtime.http.supervisor import Supervisor
    from backupgw.runtime.http.worker_process import workers_of

    return Supervisor(workers_of(services), announce).run()


def _check(hosted: Hosted) -> None:
    """Find out in this process what each worker would otherwise complain about."""
    if hosted.options.tls:
        Certificate(hosted.options)
    if hosted.options.access_log:
        AccessLog(hosted.options.access_log).close()


def _listen(hosted: Sequence[Hosted]) -> Services:
    services: Services = [(one, []) for one in hosted]
    taken = activated_sockets(os.environ)
    try:
        for label, listener in taken:
            named = [mine for one, mine in services if one.name == label]
            if named:
                named[0].append(listener)
            elif len(services) == 1:
                services[0][1].append(listener)
            else:
                names = ", ".join(one.name for one in hosted)
                raise HostError(
                    f"socket activation: {listener.address} ({label or 'no name'}) belongs to no "
                    f"service; set FileDescriptorName= to one of {names}"
                )
        for one, mine in services:
            if not mine:
                mine.extend(open_listeners(one.options.listen, one.options.socket_mode))
    except BaseException:
        for listener in [listener for _, mine in services for listener in mine]:
            listener.close()
        raise
    return services


def _raise_file_limit(connections: int) -> None:
    """Allow as many open files as connections need; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (connections or 65_536) * 2 + SPARE_FILES  # a connection may have a file open
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _notify(text: str) -> None:
    """Tell systemd (sd_notify(3)), where it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
            sock.sendall(text.encode())
        except OSError as error:
            logger.warning("systemd could not be told %s: %s", text, error)
