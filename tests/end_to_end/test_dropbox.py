"""restic through the server, with the repository in Dropbox."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end import cloud_place
from tests.end_to_end.gateway_on_place import served
from tests.servers import peers
from tests.servers.dropbox_double import DropboxDouble
from tests.servers.restic import Restic


@pytest.fixture
def dropbox() -> Iterator[DropboxDouble]:
    with DropboxDouble() as dropbox:
        yield dropbox


@pytest.fixture
def client(dropbox: DropboxDouble, tmp_path: Path) -> Iterator[Restic]:
    place = {
        "url": "dropbox:Backups/restic",
        "endpoint": dropbox.url,
        "app_key": dropbox.service.app_key,
        "refresh_token": {"env": "GRANT"},
    }
    with served(place, tmp_path, {"GRANT": dropbox.service.refresh_token}) as repository:
        yield Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_repositorys_life_in_a_dropbox_that_fails(
    dropbox: DropboxDouble, client: Restic, small_tree: Path, tmp_path: Path
) -> None:
    cloud_place.life_on_a_service_that_fails(
        dropbox, client, small_tree, tmp_path / "restored", rate=0.1
    )


@pytest.mark.soak
@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_grant_that_is_withdrawn_in_mid_backup(
    dropbox: DropboxDouble, client: Restic, small_tree: Path
) -> None:
    cloud_place.withdrawal_in_mid_backup(
        dropbox,
        client,
        small_tree,
        partial(setattr, dropbox.service, "revoked"),
        lambda call: call.path.startswith("/2/files/upload"),
    )
