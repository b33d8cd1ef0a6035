"""Reaching a host: straight, through others or through a command; knowing it; getting in."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import paramiko

from . import sftp_known_hosts as known_hosts
from .errors import BackendConnectionError, BackendError, PermissionDenied
from .sftp_config import Host
from .sftp_keys import Keys
from .tcp import keep_alive

logger = logging.getLogger(__name__)

# What paramiko has to say of a connection that breaks reaches the caller as an error.
logging.getLogger(f"{__name__}.transport").setLevel(logging.CRITICAL)

_FIRST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Twice as fast as those that paramiko would rather have: the cipher is the hash, too."""

_FAREWELL = 5.0


@dataclass(frozen=True)
class Credentials:
    """What a place was told beside ssh's settings; none of the secrets is in its repr."""

    key_files: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Patience:
    """Seconds: to connect, without an answer, between two signs of life."""

    connect: float = 30.0
    answer: float = 120.0
    alive: float = 30.0


class Connection:
    """An SSH connection to the last of some hosts, each reached through the one before."""

    def __init__(
        self, hosts: Sequence[Host], credentials: Credentials, patience: Patience, server: str
    ) -> None:
        """Connect and log in.

        Raises:
            BackendConnectionError: a host cannot be reached or does not speak SSH.
            HostKeyRefused: a host is not known by the key that it shows.
            PermissionDenied: a host lets nobody in by what there is.
        """
        self.server = server
        self._patience = patience
        self._transports: list[_Transport] = []
        self._command: _CommandEnd | None = None
        try:
            for host in hosts:
                self._reach(host, credentials if host is hosts[-1] else _for_a_hop(credentials))
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether sessions can still be opened."""
        return bool(self._transports) and self._transports[-1].is_active()

    @property
    def says(self) -> str:
        """What the server calls itself: `SSH-2.0-OpenSSH_9.2p1`."""
        return self._transports[-1].remote_version

    def open_channel(self) -> paramiko.Channel:
        """Return a new channel with the SFTP subsystem running.

        Raises:
            BackendConnectionError: the server, or what is left of the connection, gives none.
                `retryable` is False where the server has no SFTP at all.
        """
        channel = None
        try:
            channel = self._transports[-1].open_session(timeout=self._patience.connect)
            channel.settimeout(self._patience.connect)
            channel.event = _Within(self._patience.connect)
            channel.invoke_subsystem("sftp")
        except paramiko.ChannelException as error:
            raise BackendConnectionError(
                f"{self.server}: no further session: {error.text}"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            if channel is not None:
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    channel.close()
            if channel is not None and self.alive and isinstance(error, paramiko.SSHException):
                raise BackendConnectionError(
                    f"{self.server}: it has no SFTP, or not for this user ({error})",
                    retryable=False,
                ) from error
            raise BackendConnectionError(
                f"{self.server}: the connection broke: {_reason(error)}"
            ) from error
        return channel

    def close(self) -> None:
        """End it, with its threads and processes. Idempotent."""
        while self._transports:
            transport = self._transports.pop()
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                # Its thread waits for the socket alone, a tenth of a second at a time.
                transport.sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                transport.close()
                transport.sock.close()  # paramiko leaves it open where its thread had ended before
            if transport.is_alive() and transport is not threading.current_thread():
                transport.join(_FAREWELL)
        if self._command is not None:
            self._command.close()
            self._command = None

    def abandon(self) -> None:
        """Let go of what a forked process inherited, without a word to the server: the connection
        is its parent's."""
        for transport in self._transports[:1]:
            with contextlib.suppress(OSError):
                transport.sock.close()
        self._transports = []
        self._command = None

    # -- reaching one host

    def _reach(self, host: Host, credentials: Credentials) -> None:
        timeout = min(self._patience.connect, host.connect_timeout or self._patience.connect)
        sock = self._socket(host, timeout)
        try:
            transport = _Transport(sock)
        except (paramiko.SSHException, OSError, EOFError) as error:
            sock.close()
            raise self._unreached(host, error) from error
        self._transports.append(transport)
        transport.set_log_channel(f"{__name__}.transport")
        transport.daemon = True
        transport.banner_timeout = transport.auth_timeout = timeout
        transport.handshake_timeout = timeout
        options = transport.get_security_options()
        options.ciphers = _first(_FIRST_CIPHERS, options.ciphers)
        known = known_hosts.known_keys(host.known_hosts, host.key_name)
        options.key_types = _first(_signatures(known), options.key_types)
        if host.compression:
            transport.use_compression(True)
        try:
            transport.start_client(timeout=timeout)
            presented = transport.get_remote_server_key()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._unreached(host, error) from error
        self._know(host, presented, known)
        self._log_in(transport, host, credentials, known)
        transport.set_keepalive(int(host.alive_interval or self._patience.alive))

    def _socket(self, host: Host, timeout: float) -> socket.socket | paramiko.Channel:
        if self._transports:
            try:
                return self._transports[-1].open_channel(
                    "direct-tcpip", (host.hostname, host.port), ("127.0.0.1", 0), timeout=timeout
                )
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise self._unreached(host, error) from error
        try:
            if host.proxy_command is not None:
                self._command = _CommandEnd(host.proxy_command)
                return self._command.sock
            sock = socket.create_connection((host.hostname, host.port), timeout)
        except OSError as error:
            raise self._unreached(host, error) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unheard = self._patience.answer
        if host.alive_interval is not None:
            unheard = min(unheard, host.alive_interval * host.alive_count)
        keep_alive(sock, unheard=unheard)
        return sock

    def _unreached(self, host: Host, error: Exception) -> BackendError:
        said = ""
        if self._command is not None:
            said = f"; ProxyCommand said: {self._command.said()}" if self._command.said() else ""
        through = f" through {len(self._transports) - 1} other hosts" * (len(self._transports) > 1)
        if isinstance(error, socket.gaierror):
            return BackendConnectionError(
                f"{self.server}: there is no host {host.hostname!r}: {error.strerror}"
            )
        if isinstance(error, paramiko.ChannelException):
            return BackendConnectionError(
                f"{self.server}: {host.address} cannot be reached from the host before it: "
                f"{error.text}"
            )
        return BackendConnectionError(
            f"{self.server}: {host.address} cannot be reached{through}: {_reason(error)}{said}"
        )

    def _know(
        self, host: Host, presented: paramiko.PKey, known: Sequence[known_hosts.KnownKey]
    ) -> None:
        where = host.known_hosts[0] if host.known_hosts else "a file of known hosts"
        try:
            new = known_hosts.check(
                presented, known, name=host.key_name, where=where, strict=host.strict
            )
        except known_hosts.HostKeyRefused as error:
            raise known_hosts.HostKeyRefused(f"{self.server}: {error}") from None
        if new:
            logger.warning(
                "%s: %s was unknown; its host key %s is taken, as StrictHostKeyChecking says",
                self.server,
                host.key_name,
                known_hosts.fingerprint(presented.asbytes()),
            )
            if host.known_hosts:
                known_hosts.note(
                    presented, name=host.key_name, file=where, hashed=host.hash_known_hosts
                )

    # -- getting in

    def _log_in(
        self,
        transport: _Transport,
        host: Host,
        credentials: Credentials,
        known: Sequence[known_hosts.KnownKey],
    ) -> None:
        tried: list[str] = []
        keys = Keys(host, credentials.key_files, credentials.passphrase)
        password = credentials.password
        if password is not None and known:
            presented = transport.get_remote_server_key().asbytes()
            if not any(key.key == presented for key in known):
                password = None  # a changed key was let through: it gets no password
        try:
            with keys:
                methods = self._with_keys(transport, host, keys, tried)
            if methods is None:
                return
            if password is not None and (not methods or set(methods) & _BY_PASSWORD):
                tried.append("the password")
                if not transport.auth_password(host.user, password):
                    return
        except paramiko.BadAuthenticationType as error:
            if not transport.has_answered:
                raise self._lost(transport, host, tried, error) from error
            methods = error.allowed_types
        except (paramiko.SSHException, OSError, EOFError) as error:
            refused = isinstance(error, paramiko.AuthenticationException)
            if not refused or not transport.has_answered:
                raise self._lost(transport, host, tried, error) from error
            methods = None
        except PermissionDenied as error:
            raise PermissionDenied(f"{self.server}: {error}") from None
        methods = self._wanted(transport, host) or methods
        if transport.is_authenticated():
            return  # a server that asks for nothing
        takes = f"; it takes {', '.join(methods)}" if methods else ""
        left_out = f"; not tried: {'; '.join(keys.left_out)}" if keys.left_out else ""
        raise PermissionDenied(
            f"{self.server}: {host.address} does not let {host.user!r} in by "
            f"{', '.join(tried) or 'nothing (there is no key and no password)'}{takes}{left_out}"
        )

    def _lost(
        self, transport: _Transport, host: Host, tried: Sequence[str], error: Exception
    ) -> BackendError:
        """Return the error for a login of which the server did not tell how it ended."""
        keys = f"after {len(tried)} keys" if len(tried) > 1 else "after a key"
        hint = "name the right one by key_file, or by IdentityFile with IdentitiesOnly"
        if _NO_MORE_TRIES.search(transport.farewell):
            return PermissionDenied(f"{self.server}: {host.address} broke off {keys}; {hint}")
        if not isinstance(error, paramiko.AuthenticationException):
            return self._unreached(host, error)
        what = "ended" if not transport.is_active() else "fell silent"
        often = f" {keys}: if it always does, {hint}" if len(tried) > 1 else ""
        return BackendConnectionError(
            f"{self.server}: the connection to {host.address} {what} in the middle of the login"
            f"{often}"
        )

    @staticmethod
    def _wanted(transport: _Transport, host: Host) -> list[str] | None:
        """Return by what the server lets users in, where it tells."""
        try:
            transport.auth_none(host.user)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except (paramiko.SSHException, OSError, EOFError):
            return None
        return None

    def _with_keys(
        self, transport: _Transport, host: Host, keys: Keys, tried: list[str]
    ) -> list[str] | None:
        """Try the keys; return what else the server takes, None when somebody was let in."""
        methods: list[str] = []
        for called, key in keys:
            tried.append(called)
            try:
                methods = list(transport.auth_publickey(host.user, key))
            except paramiko.BadAuthenticationType as error:
                return error.allowed_types
            except paramiko.AuthenticationException:
                if not transport.has_answered:
                    raise
                continue
            if not methods:
                return None
            return methods  # the key was right, and something is wanted beside it
        return methods


