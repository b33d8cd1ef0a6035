"""ssh's own settings for a host: who, where, by which keys, through which other hosts.

The files are read as ssh reads them (ssh_config(5)): the user's before the system's, the first
value obtained wins. paramiko understands them; what it does not know, `Include` and the forms of
values, is here.
"""

from __future__ import annotations

import getpass
import glob
import io
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import paramiko

from .errors import BackendError

USER_FILE = "~/.ssh/config"
SYSTEM_FILE = "/etc/ssh/ssh_config"
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_USER_KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_KNOWN = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_MOST_HOPS = 8
_INCLUDES_DEEP = 16

_LINE = re.compile(r"\s*(?P<word>\w+)(?:\s*=\s*|\s+)(?P<rest>.*\S)\s*\Z")
_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?/?\Z"
)


@dataclass(frozen=True)
class Host:
    """What is needed to reach one host and to get in.

    Attributes:
        alias: the name by which it was asked for.
        key_name: under which its key stands in the files of known hosts, with its port unless it
            was given by HostKeyAlias.
        named_keys: files of private keys that were asked for; those of `default_keys` are tried
            where there are none, and may be missing.
        agent: path of the agent's socket, None for no agent.
        strict: "yes" refuses unknown keys, "accept-new" notes them, "no" takes any.
        jumps: the hosts to go through, the first to be connected to first.
    """

    alias: str
    hostname: str
    port: int
    user: str
    key_name: str
    named_keys: tuple[str, ...]
    certificates: tuple[str, ...]
    default_keys: tuple[str, ...]
    identities_only: bool
    agent: str | None
    known_hosts: tuple[str, ...]
    hash_known_hosts: bool
    strict: str
    alive_interval: float | None
    alive_count: int
    connect_timeout: float | None
    compression: bool
    proxy_command: str | None
    jumps: tuple[str, ...]

    @property
    def address(self) -> str:
        """Host and port for messages."""
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{host}:{self.port}"


