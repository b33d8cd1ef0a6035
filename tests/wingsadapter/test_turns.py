"""Who makes a repository that several nodes share, by the kind of place that it is in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers import peers

from backupgw.runtime.restic import (
    PlaceTurn,
    Repository,
    RepositoryMissing,
    Restic,
    ensure_repository,
    find_program,
)
from backupgw.wingsadapter.repositories import Held
from backupgw.wingsadapter.turns import NoTurn, turn_of


@pytest.mark.parametrize(
    ("address", "environment"),
    [
        ("/srv/repository", {}),
        ("local:/srv/repository", {}),
        (
            "s3:s3.example.com/bucket/path",
            {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
        ),
        ("s3:http://localhost:9000/bucket", {"AWS_DEFAULT_REGION": "eu"}),
        ("b2:bucket:a/path", {"B2_ACCOUNT_ID": "0" * 25, "B2_ACCOUNT_KEY": "K" * 31}),
        ("gs:bucket:/path", {}),
        ("rclone:remote:path", {}),
        ("sftp:user@host:/srv/repository", {}),
        ("sftp:user@host:repository", {}),
        ("sftp://user@host:2222//srv/repository", {}),
    ],
)
def test_a_claim_is_made_where_the_kernel_reaches(
    address: str, environment: dict[str, str]
) -> None:
    assert isinstance(turn_of(address, environment), PlaceTurn)


@pytest.mark.parametrize(
    "address", ["azure:container:/", "swift:container:/", "rest:https://host/", "b2:bucket:path"]
)
def test_elsewhere_it_is_told_that_none_can_be(address: str) -> None:
    with pytest.raises(NoTurn, match=r"at once|no claim can be made"):
        turn_of(address, {})


@pytest.mark.peers(peers.RESTIC_NEW, peers.RCLONE)
def test_nothing_is_made_without_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "repository"
    restic = Restic(
        find_program(str(peers.get(peers.RESTIC_NEW).path)), Repository(str(folder), "a password")
    )
    held = Held("", restic, [], "nobody can say whose turn it is")
    with pytest.raises(RepositoryMissing, match="nobody can say whose turn it is"):
        held.ensure(None)
    assert not folder.exists()
    # By a claim that rclone takes to a place where several could create one.
    monkeypatch.setattr("backupgw.runtime.restic.init.SETTLE", 3.0)
    monkeypatch.setenv("RCLONE_BINARY", str(peers.get(peers.RCLONE).path))
    assert ensure_repository(restic, [turn_of(f"rclone:{folder}", {})])
    assert not list(folder.glob("backupgw-init*"))
    held.ensure(None)
    assert held.made
