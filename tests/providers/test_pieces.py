"""Large files are fetched by several connections at a time, and are one value all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backupgw.providers import PlaceProvider, create
from tests.providers.provider_places import running

SIZE = (20 << 20) + 7


@pytest.mark.parametrize(
    "kind",
    [
        "local",
        pytest.param("aws_s3", marks=pytest.mark.peers("rclone")),
        pytest.param("sftp", marks=pytest.mark.root("sshd")),
        "backblaze",
    ],
)
def test_pieces_make_the_whole(kind: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(SIZE))
    told: list[int] = []
    with running(kind, tmp_path) as provider:
        assert provider.upload(source, "large")
        provider.calls.take()
        provider.transfers.piece = 3 << 20
        assert provider.download("large", back, lambda done, _: told.append(done))
        counts = provider.calls.take()
    assert back.read_bytes() == source.read_bytes()
    assert told == sorted(told)
    assert told[-1] == SIZE
    if kind == "aws_s3":
        assert counts["GetObject"] == 7


@pytest.mark.peers("rclone")
def test_pieces_of_two_values_are_never_joined(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(SIZE))
    back.write_bytes(b"before")
    with running("aws_s3", tmp_path, max_bandwidth=6_000_000) as provider:
        provider.transfers.piece = 1 << 20
        other = create("aws_s3", {**provider.config, "max_bandwidth": None})
        assert isinstance(other, PlaceProvider)
        assert other.upload(source, "large")
        later = os.urandom(SIZE)
        replaced: list[bool] = []

        def replace(done: int, _: int) -> None:
            if done and not replaced:
                replaced.append(True)
                other.open().store("large", later)

        assert provider.download("large", back, replace) is False
        assert "replaced" in str(provider.last_error)
        other.close()
    assert back.read_bytes() == b"before"
