"""A borgstore server as a place: `http://`, `https://`, and `rest://` over ssh.

The server may be borgstore's own or ours (`backupgw borg serve`). Ours also keeps create-if-absent
atomic and carries every name; that it is ours it says in a header of each answer.

A request whose connection broke is repeated; a removal or a renaming that then finds nothing to do
had been done before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from http import HTTPStatus as Http
from typing import IO
from urllib.parse import quote, urlencode

from ..layers import options
from ..layers.options import OptionInvalid
from ..names import InvalidName, KernelPath, check_folder, check_path, is_plain, is_reserved
from . import rest_listing, rest_urls
from .base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from .errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from .rest_answers import (
    YES,
    ServerFailed,
    expect_ok,
    json_of,
    number,
    refuse,
    refuse_stranger,
    seconds,
)
from .rest_connections import AS_IT_IS, Connections
from .rest_dialing import CommandConnection
from .rest_incoming import Answer
from .rest_reading import Reads
from .rest_transfers import RestWriter
from .rest_wire import Body, lines_of

ACCEPT = "application/vnd.x.borgstore.rest.v1"
"""What every request must accept; borgstore's server answers nothing else."""

OURS = "X-Backupgw"
"""The header by which a server says that it keeps our additions to the protocol."""

IS_FOLDER = "X-BorgStore-Is-Directory"
"""The header of each answer that tells of an item or a folder."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

LONG = 3600.0
"""The same for what makes the server read or remove much before it answers."""

_KEPT_OVER_TCP = 32
_KEPT_COMMANDS = 8
"""A command is a login and the start of a program: more work than most of what it is asked for, so
those that work together are kept together."""
_PLAIN = "/!$&'()*+,;=:@-._~"
_UNRESERVED = re.compile(r"[A-Za-z0-9/._-]+\Z", re.ASCII)
"""Names that nobody needs to quote, as nearly all are."""


def from_url(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    cacert: str | None = None,
    timeout: object = TIMEOUT,
    reconnect_tries: object = 3,
    reconnect_wait: object = 5.0,
    server_command: str = rest_urls.SERVER_COMMAND,
    rsh: str | None = None,
) -> REST:
    """Make the backend of a URL.

    `http(s)://[user:password@]host[:port][/path]` is a server on the network;
    `rest://[user@][host][:port]/path` runs one over ssh, or on this machine without a host. That
    path is relative to the login's folder; an absolute one has two slashes before it.

    Args:
        username, password: for the server, where the URL has none.
        cacert: file of the authorities that may sign the server's certificate.
        timeout: seconds without a byte after which a connection counts as broken.
        reconnect_tries: how often a request is repeated then.
        reconnect_wait: seconds before each repetition.
        server_command: what runs a server at the other end of ssh; with the arguments
            `--stdio --backend FILE:PATH`.
        rsh: used instead of ssh, options included.

    Raises:
        BackendURLInvalid: the URL is none of these, or an option cannot be.
    """
    scheme, _, rest = url.partition(":")
    try:
        patience = options.duration("timeout", timeout, least=0.1)
        tries = options.count("reconnect_tries", reconnect_tries)
        wait = options.duration("reconnect_wait", reconnect_wait)
        authorities = None if cacert is None else options.readable("cacert", cacert)
    except OptionInvalid as error:
        raise BackendURLInvalid(f"{scheme.lower()}: {error}") from error
    command, server = None, None
    if scheme.lower() == "rest":
        command, server = rest_urls.command_of(rest, server_command, rsh)
        url = rest_urls.OVER_COMMAND
    return REST(
        url,
        username,
        password,
        timeout=patience,
        command=command,
        reconnect_tries=tries,
        reconnect_wait=wait,
        cacert=authorities,
        server=server,
    )


def get_rest_backend(base_url: str) -> REST | None:
    """Return the backend of a URL as borgstore's function of that name does: credentials and
    remote shell may come from BORGSTORE_* variables; None for other schemes."""
    if not base_url.startswith(("http:", "https:", "rest:")):
        return None
    set_there = environment()
    return from_url(
        base_url,
        username=set_there.get("username"),
        password=set_there.get("password"),
        rsh=set_there.get("rsh"),
    )


def ssh_cmd(user: str | None, host: str, port: str | int | None) -> list[str]:
    """Return the command that runs another one on `host`, as borgstore's function does."""
    return rest_urls.remote_shell(user, host, port, environment().get("rsh"))


