"""What a node is: the section [wings] and the Wings file put together, and what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers import peers
from tests.servers.refused_start import refused_start

from backupgw.runtime.restic import launcher
from backupgw.runtime.settings import Settings, SettingsError, load
from backupgw.wingsadapter.node import Node, ResticPlan, node_of, restic_plan

pytestmark = pytest.mark.peers(peers.RESTIC_OLD, peers.RESTIC_NEW)

SERVER = "8d1b1a25-1b4e-4f6a-9e0f-2b8f4c0a7d11"


def settings_of(
    folder: Path, wings: str = "", restic: str = "", file: dict[str, Any] | None = None
) -> Settings:
    data = folder / "volumes"
    data.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "uuid": "node-1",
        "token_id": "id",
        "token": "the-token",
        "remote": "https://panel.example.com/",
        "system": {"data": str(data), "user": {"uid": 7, "gid": 8}, **(file or {})},
    }
    path = folder / "config.yml"
    path.write_text(json.dumps(document))
    named = "" if "wings_file" in wings else f'wings_file = "{path}"'
    config = folder / "backupgw.toml"
    binary = "" if "binary" in restic else f'binary = "{peers.get(peers.RESTIC_NEW).path}"'
    config.write_text(
        f"""
        [wings]
        {named}
        {wings}
        [wings.restic]
        {binary}
        {restic}
        """
    )
    return load(config, environ={}, serving=())


def planned(settings: Settings, folder: Path) -> tuple[Node, ResticPlan | None]:
    node = node_of(settings)
    return node, restic_plan(settings, node, folder / "state")


def test_the_wings_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "volumes").symlink_to("real")
    node, plan = planned(settings_of(tmp_path), tmp_path)
    assert (node.uuid, node.token_id, node.token) == ("node-1", "id", "the-token")
    assert node.panel == "https://panel.example.com"
    assert node.data == tmp_path / "real"  # snapshots have the path behind the link
    assert "the-token" not in repr(node)
    assert plan is not None
    assert (plan.place, plan.address, plan.upload) == ("default", None, None)


def test_the_section_wins(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    wings = f"""
        token = "mine"
        panel = ""
        node = "other"
        owner = [1, 2]
        data = "{tmp_path}/other"
    """
    node, _ = planned(settings_of(tmp_path, wings), tmp_path)
    assert (node.token, node.panel, node.uuid, node.owner) == ("mine", None, "other", (1, 2))
    assert node.data == tmp_path / "other"


def test_the_restic_block_is_taken_over(tmp_path: Path) -> None:
    block = {
        "enabled": True, "repository": "s3:s3.example.com/bucket", "password": "secret-password",
        "aws_access_key_id": "AKIA", "aws_secret_access_key": "wJalr", "aws_region": "eu",
    }  # fmt: skip
    file = {"backups": {"write_limit": 5, "restic": block}}
    _, plan = planned(settings_of(tmp_path, file=file), tmp_path)
    assert plan is not None
    assert (plan.address, plan.place) == ("s3:s3.example.com/bucket", None)
    assert plan.password is not None
    assert plan.password.reveal() == "secret-password"
    assert plan.environment == {
        "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "wJalr", "AWS_DEFAULT_REGION": "eu",
    }  # fmt: skip
    assert plan.upload == 5 << 20
    for secret in ("secret-password", "wJalr"):
        assert secret not in repr(plan)
    block["enabled"] = False
    assert planned(settings_of(tmp_path, file=file), tmp_path)[1] is None


@pytest.mark.parametrize(
    ("wings", "restic", "why"),
    [
        ('wings_file = ""', "", "token and token_id for this node are missing"),
        ('data = "/nowhere/volumes"', "", "the folder of the servers, is not there"),
        ('panel = "panel.example.com"', "", "is no address; write one such as https://"),
        ("", 'place = "games"', r"there is no \[places\.games\]"),
        ("", 'repository = "/srv/r"', "the repository's password is missing"),
        ("", 'binary = "/nowhere/restic"', "there is no /nowhere/restic; install restic"),
        ("", f'binary = "{peers.FOLDER}/restic-old/usr/bin/restic"\ncompression = "better"',
         r"restic 0\.14\.0 .* knows auto, off, max only"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(tmp_path: Path, wings: str, restic: str, why: str) -> None:
    settings = settings_of(tmp_path, wings, restic)
    with pytest.raises(SettingsError, match=why):
        planned(settings, tmp_path)


def test_a_kernel_that_cannot_confine_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "landlock_version", lambda: 0)
    with pytest.raises(SettingsError, match=r"no Landlock \(Linux 5\.13 .* set confine = false"):
        planned(settings_of(tmp_path), tmp_path)
    _, plan = planned(settings_of(tmp_path, restic="confine = false"), tmp_path)
    assert plan is not None
    assert not plan.confine


@pytest.mark.parametrize(
    ("wings", "restic"),
    [
        ("", 'repository = "/r"\nplace = "default"'),
        ("", 'folder = "../x"'),
        ("", 'environment = { RESTIC_PASSWORD = "x" }'),
        ("", 'environment = { "LD PRELOAD" = "x" }'),
        ("", 'passwords = { a = "x" }'),
        ("workers = 2", ""),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, wings: str, restic: str) -> None:
    with pytest.raises(SettingsError):
        settings_of(tmp_path, wings, restic)


@pytest.mark.parametrize(
    ("wings", "restic"),
    [
        ('token = { env = "NOT_THERE" }', ""),
        ("", 'password = { env = "NOT_THERE" }'),
        ("", 'repository = { env = "NOT_THERE" }\npassword = "a"'),
        ("", 'environment = { AWS_ACCESS_KEY_ID = { env = "NOT_THERE" } }'),
        ("", f'per_server = true\npasswords = {{ "{SERVER}" = {{ env = "NOT_THERE" }} }}'),
        (
            "",
            'place = "far"\n[places.far]\nurl = "s3://bucket/path"\naccess_key_id = "a"\n'
            'secret_access_key = { env = "NOT_THERE" }',
        ),
        (
            "",
            '[[events.hook]]\nname = "a"\nurl = "https://127.0.0.1/"\n'
            'secret = { env = "NOT_THERE" }',
        ),
    ],
    ids=["token", "password", "repository", "environment", "server's password", "place", "hook"],
)
def test_nothing_is_made_where_a_secret_is_missing(tmp_path: Path, wings: str, restic: str) -> None:
    settings_of(tmp_path, f'listen = ["127.0.0.1:0"]\npanel = ""\n{wings}', restic)
    config = tmp_path / "backupgw.toml"
    config.write_text(f'state.folder = "{tmp_path}/state"\n{config.read_text()}')
    before = sorted(tmp_path.rglob("*"))
    program = Path(sys.executable).parent / "backupgw"
    assert "NOT_THERE" in refused_start([program, "--config", config, "wings", "serve"], tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
