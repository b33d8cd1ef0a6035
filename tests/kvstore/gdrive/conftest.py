"""A double of Google Drive, and a fresh place on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.kvstore.gdrive.places import PART, keys
from tests.kvstore.told_doubles import change
from tests.servers.double_process import DoubleProcess
from tests.servers.drive_double import DriveDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend


@pytest.fixture(scope="package")
def double() -> Iterator[DoubleProcess[DriveDouble]]:
    with DoubleProcess(DriveDouble) as double:
        yield double


@pytest.fixture(scope="package")
def options(double: DoubleProcess[DriveDouble]) -> dict[str, Any]:
    return {"endpoint": double.url, "part_size": PART, **double.tell(keys)._asdict()}


@pytest.fixture
def place(
    double: DoubleProcess[DriveDouble], options: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[Backend]:
    """A fresh place on a service that works."""
    place = open_place(f"gdrive:{request.node.name[:60]}", **options)
    place.create()
    with place:
        yield place
        double.fail()
        double.tell(
            change,
            revoked=False,
            limited=0,
            persists=None,
            room=1 << 40,
            may_delete=True,
            tells_hashes=False,
            lag=0.0,
        )
