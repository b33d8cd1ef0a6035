"""Damage that a place mends by itself, as it stores what was uploaded again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.servers import peers
from tests.servers.s3 import RcloneS3

from backupgw.kvstore.registry import open_place
from backupgw.restserver.paths import parse
from backupgw.restserver.repositories import Outcome, Upload

CONTENT = b"what a client has"


@pytest.mark.peers(peers.RCLONE)
def test_a_mended_object_is_told_as_damaged_and_repaired(tmp_path: Path) -> None:
    target = parse(f"/repo/index/{hashlib.sha256(CONTENT).hexdigest()}".encode())
    assert target is not None
    with RcloneS3(tmp_path / "rclone") as server:
        place = open_place(server.url("bucket/place"))
        place.create()
        with place:
            outcomes = []
            for stored in (None, CONTENT, b"?" + CONTENT[1:]):
                if stored is not None:
                    place.store(target.name, stored)
                attempt = Upload(place, target, len(CONTENT), verify=True)
                outcomes.append((attempt.finish([CONTENT]), attempt.damaged))
                assert place.load(target.name) == CONTENT
    assert outcomes == [
        (Outcome.STORED, False),
        (Outcome.IDENTICAL, False),
        (Outcome.REPAIRED, True),
    ]
