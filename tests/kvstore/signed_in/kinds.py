"""Places on services that are signed in to, each on a double of its service's API: what differs
among them where their tests are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.conftest import SOAK
from tests.servers.double import Double
from tests.servers.drive_double import DriveDouble
from tests.servers.dropbox_double import DropboxDouble
from tests.servers.gcs_double import GcsDouble

from backupgw.kvstore.backends.entry_items import KNOWN
from backupgw.kvstore.conformance import checks

CHECKS = [each for each in checks if SOAK or each.name != "listing.list_streams"]
"""That one wants more entries than a few pages of a listing have."""

Change = Callable[[Any, str, Sequence[str]], None]


@dataclass(frozen=True)
class Kind:
    """A kind of place.

    Attributes:
        double: makes a double of its service.
        url: of a place, before the name of the place's folder.
        part: bytes of one request of an upload.
        way_back: what an error names when the service lets nobody in any more.
        secret: what no error shows, of the options by which a place signs in.
        usual: how the service behaves where no test has it otherwise.
        fill: puts empty items into a folder of the double, past the backend.
        clear: removes them.
        scale, remembers: as `Subject` has them.
    """

    name: str
    double: Callable[[], Double]
    url: str
    part: int
    way_back: str
    secret: Callable[[Mapping[str, Any]], str]
    usual: Mapping[str, object]
    fill: Change = field(repr=False)
    clear: Change = field(repr=False)
    scale: float
    remembers: int = 0

    def __str__(self) -> str:
        return self.name


def of(*kinds: Kind) -> pytest.MarkDecorator:
    """Mark a test that is one of these kinds alone."""
    return pytest.mark.parametrize("kind", kinds, indirect=True, ids=str)


def _fill_bucket(double: GcsDouble, path: str, names: Sequence[str]) -> None:
    bucket = double.service.buckets["the-bucket"]
    for name in names:
        double.service._make(bucket, f"{path}/{name}", b"", {}, "STANDARD")


def _clear_bucket(double: GcsDouble, path: str, names: Sequence[str]) -> None:
    for name in names:
        double.service.buckets["the-bucket"].remove(f"{path}/{name}")


GCS = Kind(
    "gcs",
    GcsDouble,
    "gs://the-bucket/",
    part=2 << 20,
    way_back="service_account",
    secret=lambda options: "PRIVATE",
    usual={"revoked": False, "denied": set(), "persists": None, "rewritten": None, "damages": 0},
    fill=_fill_bucket,
    clear=_clear_bucket,
    scale=0.1,
)


def _fill_dropbox(double: DropboxDouble, path: str, names: Sequence[str]) -> None:
    for name in names:
        double.service._upload({"path": f"/{path}/{name}", "mode": "add"}, b"")


def _clear_dropbox(double: DropboxDouble, path: str, names: Sequence[str]) -> None:
    for name in names:
        double.service._delete({"path": f"/{path}/{name}"})


DROPBOX = Kind(
    "dropbox",
    DropboxDouble,
    "dropbox:",
    part=4 << 20,
    way_back="backupgw store auth",
    secret=lambda options: str(options["refresh_token"]),
    usual={"revoked": False, "busy": False, "room": 1 << 40},
    fill=_fill_dropbox,
    clear=_clear_dropbox,
    scale=0.3,
)


def _fill_drive(double: DriveDouble, path: str, names: Sequence[str]) -> None:
    folder = double.service.folder(path)
    for name in names:
        double.service._create({"name": name, "parents": [folder.id]}, b"")


def _clear_drive(double: DriveDouble, path: str, names: Sequence[str]) -> None:
    wanted, inside = {*names}, double.service.inside(double.service.folder(path))
    for file in [file for file in inside if file.name in wanted]:
        double.service._remove(file)


GDRIVE = Kind(
    "gdrive",
    DriveDouble,
    "gdrive:",
    part=1 << 20,
    way_back="backupgw store auth NAME",
    secret=lambda options: str(options["refresh_token"]),
    usual={
        "revoked": False,
        "limited": 0,
        "persists": None,
        "room": 1 << 40,
        "may_delete": True,
        "tells_hashes": False,
        "lag": 0.0,
    },
    fill=_fill_drive,
    clear=_clear_drive,
    scale=0.1,
    remembers=KNOWN,
)