class _Transport(paramiko.Transport):
    """One that knows why a login failed: paramiko calls it a refusal, too, when the connection ends
    or nothing comes.

    Attributes:
        farewell: what the server said when it ended the connection.
    """

    farewell = ""

    @property
    def has_answered(self) -> bool:
        """Whether the last attempt to log in was answered, on a connection that is still there."""
        handler = self.auth_handler
        event = handler.auth_event if handler is not None else None
        return self.is_active() and event is not None and event.is_set()

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.farewell = m.get_text()


class _Within(threading.Event):
    """An event for which nobody waits for ever, as paramiko does for the answer to a request in a
    channel.

    Args:
        seconds: after which waiting ends with a TimeoutError.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def wait(self, timeout: float | None = None) -> bool:
        if super().wait(self._seconds if timeout is None else timeout):
            return True
        if timeout is None:
            raise TimeoutError
        return False


_NO_MORE_TRIES = re.compile("auth", re.IGNORECASE)
"""What a server says when it was shown too many keys; RFC 4253 has a code for that, which nobody
sends."""

_BY_PASSWORD = frozenset({"password", "keyboard-interactive"})


def _for_a_hop(credentials: Credentials) -> Credentials:
    """What other hosts on the way may know: the passphrase opens files of ours, the password and
    the key are the target's."""
    return Credentials(passphrase=credentials.passphrase)


