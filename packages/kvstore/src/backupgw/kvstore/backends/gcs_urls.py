"""URLs and options of places in Google Cloud Storage.

gs://bucket/path        Google's way; gcs: is the same
gs:bucket/path
gs:bucket:/path         restic's
"""

from __future__ import annotations

import os
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
    from .gcs import Gcs


_URL = re.compile(
    r"(?:gcs|gs):(?://)?(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9])"
    r"(?::?/(?P<path>.*))?\Z",
    re.DOTALL | re.IGNORECASE,
)
"""Buckets' names: https://cloud.google.com/storage/docs/buckets#naming"""


def from_url(
    url: str,
    *,
    service_account: str | None = None,
    anonymous: object = None,
    endpoint: str | None = None,
    project: str | None = None,
    location: str | None = None,
    storage_class: str | None = None,
    create_bucket: object = True,
    part_size: object = 4 * MIB,
    memory: object = None,
    connections: object = 32,
    timeout: object = 60,
    attempts: object = 6,
    deadline: object = "2 min",
    first_pause: object = "500 ms",
    on_call: object = None,
    cacert: str | None = None,
) -> Gcs:
    """Make the backend of a URL.

    Args:
        service_account: a service account's key, as JSON or the path of its file; without one,
            what Google's library finds: GOOGLE_APPLICATION_CREDENTIALS, gcloud's sign-in, the
            machine's own service account.
        anonymous: do not sign in; by default only at STORAGE_EMULATOR_HOST.
        endpoint: URL of the API; else the variable STORAGE_EMULATOR_HOST, else Google's.
        project: that a new bucket belongs to; else the service account's.
        location: where a new bucket lies; else Google's default.
        storage_class: of what is written; else the bucket's.
        create_bucket: whether `create` makes a bucket that is not there.
        part_size: bytes of one request of an upload: a multiple of 256 KiB.
        memory: bytes of parts that are held for all writers together.
        connections: that are kept.
        timeout: seconds without a byte after which a request failed.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        on_call: is told of each request (`api_calls`).
        cacert: file of the authorities that may sign the service's certificate.

    Raises:
        BackendURLInvalid: the URL or an option cannot be.
        BackendDoesNotExist: the library is not installed.
    """
    try:
        from .gcs import Gcs, Settings
        from .gcs_requests import SCOPE, call_name
        from .google_session import Login
    except ModuleNotFoundError as error:
        raise BackendDoesNotExist(
            "gcs: needs the library google-cloud-storage; pip install 'backupgw-kvstore[gcs]'"
        ) from error

    bucket, path = _location(url)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST") if endpoint is None else None
    if emulator and "://" not in emulator:
        emulator = f"http://{emulator}"
    chosen = endpoint or emulator
    try:
        part, held = upload_sizes(part_size, memory)
        nobody = service_account is None and emulator is not None
        login = Login(
            scopes=(SCOPE,),
            wire=wire(timeout, connections, cacert, on_call),
            service_account=service_account,
            anonymous=nobody if anonymous is None else options.flag("anonymous", anonymous),
            call_name=call_name,
        )
        if login.anonymous and service_account is not None:
            raise OptionInvalid("anonymous", "and service_account exclude each other")
        settings = Settings(
            bucket=bucket,
            path=path,
            login=login,
            endpoint=options.server("endpoint", chosen) if chosen else None,
            project=project,
            location=location,
            storage_class=storage_class,
            create_bucket=options.flag("create_bucket", create_bucket),
            part_size=part,
            memory=held,
            schedule=read_schedule(attempts, deadline, first_pause),
        )
    except OptionInvalid as error:
        raise BackendURLInvalid(f"gcs: {error}") from error
    return Gcs(settings)


def _location(url: str) -> tuple[str, str]:
    """Return bucket and path."""
    match = _URL.match(url)
    if match is None or "?" in url or "#" in url:
        raise BackendURLInvalid(
            "a place in Google Cloud Storage is written gs://BUCKET/PATH or gs:BUCKET:/PATH; "
            "options go beside it"
        )
    path = "/".join(part for part in unquote(match["path"] or "").split("/") if part)
    try:
        check_folder(path)
    except InvalidName as error:
        raise BackendURLInvalid(f"the path in the bucket: {error}") from error
    return match["bucket"], path