def environment() -> dict[str, str]:
    """Return the options that borgstore's variables set."""
    names = {
        "BORGSTORE_REST_USERNAME": "username",
        "BORGSTORE_REST_PASSWORD": "password",
        "BORGSTORE_RSH": "rsh",
    }
    return {option: os.environ[name] for name, option in names.items() if os.environ.get(name)}


class REST(Backend):
    """The store of a borgstore server.

    Args:
        base_url: `http(s)://[user:password@]host[:port][/path]`.
        username, password: where the URL has none.
        headers: sent with every request, beside those that the protocol wants.
        timeout: seconds without a byte after which a connection counts as broken.
        command: runs a server that speaks on its standard streams; the URL then only names it.
        reconnect_tries, reconnect_wait: how often a request is repeated after its connection
            broke, and the seconds before each time.
        cacert: file of the authorities that may sign the server's certificate.
        server: what messages call it, default the URL without credentials.

    Raises:
        BackendURLInvalid: the URL is none.
    """

    def __init__(
        self,
        base_url: str,
        username: str | None = None,
        password: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        command: Sequence[str] | None = None,
        reconnect_tries: int = 3,
        reconnect_wait: float = 5.0,
        *,
        cacert: str | None = None,
        server: str | None = None,
    ) -> None:
        to = rest_urls.destination(base_url, cacert)
        username, password = to.login or (username, password)
        sent = {**(headers or {}), "Accept": ACCEPT}
        if username is not None and password is not None:
            credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
            sent["Authorization"] = f"Basic {credentials}"
        self.server = server or to.server
        self._base = to.path.rstrip("/")
        self._timeout = timeout
        self._tries = reconnect_tries
        self._over_tcp = command is None
        self._pool: Callable[[], Connections] = partial(
            Connections,
            self.server,
            to.dial if command is None else partial(CommandConnection, command),
            sent,
            idle=_KEPT_OVER_TCP if command is None else _KEPT_COMMANDS,
            tries=reconnect_tries,
            wait=reconnect_wait,
        )
        self._reads = Reads(self.server, self._get, self.info, reconnect_tries)
        self._connections: Connections | None = None
        self._ours = False
        self.capabilities = self._capabilities()

    def __repr__(self) -> str:
        return f"REST({self.server!r})"

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=self._ours,
            ranges=True,
            move=True,
            hash=True,
            mtime=True,
            parallel_lists=self._over_tcp,
            quota=True,
        )

    # -- the place itself

    def create(self) -> None:
        with self._while_closed() as connections:
            answer = self._ask(connections, "POST", "/", {"cmd": "create"}, timeout=LONG)
            if not (answer.repeated and answer.status == Http.CONFLICT):
                refuse(self.server, answer, "the store")
            answer.release()

    def destroy(self) -> None:
        with self._while_closed() as connections:
            answer = self._ask(connections, "DELETE", "/", {"cmd": "destroy"}, timeout=LONG)
            if not (answer.repeated and answer.status == Http.GONE):
                refuse(self.server, answer, "the store")
            answer.release()

    def _while_closed(self) -> closing[Connections]:
        if self._connections is not None:
            raise BackendMustNotBeOpen(self.server)
        return closing(self._pool())

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: the server has no store.
            BackendConnectionError: it does not answer.
            PermissionDenied: it does not know the user.
        """
        if self._connections is not None:
            raise BackendMustNotBeOpen(self.server)
        connections = self._pool()
        try:
            answer = self._ask(connections, "HEAD", "/")
            self._ours = answer.header(OURS) is not None
            missing = answer.status == Http.NOT_FOUND
            if missing:
                answer.release()
                raise BackendDoesNotExist(f"{self.server} has no store")
            if answer.status != Http.FORBIDDEN:  # a user who may list nothing may still write
                if self._ours and answer.status == Http.BAD_REQUEST:
                    answer.release()
                    raise BackendError(f"{self.server} does not take the path of this address")
                refuse_stranger(self.server, answer, IS_FOLDER)
                expect_ok(self.server, answer, "the store", keep=True)
            answer.release()
        except BaseException:
            connections.close()
            raise
        self.capabilities = self._capabilities()
        self._connections = connections

    def close(self) -> None:
        connections, self._connections = self._open, None
        connections.close()

    @property
    def _open(self) -> Connections:
        if self._connections is None:
            raise BackendMustBeOpen(self.server)
        return self._connections

    def quota(self) -> Quota:
        answer = self._request("POST", "/", {"cmd": "quota"})
        expect_ok(self.server, answer, "quota", keep=True)
        found = json_of(answer, "quota")
        match found:
            case {"limit": int(limit), "usage": int(usage)}:
                return Quota(limit, usage)
        raise BackendError(f"{self.server}: its answer about the quota cannot be understood")

    # -- folders

    def mkdir(self, name: str) -> None:
        expect_ok(self.server, self._request("POST", self._path(name), {"cmd": "mkdir"}), name)

    def rmdir(self, name: str) -> None:
        answer = self._request("DELETE", self._path(name), {"cmd": "rmdir"}, timeout=LONG)
        expect_ok(self.server, answer, name, gone_is_done=True)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        path = f"{self._path(name)}/" if name else "/"
        return self._entries(self._open, path, name)

    def _entries(self, connections: Connections, path: str, name: str) -> Iterator[ItemInfo]:
        for left in reversed(range(self._tries + 1)):
            answer = self._ask(connections, "GET", path, timeout=LONG)
            self._expect(answer, name, folder=True)
            try:
                kept = rest_listing.take(answer)
            except BackendConnectionError:
                if not left:
                    raise
                continue
            except OSError as error:
                raise BackendError(
                    f"no room for a listing in this machine's temporary folder: {error.strerror}"
                ) from error
            yield from rest_listing.entries(kept, name)
            return

    # -- items

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        answer = self._request("HEAD", self._path(name) if name else "/")
        if answer.status == Http.NOT_FOUND:
            answer.release()
            return ItemInfo(name, exists=False, size=0, directory=False)
        expect_ok(self.server, answer, name)
        return ItemInfo(
            name,
            exists=True,
            size=number(answer.header("Content-Length")),
            directory=answer.header(IS_FOLDER) == "true",
            atime=seconds(answer.header("X-BorgStore-Atime")),
            mtime=seconds(answer.header("X-BorgStore-Mtime")),
        )

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        self._path(name)
        return self._reads.open(name, offset, size)

    def _get(self, name: str, wanted: str | None) -> Answer:
        lines = lines_of({"Range": wanted}) if wanted else ""
        answer = self._request("GET", self._path(name), lines=lines)
        self._expect(answer, name)
        return answer

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        self._path(name)
        _ = self._open
        send = partial(self._send, name, if_absent=if_absent)
        return RestWriter(name, send, size, expected_hash)

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        body = value if isinstance(value, bytes) else memoryview(value).cast("B")
        self._post(name, body, len(body), hashlib.sha256(body).hexdigest())

    def _send(self, name: str, body: IO[bytes], size: int, digest: str, *, if_absent: bool) -> None:
        if if_absent and not self._ours and self.info(name).exists:
            raise ObjectExists(name)
        self._post(name, body, size, digest, if_absent=if_absent)

    def _post(
        self, name: str, body: Body, size: int, digest: str, *, if_absent: bool = False
    ) -> None:
        lines = f"X-Content-hash-sha256: {digest}\r\n"
        if if_absent and self._ours:
            lines += "If-None-Match: *\r\n"
        target = self._base + self._path(name)
        for left in reversed(range(self._tries + 1)):
            answer = self._open.request(
                "POST", target, lines=lines, body=body, size=size, timeout=self._timeout
            )
            if answer.status in YES:
                answer.release()
                return
            if answer.status == Http.UNPROCESSABLE_ENTITY:
                said = answer.text()
                if not left:
                    raise ContentMismatch(f"{name}: damaged on the way: {said}")
                continue
            if answer.status == Http.CONFLICT and if_absent:
                said = answer.text()
                if answer.repeated and self._is_ours(name, size, digest):
                    return
                raise ObjectExists(name, said)
            refuse(self.server, answer, name)

    def _is_ours(self, name: str, size: int, digest: str) -> bool:
        """Whether what is there is what an earlier, broken request has stored."""
        return self.info(name).size == size and self.hash(name) == digest

    def delete(self, name: str) -> None:
        answer = self._request("DELETE", self._path(name))
        self._expect(answer, name, gone_is_done=True)
        answer.release()

    def move(self, name: str, new_name: str) -> None:
        query = {"cmd": "move", "current": _sendable(name), "new": _sendable(new_name)}
        answer = self._request("POST", "/", query)
        self._expect(answer, name, gone_is_done=True)
        answer.release()

    # -- what the server does by itself

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        query = {"cmd": "hash", "algorithm": algorithm}
        answer = self._request("POST", self._path(name), query, timeout=LONG)
        self._expect(answer, name)
        return answer.text()

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        body = json.dumps([[check_path(name), *rest] for name, *rest in sources]).encode()
        answer = self._request(
            "POST", "/", {"cmd": "gather"}, lines=AS_IT_IS, body=body, size=len(body)
        )
        expect_ok(self.server, answer, "gather", keep=True)
        return answer.read_all()

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        body = json.dumps([[check_path(name), *rest] for name, *rest in sources]).encode()
        query = {"cmd": "defrag", "target": check_path(target)}
        answer = self._request("POST", "/", query, body=body, size=len(body), timeout=LONG)
        expect_ok(self.server, answer, target)

    # -- requests

    def _expect(
        self, answer: Answer, name: str, *, folder: bool = False, gone_is_done: bool = False
    ) -> None:
        """Let an answer about an item (or `folder`) pass that says yes, unread; else raise.

        borgstore's server fails where a folder is asked for as an item, and the other way round.
        """
        try:
            expect_ok(self.server, answer, name, gone_is_done=gone_is_done, keep=True)
        except ServerFailed as error:
            if not self._ours:
                info = self.info(name)
                if not info.exists or info.directory != folder:
                    raise ObjectNotFound(name) from error
            raise

    def _path(self, name: str) -> str:
        if is_plain(name) or _UNRESERVED.match(_sendable(name)):
            return f"/{name}"
        quoted = quote(name, safe=_PLAIN)
        if quoted != name and self._connections is not None and not self._ours:
            raise InvalidName(f"this server does not unquote names, so it cannot keep {name!r}")
        return f"/{quoted}"

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        lines: str = "",
        body: Body | None = None,
        size: int = 0,
        timeout: float | None = None,
    ) -> Answer:
        return self._ask(
            self._open, method, path, query, lines=lines, body=body, size=size, timeout=timeout
        )

    def _ask(
        self,
        connections: Connections,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        lines: str = "",
        body: Body | None = None,
        size: int = 0,
        timeout: float | None = None,
    ) -> Answer:
        target = self._base + path
        if query:
            target += f"?{urlencode(query)}"
        return connections.request(
            method,
            target,
            lines=lines,
            body=body,
            size=size,
            timeout=timeout or self._timeout,
        )


def _sendable(name: str) -> str:
    """Return a name that a server would take.

    Raises:
        InvalidName: no place would.
        UnsupportedOperation: it is the kernel's own, and what a server keeps under such names is
            its own kernel's.
    """
    check_path(name)
    if isinstance(name, KernelPath) and any(map(is_reserved, name.split("/"))):
        raise UnsupportedOperation(f"a server keeps no {name!r} for its clients")
    return name
