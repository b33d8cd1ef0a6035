"""restic through the server, with the repository in Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end import cloud_place
from tests.end_to_end.gateway_on_place import served
from tests.servers import peers
from tests.servers.gcs_double import Bucket, GcsDouble
from tests.servers.restic import Restic


@pytest.fixture
def gcs() -> Iterator[GcsDouble]:
    with GcsDouble() as gcs:
        gcs.service.buckets["the-bucket"] = Bucket()
        yield gcs


@pytest.fixture
def client(gcs: GcsDouble, tmp_path: Path) -> Iterator[Restic]:
    place = {
        "url": "gs://the-bucket/restic",
        "endpoint": gcs.url,
        "service_account": {"env": "KEY"},
        "timeout": 10,
    }
    with served(place, tmp_path, {"KEY": gcs.service.account(gcs.url)}) as repository:
        yield Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_repositorys_life_in_a_bucket_that_fails(
    gcs: GcsDouble, client: Restic, small_tree: Path, tmp_path: Path
) -> None:
    cloud_place.life_on_a_service_that_fails(
        gcs, client, small_tree, tmp_path / "restored", rate=0.2
    )


@pytest.mark.soak  # restic asks again for most of a minute
@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_key_that_is_withdrawn_in_mid_backup(
    gcs: GcsDouble, client: Restic, small_tree: Path
) -> None:
    cloud_place.withdrawal_in_mid_backup(
        gcs,
        client,
        small_tree,
        partial(setattr, gcs.service, "revoked"),
        lambda call: call.path.startswith("/upload/"),
    )
