"""URLs and options of places in Google Drive.

gdrive:FOLDER/FOLDER           in the account's own drive
gdrive://ID/FOLDER/FOLDER      in a shared drive, or in a folder, of that id
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import read_schedule
from ..names import InvalidName, check_folder
from .errors import BackendDoesNotExist, BackendURLInvalid
from .google_options import MIB, upload_sizes, wire

if TYPE_CHECKING:
    from .gdrive import Gdrive

_URL = re.compile(
    r"gdrive:(?://(?P<id>[A-Za-z0-9_-]+)(?:/|\Z))?(?P<path>[^/].*)?\Z", re.DOTALL | re.IGNORECASE
)

FILES, ALL = "drive.file", "drive"
"""Scopes: what the gateway itself has made, or all that the account sees."""


def from_url(
    url: str,
    *,
    refresh_token: str | None = None,
    client_id: str | None = None,
    client_secret: str | None = None,
    service_account: str | None = None,
    subject: str | None = None,
    scope: str | None = None,
    shared_drive: object = False,
    trash: object = False,
    part_size: object = 4 * MIB,
    memory: object = None,
    connections: object = 16,
    timeout: object = 60,
    attempts: object = 8,
    deadline: object = "3 min",
    first_pause: object = "500 ms",
    on_call: object = None,
    endpoint: str | None = None,
    cacert: str | None = None,
) -> Gdrive:
    """Make the backend of a URL.

    Args:
        refresh_token, client_id, client_secret: what `backupgw store auth` got, and the app.
        service_account: instead: a service account's key, as JSON or the path of its file.
        subject: whom the service account acts for.
        scope: "drive.file", what the gateway itself has made, or "drive", all; by default the
            first for a grant and the second for a service account.
        shared_drive: whether the id in the URL is that of a shared drive.
        trash: what is deleted goes to Drive's trash; else it is gone at once.
        part_size: bytes of one request of an upload: a multiple of 256 KiB.
        memory: bytes of parts that are held for all writers together.
        connections: that are kept.
        timeout: seconds without a byte after which a request failed.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        on_call: is told of each request (`api_calls`).
        endpoint: URL of a server that stands for all of Google's hosts.
        cacert: file of the authorities that may sign the servers' certificates.

    Raises:
        BackendURLInvalid: the URL or an option cannot be.
        BackendDoesNotExist: the library is not installed.
    """
    try:
        from .gdrive import Gdrive, Settings
        from .gdrive_calls import call_name
        from .gdrive_folders import OWN
        from .google_session import TOKEN_URI, Login
    except ModuleNotFoundError as error:
        raise BackendDoesNotExist(
            "gdrive: needs the library google-api-python-client; "
            "pip install 'backupgw-kvstore[gdrive]'"
        ) from error
    root, path = _location(url)
    _check_sign_in(refresh_token, client_id, client_secret, service_account, subject)
    try:
        endpoint = options.server("endpoint", endpoint) if endpoint else None
        if scope not in (None, FILES, ALL):
            raise OptionInvalid("scope", f'is "{FILES}" or "{ALL}", not {scope!r}')
        chosen = scope or (FILES if service_account is None else ALL)
        part, held = upload_sizes(part_size, memory)
        shared = options.flag("shared_drive", shared_drive)
        if shared and root is None:
            raise OptionInvalid("shared_drive", "needs the drive's id: gdrive://ID/FOLDER")
        login = Login(
            scopes=(f"https://www.googleapis.com/auth/{chosen}",),
            wire=wire(timeout, connections, cacert, on_call),
            service_account=service_account,
            subject=subject,
            refresh_token=refresh_token,
            client_id=client_id,
            client_secret=client_secret,
            token_uri=f"{endpoint}/token" if endpoint else TOKEN_URI,
            call_name=call_name,
        )
        settings = Settings(
            path=path,
            root=root or OWN,
            drive=root if shared else None,
            login=login,
            endpoint=endpoint,
            trash=options.flag("trash", trash),
            part_size=part,
            memory=held,
            schedule=read_schedule(attempts, deadline, first_pause),
        )
    except OptionInvalid as error:
        raise BackendURLInvalid(f"gdrive: {error}") from error
    return Gdrive(settings)


def _location(url: str) -> tuple[str | None, str]:
    """Return the id that the URL names, None for none, and the path."""
    match = _URL.match(url)
    if match is None or "?" in url or "#" in url:
        raise BackendURLInvalid(
            "a folder in Google Drive is written gdrive:FOLDER/FOLDER, or gdrive://ID/FOLDER in a "
            "shared drive or folder of that id; options go beside it"
        )
    path = unquote(match["path"] or "").strip("/")
    try:
        check_folder(path)
    except InvalidName as error:
        raise BackendURLInvalid(f"gdrive: the folder {error}") from error
    return match["id"], path


def _check_sign_in(
    refresh_token: str | None,
    client_id: str | None,
    client_secret: str | None,
    service_account: str | None,
    subject: str | None,
) -> None:
    if (refresh_token is None) == (service_account is None):
        raise BackendURLInvalid(
            "gdrive: needs the option refresh_token, which `backupgw store auth` gets, or "
            "service_account"
        )
    if refresh_token is not None and not (client_id and client_secret):
        missing = "client_secret" if client_id else "client_id"
        raise BackendURLInvalid(f"gdrive: needs the option {missing} beside refresh_token")
    if subject is not None and service_account is None:
        raise BackendURLInvalid("gdrive: subject goes with service_account")
