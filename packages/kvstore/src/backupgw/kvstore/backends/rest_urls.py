"""The URLs of a borgstore server, and how each is connected to."""

from __future__ import annotations

import re
import shlex
import shutil
import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from .errors import BackendURLInvalid
from .rest_dialing import Dial, TcpConnection, TlsConnection
from .rest_wire import BLOCK

SERVER_COMMAND = "borgstore-server-rest"
OUR_SERVER = ("backupgw", "borg", "serve")

OVER_COMMAND = "http://stdio-backend"
"""The URL of a server that is reached by a command, as borgstore's client has it."""

_LOGIN = re.compile(
    r"(?:(?P<user>[^@:/]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@\[\]]+)?(?::(?P<port>\d+))?\Z"
)
_PATH = re.compile(r"[!-~]*\Z")


class Destination(NamedTuple):
    """Where a server is: how to connect, its name in messages, the path of its store, and the
    (user, password) that the URL had."""

    dial: Dial
    server: str
    path: str = ""
    login: tuple[str, str] | None = None


def destination(url: str, cacert: str | None) -> Destination:
    """Understand `http(s)://[user:password@]host[:port][/path]`. Raises BackendURLInvalid."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BackendURLInvalid(f"the URL's host or port cannot be understood: {error}") from error
    if not host or parts.query or parts.fragment:
        raise BackendURLInvalid(
            f"a {parts.scheme} URL is {parts.scheme}://[user:password@]host[:port][/path]"
        )
    if not _PATH.match(parts.path):
        raise BackendURLInvalid(
            "the URL's path has a blank or a letter that is none of ASCII's; percent-encode it"
        )
    login = None
    if parts.username is not None:
        if parts.password is None:
            raise BackendURLInvalid("a user in the URL needs a password: user:password@host")
        login = unquote(parts.username), unquote(parts.password)
    shown = f"[{host}]" if ":" in host else host
    server = f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    if parts.scheme == "http":
        return Destination(
            lambda timeout: TcpConnection(host, port, timeout=timeout, blocksize=BLOCK),
            server,
            parts.path,
            login,
        )
    try:
        context = ssl.create_default_context(cafile=cacert)
    except OSError as error:
        raise BackendURLInvalid(f"cacert {cacert}: {error.strerror or error}") from error
    return Destination(
        lambda timeout: TlsConnection(
            host, port, timeout=timeout, context=context, blocksize=BLOCK
        ),
        server,
        parts.path,
        login,
    )


def command_of(rest: str, server_command: str, rsh: str | None) -> tuple[list[str], str]:
    """Return the command for what follows `rest:` in a URL, and what messages call the server.

    Raises:
        BackendURLInvalid: it is none.
    """
    where, slash, path = rest.removeprefix("//").partition("/")
    match = _LOGIN.match(where)
    if not rest.startswith("//") or not slash or not path or match is None:
        raise BackendURLInvalid("a rest URL is rest://[user@][host][:port]/path")
    name = f"rest://{where}/{path}"
    server = shlex.split(server_command)
    if match["host"] is None:
        if match["user"] or match["port"]:
            raise BackendURLInvalid("a rest URL with a user or a port needs a host")
        if server_command == SERVER_COMMAND and shutil.which(SERVER_COMMAND) is None:
            server = list(OUR_SERVER)  # the same, on a machine without borgstore
        return [*server, "--stdio", "--backend", f"FILE:{path}"], name
    host = match["host"].strip("[]")
    if host.startswith("-") or (match["user"] or "").startswith("-"):
        raise BackendURLInvalid("a rest URL's user and host must not start with '-'")
    command = remote_shell(match["user"], host, match["port"], rsh)
    # What ssh is given goes through the shell at the other end.
    words = [*server, "--stdio", "--backend", f"FILE:{path}"]
    return [*command, *map(shlex.quote, words)], name


def remote_shell(user: str | None, host: str, port: str | int | None, rsh: str | None) -> list[str]:
    """Return the command that runs another one on `host`: ssh, which notices a dead peer, or
    `rsh` with the options that it was given."""
    login = f"{user}@{host}" if user else host
    if rsh:
        return [*shlex.split(rsh), login]
    alive = ["-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=3"]
    return ["ssh", *alive, *(["-p", str(port)] if port else []), login]
