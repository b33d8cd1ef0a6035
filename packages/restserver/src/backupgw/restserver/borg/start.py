"""From settings to a running server of borgstore's protocol."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist
from backupgw.kvstore.layers.permissions import PRESETS, PermissionsLayer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Limit, SQLiteLedger
from backupgw.runtime.auth import BasicAuthenticator, Htpasswd
from backupgw.runtime.http.reload import on_reload
from backupgw.runtime.settings import Settings
from backupgw.runtime.threads import Threads

from .. import quota
from ..access import Access
from ..identification import open_to_strangers
from .app import BorgApp
from .settings import BorgSettings
from .shelf import Shelf
from .single_user import SingleUser

_SCOPE = "store"
_LOCKS = "locks/"
"""Borg's namespace of locks. They always get through: without one nothing could be deleted."""


def prepare(settings: Settings) -> str:
    """Check what can only be checked here; say how to use the server.

    Raises:
        SettingsError: the server would be open to strangers, or its place cannot be used.
        CommandError: the password file or the password cannot be had.
    """
    borg = settings.section("borg", BorgSettings)
    if not _has_users(borg) and not borg.no_auth and (strange := open_to_strangers(borg.listen)):
        raise settings.mistake(
            f"{strange} can be reached by others, and there are no users; set htpasswd_file, or "
            "username and password; or listen on 127.0.0.1, or use --no-auth to let everybody in",
            "borg",
            "listen",
        )
    authenticator = _authenticator(borg)
    if authenticator is not None:
        authenticator.close()
    place = _place(settings)
    exists = True
    try:
        with place:
            pass
    except BackendDoesNotExist as error:
        if isinstance(error.__cause__, NotADirectoryError):
            raise settings.mistake(str(error), "places", borg.place, "url") from error
        exists = False
    if borg.quota and borg.ledger is None and _folder(settings) is None:
        raise settings.mistake(
            "a limit for this place needs a file for its accounts on a local disk; set ledger",
            "borg",
            "quota",
        )
    if borg.quota and exists:
        with ExitStack() as stack:
            _limited(settings, place, stack).reconcile()
    return _instructions(settings, borg)


def build(settings: Settings) -> Running:
    """Return the application; called in each worker."""
    borg = settings.section("borg", BorgSettings)
    authenticator = _authenticator(borg)
    if authenticator is not None:
        on_reload(authenticator.reload)
    threads = Threads(borg.threads, "borg")
    shelf = Shelf(partial(_bare, settings), partial(_open, settings), threads)
    app = BorgApp(shelf, Access(authenticator, place=borg.place), threads)
    return Running(app, shelf, threads, authenticator)


class Running:
    """The application with what it holds while it runs: the ASGI callable of a worker."""

    begins_without_task = True
    """See `backupgw.runtime.http.first_step`: the application waits for threads alone."""

    def __init__(
        self,
        app: BorgApp,
        shelf: Shelf,
        threads: Threads,
        authenticator: BasicAuthenticator | None,
    ) -> None:
        self._app = app
        self._shelf = shelf
        self._threads = threads
        self._authenticator = authenticator
        self.answer_nowait = app.answer_nowait
        self.ready = app.ready
        self.metrics_allowed = app.metrics_allowed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or follow the life of the worker."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._shelf.close()
        self._threads.close()
        if self._authenticator is not None:
            self._authenticator.close()
        await send({"type": "lifespan.shutdown.complete"})


def _has_users(borg: BorgSettings) -> bool:
    return borg.htpasswd_file is not None or borg.username is not None


def _authenticator(borg: BorgSettings) -> BasicAuthenticator | None:
    if borg.no_auth:
        return None
    if borg.username is not None and borg.password is not None:
        return BasicAuthenticator(SingleUser(borg.username, borg.password.reveal()))
    if borg.htpasswd_file is not None:
        return BasicAuthenticator(Htpasswd(borg.htpasswd_file))
    return None


def _place(settings: Settings) -> Backend:
    return settings.open_place(settings.section("borg", BorgSettings).place)


def _folder(settings: Settings) -> Path | None:
    url = settings.places[settings.section("borg", BorgSettings).place].url
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None


def _bare(settings: Settings) -> Backend:
    """Return what creates and destroys the store, as far as its permissions go."""
    return _permitted(settings, _place(settings))


def _permitted(settings: Settings, backend: Backend) -> Backend:
    permissions = settings.section("borg", BorgSettings).permissions
    if permissions is None:
        return backend
    rules = PRESETS[permissions] if isinstance(permissions, str) else permissions
    return PermissionsLayer(backend, rules)


def _open(settings: Settings, stack: ExitStack) -> Backend:
    backend = _place(settings)
    if settings.section("borg", BorgSettings).quota:
        limited = _limited(settings, backend, stack)
        return _permitted(settings, limited)
    stack.enter_context(backend)
    return _permitted(settings, backend)


def _limited(settings: Settings, backend: Backend, stack: ExitStack) -> QuotaLayer:
    """Open the place with the limit in front of it.

    Raises:
        BackendDoesNotExist: there is no store yet, and no ledger is made beside it.
    """
    borg = settings.section("borg", BorgSettings)
    with backend:
        path = quota.ledger_path(_folder(settings), borg.ledger)
    ledger = SQLiteLedger(str(path))
    ledger.open()
    stack.callback(ledger.close)
    ledger.set_limit(_SCOPE, Limit(hard_bytes=borg.quota))
    layer = QuotaLayer(
        backend,
        ledger,
        scopes=lambda _name: (_SCOPE,),
        exempt=lambda name: name.startswith(_LOCKS),
        total=_SCOPE,
    )
    return stack.enter_context(layer)


def _instructions(settings: Settings, borg: BorgSettings) -> str:
    address = borg.listen[0]
    folder = _folder(settings)
    shown = folder or settings.places[borg.place].url
    login = "USER:PASSWORD@" if _has_users(borg) and not borg.no_auth else ""
    scheme = "https" if borg.tls else "http"
    lines = [f"Serving the store in {shown} to borgstore's clients."]
    if not address.startswith("unix:"):
        lines += [
            "With Borg 2, in another terminal:",
            "",
            f"    export BORG_REPO={scheme}://{login}{address}/",
            "    borg repo-create --encryption aes256-ocb",
            "    borg create docs /usr/share/doc",
            "    borg check --verify-data",
            "",
        ]
    if not login:
        lines.append("There are no users: whoever can connect can read and delete.")
    return "\n".join(lines)
