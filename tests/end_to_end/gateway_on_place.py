"""`backupgw rest serve` with its repositories in a place of the settings, for restic to use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.end_to_end import tree
from tests.servers.place_gateway import PlaceGateway
from tests.servers.restic import Restic


@contextlib.contextmanager
def served(place: Mapping[str, object], folder: Path, secrets: Mapping[str, str]) -> Iterator[str]:
    """Run the server; yields restic's name of a repository.

    Args:
        place: as `PlaceGateway` has it.
        folder: where the settings go.
        secrets: environment variables; at the end nothing printed may hold one of their values.
    """
    with PlaceGateway(folder, place, environment=secrets) as server:
        yield server.repository("mine")
        said = server.process.output
    assert not [name for name, value in secrets.items() if value in said]


def sound(client: Restic, wanted: dict[bytes, tree.Entry], target: Path) -> None:
    """The repository is whole, and gives the tree back."""
    client.run("check", "--read-data")
    client.run("restore", "latest", "--target", target)
    assert tree.differences(wanted, tree.describe(target)) == []
    tree.remove(target)
