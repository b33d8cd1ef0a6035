"""By which keys a login is tried: the agent's, files', and their passphrase."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence

import paramiko
from paramiko.agent import AgentSSH

from .errors import PermissionDenied
from .sftp_config import Host

_KINDS: tuple[type[paramiko.PKey], ...] = (
    paramiko.Ed25519Key,
    paramiko.ECDSAKey,
    paramiko.RSAKey,
)
_CERTIFICATE = "-cert.pub"
_AGENT_PATIENCE = 10.0


class Keys:
    """The keys for a host, in the order in which ssh tries them. A context manager: the agent's
    keys work while it is open.

    Args:
        host: whose settings name the keys.
        files: keys that are used in their place.
        passphrase: of those files that need one.
    """

    def __init__(self, host: Host, files: Sequence[str], passphrase: str | None) -> None:
        self._host = host
        self._asked_for = files or host.named_keys
        self._passphrase = passphrase
        self._agent: _Agent | None = None
        self.left_out: list[str] = []
        """Why keys were not tried, for the message when nobody was let in."""

    def __enter__(self) -> Keys:
        path = self._host.agent
        if path is not None:
            try:
                self._agent = _Agent(path)
            except (OSError, paramiko.SSHException) as error:
                self.left_out.append(f"the agent at {path}: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._agent is not None:
            self._agent.close()

    def __iter__(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Yield (what it is called in messages, key).

        Raises:
            PermissionDenied: a file that was asked for is missing, locked or no key.
        """
        held = list(self._agent.get_keys()) if self._agent is not None else []
        wanted = {blob for path in self._asked_for if (blob := _public(path))}
        offered: set[bytes] = set()
        others = [] if self._host.identities_only else held
        for key in [*(key for key in held if key.asbytes() in wanted), *others]:
            if key.asbytes() not in offered:
                offered.add(key.asbytes())
                yield f"the agent's key {key.comment or key.get_name()}", key
        for path in self._asked_for:
            if _public(path) in offered:
                continue  # the agent's, which needs no passphrase
            yield f"key {path}", self._load(path)
        if not self._asked_for:
            for path in self._host.default_keys:
                if os.path.exists(path) and _public(path) not in offered:
                    with contextlib.suppress(PermissionDenied):
                        yield f"key {path}", self._load(path)

    def _load(self, path: str) -> paramiko.PKey:
        path = os.path.expanduser(path)
        problem = "is no private key of a kind that is known"
        for kind in _KINDS:
            try:
                key = kind.from_private_key_file(path, password=self._passphrase)
            except paramiko.PasswordRequiredException:
                problem = "needs a passphrase: give it by the option passphrase, or use an agent"
                break
            except FileNotFoundError:
                problem = "does not exist"
                break
            except OSError as error:
                problem = f"cannot be read: {error.strerror}"
                break
            except (paramiko.SSHException, ValueError, TypeError):
                if self._passphrase is not None and _is_private(path):
                    problem = "does not open with that passphrase, or is of an unknown kind"
                continue
            for certificate in (path + _CERTIFICATE, *self._host.certificates):
                if os.path.exists(certificate):
                    with contextlib.suppress(ValueError, paramiko.SSHException, OSError):
                        key.load_certificate(certificate)
            return key
        self.left_out.append(f"key {path} {problem}")
        raise PermissionDenied(f"key {path} {problem}") from None


class _Agent(AgentSSH):
    """The agent at a path; paramiko's own class knows one environment variable only."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_AGENT_PATIENCE)
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


def _is_private(path: str) -> bool:
    with open(path, "rb") as file:
        return b" PRIVATE KEY-----" in file.readline(200)


def _public(path: str) -> bytes | None:
    """Return the public half that lies beside a private key; the file may itself be one."""
    for candidate in (f"{path}.pub", path):
        try:
            with open(os.path.expanduser(candidate), encoding="utf-8", errors="replace") as file:
                words = file.readline(16384).split()
        except OSError:
            continue
        if len(words) >= 2 and words[0].startswith(("ssh-", "ecdsa-", "sk-")):
            with contextlib.suppress(ValueError):  # it is no public key
                return base64.b64decode(words[1])
    return None
