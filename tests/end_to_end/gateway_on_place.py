"""`backupgw rest serve` with its repositories in a place of the settings, for restic to use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.end_to_end import tree
from tests.servers.gateway import Gateway
from tests.servers.process import ServerProcess
from tests.servers.restic import Restic


@contextlib.contextmanager
def served(place: Mapping[str, str], folder: Path, secrets: Mapping[str, str]) -> Iterator[str]:
    """Run the server; yields restic's name of a repository.

    Args:
        place: options of the place, the URL among them, as TOML values.
        folder: where the settings go.
        secrets: environment variables; at the end nothing printed may hold one of their values.
    """
    settings = folder / "backupgw.toml"
    options = "".join(f"{name} = {value}\n" for name, value in place.items())
    settings.write_text(f'[places.cloud]\n{options}[rest]\nplace = "cloud"\n')
    command = [*Gateway.program(), "--config", str(settings)]
    command += ["--listen", "127.0.0.1:0", "--no-auth"]
    with ServerProcess(
        command, ready=r"start server on (\S+)", environment=secrets, directory=folder
    ) as server:
        yield f"rest:http://{server.match[1]}/mine/"
        assert not [name for name, value in secrets.items() if value in server.output]


def sound(client: Restic, wanted: dict[bytes, tree.Entry], target: Path) -> None:
    """The repository is whole, and gives the tree back."""
    client.run("check", "--read-data")
    client.run("restore", "latest", "--target", target)
    assert tree.differences(wanted, tree.describe(target)) == []
    tree.remove(target)