def _first(wanted: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    """Return what is offered, with what is wanted first."""
    before = [each for each in wanted if each in offered]
    return (*before, *(each for each in offered if each not in before))


def _signatures(known: Sequence[known_hosts.KnownKey]) -> list[str]:
    """Return how hosts sign with the keys they are known by, so that they show one of those."""
    rsa = ["rsa-sha2-512", "rsa-sha2-256"]
    found: list[str] = []
    for key in known:
        if not key.revoked:
            found += rsa if key.kind == "ssh-rsa" else [key.kind]
    return list(dict.fromkeys(found))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, EOFError):
        return str(error) or "it closed the connection"
    return str(error) or type(error).__name__


class _CommandEnd:
    """The socket of a command that stands between us and a host."""

    def __init__(self, command: str) -> None:
        self.sock, theirs = socket.socketpair()
        self._said = b""
        try:
            with theirs:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {command}"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
        except BaseException:
            self.sock.close()
            raise
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._said = (self._said + line)[-1000:]
                logger.debug("ProxyCommand: %s", line.decode(errors="replace").rstrip())

    def said(self) -> str:
        """Return what it last wrote to its standard error, on one line."""
        self._listener.join(0.2)
        return " ".join(self._said.decode(errors="replace").split())

    def close(self) -> None:
        self.sock.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(_FAREWELL)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._listener.join(_FAREWELL)
