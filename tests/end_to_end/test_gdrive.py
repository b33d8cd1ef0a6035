"""restic through the server, with the repository in Google Drive."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end import cloud_place
from tests.end_to_end.gateway_on_place import served
from tests.servers import peers
from tests.servers.drive_double import DriveDouble
from tests.servers.restic import Restic


@pytest.fixture
def drive() -> Iterator[DriveDouble]:
    with DriveDouble() as drive:
        yield drive


@pytest.fixture
def client(drive: DriveDouble, tmp_path: Path) -> Iterator[Restic]:
    service = drive.service
    place = {
        "url": "gdrive:Backups/restic",
        "endpoint": drive.url,
        "client_id": service.client_id,
        "client_secret": {"env": "SECRET"},
        "refresh_token": {"env": "GRANT"},
        "timeout": 10,
    }
    secrets = {"GRANT": service.refresh_token, "SECRET": service.client_secret}
    with served(place, tmp_path, secrets) as repository:
        yield Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_repositorys_life_in_a_drive_that_fails(
    drive: DriveDouble, client: Restic, small_tree: Path, tmp_path: Path
) -> None:
    cloud_place.life_on_a_service_that_fails(
        drive, client, small_tree, tmp_path / "restored", rate=0.2
    )
    paths = [(file.parent, file.name) for file in drive.service.files.values()]
    assert len(paths) == len(set(paths)), "nothing is there twice"


@pytest.mark.soak  # restic asks again for most of a minute
@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_grant_that_is_withdrawn_in_mid_backup(
    drive: DriveDouble, client: Restic, small_tree: Path
) -> None:
    cloud_place.withdrawal_in_mid_backup(
        drive,
        client,
        small_tree,
        partial(setattr, drive.service, "revoked"),
        lambda call: call.path.startswith("/upload/"),
    )
