"""Listening sockets: TCP, unix sockets and those that systemd hands over.

Sockets are made once, before any worker starts, so that a port in use or a missing permission is
one clear error, and so that a worker that dies loses no waiting connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

from backupgw.runtime.http.errors import HostError

BACKLOG = 2048
FIRST_ACTIVATED = 3  # sd_listen_fds(3)
PROBE_TIMEOUT = 1.0  # seconds; a server on this machine accepts at once


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address; an empty host means every address of the machine."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Unix:
    """The path of a unix socket."""

    path: str


def parse_address(text: str) -> Tcp | Unix:
    """Read `HOST:PORT`, `:PORT`, `[IPV6]:PORT` or `unix:PATH`; ValueError says what is wrong."""
    hint = 'write "HOST:PORT", ":PORT", "[::1]:PORT" or "unix:PATH"'
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError(f"{text!r} names no socket; write unix:/run/backupgw/rest.sock")
        if len(os.fsencode(path)) > 107:  # sun_path of unix(7), less its final NUL
            raise ValueError(f"{text!r} is longer than the 107 bytes a unix socket may have")
        return Unix(path)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; {hint}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is ambiguous; write an IPv6 address as [{host}]:{port}")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r}: {port!r} is no port (0 to 65535); {hint}")
    return Tcp(host, int(port))


class Listener:
    """A listening socket, and what must be tidied up behind it.

    Attributes:
        sock: the socket; the server that uses it may close it.
        is_unix: whether it is a unix socket.
        address: as rest-server (Go) prints it: `127.0.0.1:8000`, `[::]:8000` or a path.
    """

    def __init__(self, sock: socket.socket, made: tuple[int, int] | None = None) -> None:
        """Wrap a socket; `made` is device and inode of a unix socket's file that is ours."""
        self.sock = sock
        self.is_unix = sock.family == socket.AF_UNIX
        self.address = _address(sock.getsockname())
        self._made = made

    def close(self) -> None:
        """Close the socket, and remove the file of a unix socket if it is still ours."""
        self.sock.close()
        if self._made:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(self.address, follow_symlinks=False)
                if (found.st_dev, found.st_ino) == self._made:
                    os.unlink(self.address)


def _address(name: tuple[str, int] | str | bytes) -> str:
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"
    return os.fsdecode(name)


def open_listeners(addresses: Sequence[str], socket_mode: int) -> list[Listener]:
    """Bind and listen on each address; on an error none stays open.

    Raises:
        HostError: naming the address and what to do.
    """
    listeners: list[Listener] = []
    try:
        for text in addresses:
            address = parse_address(text)
            if isinstance(address, Unix):
                listeners.append(_open_unix(address.path, socket_mode))
            else:
                listeners.extend(_open_tcp(address, text))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open_tcp(address: Tcp, text: str) -> Iterator[Listener]:
    if not address.host:
        # One socket for both families, as Go does it; a kernel without IPv6 gets the other one.
        if socket.has_dualstack_ipv6():
            yield _listen_tcp(socket.AF_INET6, ("::", address.port), text, dual=True)
        else:
            yield _listen_tcp(socket.AF_INET, ("0.0.0.0", address.port), text)  # noqa: S104 - asked for
        return
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise HostError(
            f"cannot listen on {text}: the host name {address.host!r} is not known here ({error})"
        ) from error
    targets = list(dict.fromkeys((family, name) for family, _, _, _, name in found))
    if address.port == 0:
        targets = targets[:1]  # several free ports for one address would help nobody
    opened = False
    for index, (family, name) in enumerate(targets):
        try:
            listener = _listen_tcp(family, name, text)
        except HostError as error:
            # "localhost" resolves to ::1 on machines whose kernel has no IPv6.
            cause = error.__cause__
            missing = isinstance(cause, OSError) and cause.errno in (
                errno.EADDRNOTAVAIL,
                errno.EAFNOSUPPORT,
            )
            if missing and (opened or index + 1 < len(targets)):
                continue
            raise
        opened = True
        yield listener


def _listen_tcp(
    family: int, name: tuple[str | int, ...] | tuple[int, bytes], text: str, *, dual: bool = False
) -> Listener:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise HostError(f"cannot listen on {text}: {error.strerror}") from error
    try:
        # Connections inherit these three (tcp(7), socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise HostError(f"cannot listen on {text}: {_tcp_reason(error)}") from error
    return Listener(sock)


def _tcp_reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program; stop that one or choose another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "no permission; ports below 1024 need root, CAP_NET_BIND_SERVICE or socket activation"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return error.strerror or str(error)


def _open_unix(path: str, mode: int) -> Listener:
    path = os.path.abspath(path)  # the working directory may change before it is removed
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind_unix(sock, path, mode)
        found = os.stat(path, follow_symlinks=False)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise HostError(f"cannot listen on unix:{path}: {_unix_reason(error)}") from error
    except HostError:
        sock.close()
        raise
    return Listener(sock, (found.st_dev, found.st_ino))


def _bind_unix(sock: socket.socket, path: str, mode: int) -> None:
    # The mode comes from the umask: a chmod after the bind would leave a moment in which anybody
    # may connect.
    before = os.umask(0o777 & ~mode)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            sock.bind(path)
    finally:
        os.umask(before)


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone; anything else is an error."""
    if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
        raise HostError(
            f"cannot listen on unix:{path}: the file exists and is no socket; "
            "move it away or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        # A full queue (a time-out) is a living server as well.
        with contextlib.suppress(TimeoutError):
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return
    raise HostError(
        f"cannot listen on unix:{path}: another program is listening there; "
        "stop it or choose another path"
    )


def _unix_reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to write in its folder"
    if error.errno == errno.ENOENT:
        return "its folder does not exist; create it"
    return error.strerror or str(error)


def activated_sockets(environ: MutableMapping[str, str]) -> list[tuple[str, Listener]]:
    """Take the sockets that systemd handed over, each with its FileDescriptorName.

    The variables are removed, so that no child takes the sockets for its own (sd_listen_fds(3)).

    Raises:
        HostError: a descriptor is no listening stream socket.
    """
    pid, count, names = (
        environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    labels = names.split(":") if names else []
    taken: list[tuple[str, Listener]] = []
    for index in range(int(count)):
        fd = FIRST_ACTIVATED + index
        label = labels[index] if index < len(labels) else ""
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise HostError(f"socket activation: descriptor {fd} ({label}) is no socket") from error
        stream = sock.type == socket.SOCK_STREAM
        if not stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise HostError(
                f"socket activation: descriptor {fd} ({label}) is no listening stream socket; "
                "use ListenStream= with Accept=no"
            )
        os.set_inheritable(fd, False)
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken.append((label, Listener(sock)))
    return taken