class Settings:
    """The settings that a place's connections follow.

    Args:
        files: read in this order; those that are missing say nothing.

    Raises:
        BackendError: (by all methods) a file cannot be read or understood; it is named.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._config = paramiko.SSHConfig()
        for path in files:
            base = os.path.dirname(path) if path != os.path.expanduser(USER_FILE) else "~/.ssh"
            text = "\n".join(_lines(path, os.path.expanduser(base), _INCLUDES_DEEP))
            try:
                self._config.parse(io.StringIO(text))
            except (paramiko.SSHException, ValueError) as error:
                raise BackendError(
                    f"{path}: ssh's settings cannot be understood: {error}"
                ) from error

    def host(self, alias: str, *, user: str | None = None, port: int | None = None) -> Host:
        """Return what is said of a host; `user` and `port` win over it."""
        try:
            said = self._config.lookup(alias)
        except (paramiko.SSHException, ImportError, ValueError, OSError) as error:
            raise BackendError(f"ssh's settings for {alias}: {error}") from error
        get = said.get
        hostname = get("hostname", alias)
        try:
            number = port or int(get("port", 22))
            alive = float(get("serveraliveinterval", 0)) or None
            alive_count = int(get("serveralivecountmax", 3))
            connect = float(get("connecttimeout", 0)) or None
        except ValueError as error:
            raise BackendError(f"ssh's settings for {alias}: {error}") from error
        login = user or get("user") or getpass.getuser()
        fill = _tokens(alias, hostname, number, login)
        key_alias = get("hostkeyalias")
        keys = [fill(path) for path in said.get("identityfile", ())]
        command = get("proxycommand")
        jumps = get("proxyjump") or "none"
        return Host(
            alias=alias,
            hostname=hostname,
            port=number,
            user=login,
            key_name=key_alias or (hostname if number == 22 else f"[{hostname}]:{number}"),
            named_keys=tuple(path for path in keys if path != "none"),
            certificates=tuple(fill(path) for path in _words(get("certificatefile"))),
            default_keys=() if "none" in keys else tuple(map(os.path.expanduser, _DEFAULT_KEYS)),
            identities_only=_yes(get("identitiesonly")),
            agent=_agent(get("identityagent"), fill),
            known_hosts=(
                *_known(get("userknownhostsfile"), _USER_KNOWN, fill),
                *_known(get("globalknownhostsfile"), _SYSTEM_KNOWN, fill),
            ),
            hash_known_hosts=_yes(get("hashknownhosts")),
            strict=_strictness(get("stricthostkeychecking", "ask")),
            alive_interval=alive,
            alive_count=alive_count,
            connect_timeout=connect,
            compression=_yes(get("compression")),
            proxy_command=None if command in (None, "none") else command,
            jumps=() if jumps == "none" else tuple(hop.strip() for hop in jumps.split(",")),
        )

    def route(self, target: Host) -> list[Host]:
        """Return the hosts to connect to one through the other; the last is the target.

        The first hop's own settings say how that is reached; those of the others are left aside,
        as ssh does it.
        """
        hops: list[Host] = []
        rest = target
        while rest.jumps:
            if len(hops) + len(rest.jumps) > _MOST_HOPS:
                raise BackendError(f"ssh's settings for {target.alias}: ProxyJump goes in a circle")
            first, *others = [self._hop(target, written) for written in rest.jumps]
            hops[:0] = [first, *(replace(hop, jumps=(), proxy_command=None) for hop in others)]
            rest = first
        return [*hops, target]

    def _hop(self, target: Host, written: str) -> Host:
        match = _HOP.match(written)
        if match is None:
            raise BackendError(
                f"ssh's settings for {target.alias}: ProxyJump {written!r} is no [user@]host[:port]"
            )
        port = int(match["port"]) if match["port"] else None
        return self.host(match["host"].strip("[]"), user=match["user"], port=port)


def _lines(path: str, base: str, deep: int) -> Iterator[str]:
    """Yield a file's lines with those of the files it includes in their place."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror}") from error
    block = "Host *"
    for line in lines:
        match = _LINE.match(line)
        word = match["word"].lower() if match else ""
        if match is None or word != "include":
            if match is not None and word in ("host", "match"):
                block = line
            yield line
            continue
        if not deep:
            raise BackendError(f"{path}: Include goes in a circle")
        for pattern in _words(match["rest"]):
            for found in sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern)))):
                yield from _lines(found, base, deep - 1)
        yield block  # what follows belongs to the block that the Include stands in


def _words(value: str | None) -> list[str]:
    if value is None:
        return []
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()


def _tokens(alias: str, hostname: str, port: int, user: str) -> Callable[[str], str]:
    """Return what puts facts in the place of the tokens of ssh_config(5) in a path."""
    values = {
        "%%": "%",
        "%d": os.path.expanduser("~"),
        "%h": hostname,
        "%i": str(os.getuid()),
        "%n": alias,
        "%p": str(port),
        "%r": user,
        "%u": getpass.getuser(),
    }

    def fill(path: str) -> str:
        return os.path.expanduser(re.sub(r"%.", lambda m: values.get(m[0], m[0]), path))

    return fill


def _known(
    value: str | None, default: Sequence[str], fill: Callable[[str], str]
) -> tuple[str, ...]:
    paths = default if value is None else _words(value)
    return tuple(fill(path) for path in paths if path != "none")


def _agent(value: str | None, fill: Callable[[str], str]) -> str | None:
    """Return the agent's socket. Where it is, is told by the environment, as ssh has it."""
    if value is None or value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}")) or None
    return None if value == "none" else fill(value)


def _yes(value: str | None) -> bool:
    return value is not None and value.lower() in ("yes", "true")


def _strictness(value: str) -> str:
    """Nobody can be asked here: what is to be asked about is refused."""
    value = value.lower()
    if value in ("no", "off", "false"):
        return "no"
    return "accept-new" if value == "accept-new" else "yes"
