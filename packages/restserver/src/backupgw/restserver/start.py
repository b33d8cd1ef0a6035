"""From settings to a running server: what is checked once, what each worker builds, what a person
is told."""

from __future__ import annotations

import cProfile
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Ledger
from backupgw.kvstore.registry import open_place
from backupgw.runtime.auth import BasicAuthenticator, Htpasswd
from backupgw.runtime.http.listeners import FIRST_ACTIVATED, Tcp, parse_address
from backupgw.runtime.http.reload import on_reload
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_auth import AuthSettings
from backupgw.runtime.threads import Threads

from . import quota
from .access import Access
from .app import RestApp
from .settings import RestSettings

log = logging.getLogger(__name__)

HTPASSWD = ".htpasswd"


@dataclass(frozen=True)
class _Identification:
    """How clients are told apart: by a password file, by a proxy's header, or not at all."""

    htpasswd: Path | None
    user_header: bytes | None


def prepare(settings: Settings) -> str:
    """Check what can only be checked here, make a missing folder, say how to use the server.

    Raises:
        SettingsError: the server would be open to strangers, or its users cannot be told apart.
        BackendError: the place cannot be used.
    """
    rest = settings.section("rest", RestSettings)
    if settings.section("auth", AuthSettings).rule:
        raise settings.mistake(
            "restic's server does not ask these rules yet, and would let through what they deny; "
            "use private_repos and append_only in [rest], and remove the rules",
            "auth",
            "rule",
        )
    who = _identification(settings)
    backend = _backend(settings)
    try:
        backend.open()
    except BackendDoesNotExist:
        backend.create()
        backend.open()
    try:
        links = list(backend.unlisted_links()) if isinstance(backend, PosixFS) else []
    finally:
        backend.close()
    if rest.max_size:
        quota.begin(_limited(settings, backend), rest.max_size)
    for name, target in links:
        log.warning(
            "%s is a symbolic link to %s and is not followed; to serve it, add the target to "
            "follow in [places.%s]",
            name,
            target,
            rest.place,
        )
    return _instructions(settings, who)


def build(settings: Settings) -> Running:
    """Return the application, with its place open; called in each worker."""
    rest = settings.section("rest", RestSettings)
    who = _identification(settings)
    authenticator = None
    if who.htpasswd is not None:
        authenticator = BasicAuthenticator(Htpasswd(who.htpasswd))
        on_reload(authenticator.reload)
    access = Access(
        authenticator,
        user_header=who.user_header,
        private=rest.private_repos,
        append_only=rest.append_only,
    )
    backend = _backend(settings)
    ledger = None
    if rest.max_size:
        backend = _limited(settings, backend)
        ledger = backend.ledger
        ledger.open()
    backend.open()
    threads = Threads(rest.threads, "rest")
    counters = None
    if rest.metrics:
        # Imported late: prometheus_client must see the environment of a worker first.
        from prometheus_client import REGISTRY

        from .counters import BlobCounters

        counters = BlobCounters(REGISTRY)
    app = RestApp(backend, access, threads, counters, verify=rest.verify_upload)
    return Running(app, backend, ledger, threads, authenticator, rest.cpu_profile)


class Running:
    """The application with what it holds while it runs: the ASGI callable of a worker."""

    def __init__(
        self,
        app: RestApp,
        backend: Backend,
        ledger: Ledger | None,
        threads: Threads,
        authenticator: BasicAuthenticator | None,
        profile: Path | None,
    ) -> None:
        self._app = app
        self._backend = backend
        self._ledger = ledger
        self._threads = threads
        self._authenticator = authenticator
        self._profile = profile
        self.ready = app.ready
        self.metrics_allowed = app.metrics_allowed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or follow the life of the worker."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        profiler = cProfile.Profile() if self._profile is not None else None
        await receive()
        if profiler is not None:
            profiler.enable()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if profiler is not None and self._profile is not None:
            profiler.disable()
            profiler.dump_stats(self._profile)
        self._threads.close()
        self._backend.close()
        if self._ledger is not None:
            self._ledger.close()
        if self._authenticator is not None:
            self._authenticator.close()
        await send({"type": "lifespan.shutdown.complete"})


def _backend(settings: Settings) -> Backend:
    rest = settings.section("rest", RestSettings)
    place = settings.places[rest.place]
    options = dict(place.options())
    if rest.group_accessible_repos and place.url.startswith("file:"):
        options |= {"file_mode": 0o660, "folder_mode": 0o770}
    return open_place(place.url, **options)


