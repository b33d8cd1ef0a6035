"""Signing in to Dropbox, and `dropbox:` URLs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import read_schedule
from .api_calls import OnCall, hook
from .errors import BackendDoesNotExist, BackendURLInvalid

if TYPE_CHECKING:
    import dropbox
    import requests

    from .dropbox import Dropbox

MIB = 1 << 20
_BLOCK = 4 * MIB
_LARGEST_PART = 148 * MIB
"""The largest multiple of 4 MiB below the 150 MB that a request may have."""


@dataclass(frozen=True)
class Login:
    """How a place signs in. What is secret is never shown.

    Attributes:
        app_key, app_secret: of the app that was given the grant; the secret only where the app is
            no public one.
        refresh_token: the grant; access tokens, which live four hours, are had by it.
        access_token: instead of a refresh token, for a try.
        timeout: seconds without a byte after which a request failed.
        connections: kept open at most.
        endpoint: URL of a server that stands for all of Dropbox's hosts.
        cacert: file of the authorities that may sign the servers' certificates.
        on_call: is told of each request.
    """

    app_key: str | None = None
    app_secret: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    timeout: float = 100.0
    connections: int = 16
    endpoint: str | None = None
    cacert: str | None = None
    on_call: OnCall | None = field(default=None, repr=False)

    def client(self) -> dropbox.Dropbox:
        """Return a client of the library; it retries nothing by itself."""
        import dropbox

        return dropbox.Dropbox(
            oauth2_access_token=self.access_token,
            oauth2_refresh_token=self.refresh_token,
            app_key=self.app_key,
            app_secret=self.app_secret,
            max_retries_on_error=0,
            max_retries_on_rate_limit=0,
            timeout=self.timeout,
            session=self._session(),
        )

    def _session(self) -> requests.Session:
        from dropbox import create_session

        session: requests.Session = create_session(
            max_connections=self.connections, ca_certs=self.cacert
        )
        if self.endpoint is not None:
            from .redirected import redirect

            redirect(session, self.endpoint, self.connections)
        if self.cacert is not None:
            # Not as the session's own, before which REQUESTS_CA_BUNDLE would come.
            session.request = partial(session.request, verify=self.cacert)  # type: ignore[method-assign]
        if self.on_call is not None:
            session.request = _telling(session.request, self.on_call)  # type: ignore[method-assign]
        return session


def _telling(request: Callable[..., Any], on_call: OnCall) -> Callable[..., Any]:
    """Return `request` with a word on each: `/2/files/upload` is `files/upload`."""

    def told(method: str, url: str, *arguments: Any, **more: Any) -> Any:
        on_call(urlsplit(url).path.lstrip("/").removeprefix("2/"))
        return request(method, url, *arguments, **more)

    return told


def from_url(
    url: str,
    *,
    refresh_token: str | None = None,
    app_key: str | None = None,
    app_secret: str | None = None,
    access_token: str | None = None,
    part_size: object = 16 * MIB,
    timeout: object = 100,
    connections: object = 16,
    endpoint: str | None = None,
    cacert: str | None = None,
    attempts: object = 6,
    deadline: object = 90,
    first_pause: object = 0.5,
    on_call: object = None,
) -> Dropbox:
    """Make the backend of `dropbox:FOLDER`; `dropbox:` alone is all that the app may see.

    Args:
        refresh_token, app_key, app_secret: what `backupgw store auth` got.
        access_token: instead of these, for a try: it lives four hours.
        part_size: bytes of one request of an upload: a multiple of 4 MiB.
        timeout: seconds without a byte after which a request failed.
        connections: kept open at most.
        endpoint: URL of a server that stands for all of Dropbox's hosts.
        cacert: file of the authorities that may sign the servers' certificates.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        on_call: is told of each request (`api_calls`).

    Raises:
        BackendURLInvalid: the URL or an option is none.
        BackendDoesNotExist: the library is not installed.
    """
    try:
        from .dropbox import Dropbox
    except ModuleNotFoundError as error:
        raise BackendDoesNotExist(
            "dropbox: needs the library dropbox; pip install 'backupgw-kvstore[dropbox]'"
        ) from error
    parts = urlsplit(url)
    if parts.netloc or parts.query or parts.fragment:
        raise BackendURLInvalid("a folder in Dropbox is written dropbox:FOLDER/FOLDER")
    folder = unquote(parts.path).strip("/")
    if any(segment in ("", ".", "..") for segment in folder.split("/")) and folder:
        raise BackendURLInvalid("dropbox: the folder has an empty, '.' or '..' segment")
    if bool(refresh_token) == bool(access_token):
        raise BackendURLInvalid(
            "dropbox: needs the option refresh_token; `backupgw store auth` gets one"
        )
    if refresh_token and not app_key:
        raise BackendURLInvalid("dropbox: needs the option app_key beside refresh_token")
    try:
        part = options.size("part_size", part_size)
        if part % _BLOCK or not _BLOCK <= part <= _LARGEST_PART:
            raise OptionInvalid("part_size", "must be a multiple of 4 MiB up to 148 MiB")
        schedule = read_schedule(attempts, deadline, first_pause)
        login = Login(
            app_key=app_key,
            app_secret=app_secret,
            refresh_token=refresh_token,
            access_token=access_token,
            timeout=options.duration("timeout", timeout, least=1),
            connections=options.count("connections", connections, least=1),
            endpoint=options.server("endpoint", endpoint) if endpoint else None,
            cacert=None if cacert is None else options.readable("cacert", cacert),
            on_call=hook(on_call),
        )
    except OptionInvalid as error:
        raise BackendURLInvalid(f"dropbox: {error}") from error
    return Dropbox(f"/{folder}" if folder else "", login, part_size=part, schedule=schedule)
