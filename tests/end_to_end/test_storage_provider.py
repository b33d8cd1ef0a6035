"""restic on a storage that was written for pyrestserver."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from pathlib import Path

import httpx
import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.process import ServerProcess
from tests.servers.restic import Restic

FLAT = "provider:tests.restserver.pyrestserver_provider:FlatProvider"


@pytest.mark.peers(peers.RESTIC_NEW)
def test_restic_on_a_provider_that_knows_nothing_of_us(small_tree: Path, tmp_path: Path) -> None:
    settings = tmp_path / "backupgw.toml"
    settings.write_text(
        f'[places.theirs]\nurl = "{FLAT}"\nfolder = "{tmp_path / "flat"}"\n'
        '[rest]\nplace = "theirs"\n'
    )
    command = [*Gateway.program(), "--config", str(settings), "--no-auth"]
    with ServerProcess(
        [*command, "--listen", "127.0.0.1:0"],
        ready=r"start server on (\S+)",
        environment={"PYTHONPATH": str(Path(__file__).parents[2])},
        directory=tmp_path,
    ) as server:
        repository = f"rest:http://{server.match[1]}/mine/"
        client = Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")
        client.init_there()
        client.run("backup", ".", directory=small_tree)
        (small_tree / "more").write_bytes(bytes(range(256)) * 5000)
        client.run("backup", ".", directory=small_tree)
        client.run("forget", "--keep-last", "1", "--prune")
        client.run("check", "--read-data")
        client.run("restore", "latest", "--target", tmp_path / "restored")
    wanted, got = tree.describe(small_tree), tree.describe(tmp_path / "restored")
    assert tree.differences(wanted, got) == []


def test_the_worked_example_of_the_documents(tmp_path: Path) -> None:
    """The package on the page is installed as it stands there, named and served."""
    page = Path(__file__).parents[2].joinpath("docs", "pyrestserver.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    project = tomllib.loads(page.split("```toml\n")[1].split("```")[0])["project"]
    site = tmp_path / "site"
    (site / "backupgw_pickle").mkdir(parents=True)
    (site / "backupgw_pickle" / "__init__.py").write_text(code)
    # What pip makes of the project's table.
    installed = site / f"backupgw_pickle-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    ((group, entries),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    environment = {
        "PYTHONPATH": str(site),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    program = Gateway.program()[0]
    added = subprocess.run(
        [program, "config", "add", "mine", "--type", "pickle", "--url", f"pickle:{tmp_path}/one"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert added.returncode == 0, added.stderr
    command = [*Gateway.program(), "--backend-config", "mine", "--no-auth"]
    value = b"a pack"
    name = hashlib.sha256(value).hexdigest()
    with ServerProcess(
        [*command, "--listen", "127.0.0.1:0"],
        ready=r"start server on (\S+)",
        environment=environment,
        directory=tmp_path,
    ) as server:
        url = f"http://{server.match[1]}/laptop"
        with httpx.Client() as client:
            assert client.post(f"{url}/?create=true").status_code == 200
            assert client.post(f"{url}/config", content=b"config").status_code == 200
            assert client.post(f"{url}/config", content=b"other").status_code == 403
            assert client.post(f"{url}/data/{name}", content=value).status_code == 200
            assert client.post(f"{url}/data/{'0' * 64}", content=value).status_code == 400
            assert client.get(f"{url}/data/{name}").content == value
            assert client.get(f"{url}/data/").json() == [name]
            assert client.delete(f"{url}/data/{name}").status_code == 200
            assert client.get(f"{url}/data/{name}").status_code == 404
            assert client.get(f"{url}/config").content == b"config"
