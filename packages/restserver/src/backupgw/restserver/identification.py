"""How clients are told apart: by a password file and tokens, by a proxy's header, by certificates
that they show, or not at all."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from backupgw.runtime.http.listeners import FIRST_ACTIVATED, Tcp, parse_address
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_tokens import TokenSettings
from backupgw.runtime.tokens import TokenAuthenticator, service_store

from .settings import RestSettings

if TYPE_CHECKING:
    from backupgw.runtime.tokens.signed import SignedTokens

HTPASSWD = ".htpasswd"


@dataclass(frozen=True)
class Identification:
    """How clients are told apart; not at all where nothing of it is set.

    Attributes:
        htpasswd: the password file.
        user_header: name of a proxy's header, lower case.
        certificates: the common names of client certificates are the users.
    """

    htpasswd: Path | None = None
    user_header: bytes | None = None
    certificates: bool = False


class Tokens:
    """The tokens that a worker takes, with what it has to close."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys of signed tokens; the store is opened when a token is shown.

        Raises:
            CommandError: a key cannot be had, or is not what its algorithm needs.
        """
        self._store = service_store(settings)
        self._signed: SignedTokens | None = None
        if settings.section("tokens", TokenSettings).key:
            # Imported late: what verifies signatures takes memory, and few need it.
            from backupgw.runtime.tokens import signed

            self._signed = signed.from_settings(settings, self._store)
        self.authenticator = TokenAuthenticator(self._store, self._signed)

    def rotate(self, settings: Settings) -> None:
        """Take the keys of other settings, from any thread.

        Raises:
            CommandError: a key cannot be had; those in use stay.
        """
        options = settings.section("tokens", TokenSettings)
        if self._signed is None and not options.key:
            return
        from backupgw.runtime.tokens import signed

        if self._signed is not None:
            self._signed.replace(signed.keys_of(settings), options)
            # What the old keys let in must be looked at again.
            self.authenticator.forget()
        elif (first := signed.from_settings(settings, self._store)) is not None:
            self._signed = first
            self.authenticator.take_signed(first)

    async def close(self) -> None:
        """Note what was used and let go of the store."""
        await self.authenticator.close()
        self._store.close()


def place_folder(settings: Settings) -> Path | None:
    """Return the folder of a place on local disk."""
    url = settings.places[settings.section("rest", RestSettings).place].url
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None


def identification(settings: Settings) -> Identification:
    """Return how the settings tell clients apart.

    Raises:
        SettingsError: the server would be open to strangers, or its users cannot be told apart.
    """
    rest = settings.section("rest", RestSettings)
    if rest.no_auth:
        if rest.private_repos:
            raise settings.mistake(
                "private repositories need users; remove --no-auth or --private-repos",
                "rest",
                "private_repos",
            )
        return Identification()
    if rest.proxy_auth_username is not None:
        return Identification(user_header=rest.proxy_auth_username.lower().encode())
    if rest.tls_client_users:
        return Identification(certificates=True)
    folder = place_folder(settings)
    path = rest.htpasswd_file or (folder / HTPASSWD if folder is not None else None)
    # A link that leads nowhere just now is meant to be a password file, too.
    if path is not None and (rest.htpasswd_file is not None or os.path.lexists(path)):
        return Identification(htpasswd=path)
    make = (
        "make one with: backupgw rest user add USER --htpasswd-file "
        f"{path or '/etc/backupgw/htpasswd'}"
    )
    if path is None:
        make += " and name it with --htpasswd-file"
    if rest.private_repos:
        raise settings.mistake(
            f"private repositories need a password file; {make}", "rest", "private_repos"
        )
    if strangers := open_to_strangers(rest.listen):
        raise settings.mistake(
            f"{strangers} can be reached by others, and there is no password file; {make}; "
            "or listen on 127.0.0.1, or use --no-auth to let everybody in",
            "rest",
            "listen",
        )
    return Identification()


def open_to_strangers(listen: Sequence[str]) -> str | None:
    """Return the first address to listen on that is not this machine's alone.

    Args:
        listen: what the settings say; sockets that systemd hands over take precedence.
    """
    handed_over = _activated_addresses()
    for address in handed_over if handed_over is not None else listen:
        parsed = parse_address(address)
        if isinstance(parsed, Tcp) and not _is_loopback(parsed.host):
            return address
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _activated_addresses() -> list[str] | None:
    """Return the TCP addresses of sockets that systemd hands over, None without any."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(os.environ.get("LISTEN_FDS", "0"))
    found = []
    for fd in range(FIRST_ACTIVATED, FIRST_ACTIVATED + count):
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.family != socket.AF_UNIX:
                host, port = sock.getsockname()[:2]
                found.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return found