def _limited(settings: Settings, backend: Backend) -> QuotaLayer:
    """Return the place with the limit of --max-size in front of it."""
    rest = settings.section("rest", RestSettings)
    try:
        path = quota.ledger_path(place_folder(settings), rest.ledger)
    except ValueError as error:
        raise settings.mistake(f"{error}; set ledger in [rest]", "rest", "max_size") from error
    except OSError as error:
        raise settings.mistake(
            f"the accounts cannot be kept beside the repositories ({error.strerror}); "
            "set ledger in [rest] to a file elsewhere",
            "rest",
            "max_size",
        ) from error
    return quota.limited(backend, path)


def place_folder(settings: Settings) -> Path | None:
    """Return the folder of a place on local disk."""
    url = settings.places[settings.section("rest", RestSettings).place].url
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None


def _identification(settings: Settings) -> _Identification:
    rest = settings.section("rest", RestSettings)
    if rest.no_auth:
        if rest.private_repos:
            raise settings.mistake(
                "private repositories need users; remove --no-auth or --private-repos",
                "rest",
                "private_repos",
            )
        return _Identification(None, None)
    if rest.proxy_auth_username is not None:
        return _Identification(None, rest.proxy_auth_username.lower().encode())
    folder = place_folder(settings)
    path = rest.htpasswd_file or (folder / HTPASSWD if folder is not None else None)
    # A link that leads nowhere just now is meant to be a password file, too.
    if path is not None and (rest.htpasswd_file is not None or os.path.lexists(path)):
        return _Identification(path, None)
    make = f"make one with: htpasswd -B -c {path or '/etc/backupgw/htpasswd'} USER"
    if path is None:
        make += " and name it with --htpasswd-file"
    if rest.private_repos:
        raise settings.mistake(
            f"private repositories need a password file; {make}", "rest", "private_repos"
        )
    if strangers := _open_to_strangers(rest):
        raise settings.mistake(
            f"{strangers} can be reached by others, and there is no password file; {make}; "
            "or listen on 127.0.0.1, or use --no-auth to let everybody in",
            "rest",
            "listen",
        )
    return _Identification(None, None)


def _open_to_strangers(rest: RestSettings) -> str | None:
    """Return the first address to listen on that is not this machine's alone."""
    handed_over = _activated_addresses()
    for address in handed_over if handed_over is not None else rest.listen:
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


def _instructions(settings: Settings, who: _Identification) -> str:
    """Return the restic commands to try, with the password handling that they need."""
    rest = settings.section("rest", RestSettings)
    address = rest.listen[0]
    scheme = "https" if rest.tls else "http"
    owner = "USER/" if rest.private_repos else ""
    if address.startswith("unix:"):
        url = f"rest:http+unix://{address.removeprefix('unix:')}:/{owner}my-machine/"
    else:
        host = address if not address.startswith(":") else f"THIS-MACHINE{address}"
        url = f"rest:{scheme}://{host}/{owner}my-machine/"
    folder = place_folder(settings)
    lines = [
        f"Serving restic repositories in {folder or settings.places[rest.place].url}.",
        "In another terminal, line by line or all at once:",
        "",
        "    # The password that encrypts the backups; whoever loses it has lost them.",
        "    test -e ~/.restic-password ||"
        " (umask 077; head -c 24 /dev/urandom | base64 > ~/.restic-password)",
        "    export RESTIC_PASSWORD_FILE=~/.restic-password",
        f"    export RESTIC_REPOSITORY={url}",
    ]
    if who.htpasswd is not None:
        lines += [
            f"    export RESTIC_REST_USERNAME=USER       # one of the users in {who.htpasswd}",
            "    export RESTIC_REST_PASSWORD=PASSWORD   # and what htpasswd was told",
        ]
    if rest.tls:
        lines.append(f"    export RESTIC_CACERT={rest.tls_cert}   # unless an authority signed it")
    lines += [
        "    restic init",
        "    restic backup /usr/share/doc",
        "    restic snapshots",
        "    restic check --read-data",
        "    restic restore latest --target /tmp/restored",
        "",
    ]
    if who.htpasswd is None and who.user_header is None:
        lines.append("There is no password file: whoever can connect can read and delete.")
    return "\n".join(lines)
