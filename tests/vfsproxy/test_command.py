"""`backupgw vfs …` as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.vfs_gateway import VfsGateway

from backupgw.runtime.cli import main


class Shell:
    """Runs commands against a gateway's settings."""

    def __init__(self, gateway: VfsGateway, capsys: pytest.CaptureFixture[str]) -> None:
        self.gateway = gateway
        self._capsys = capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        self._capsys.readouterr()
        found = main(["--config", str(self.gateway.config), "vfs", *words])
        out, err = self._capsys.readouterr()
        assert found == status, err
        assert "Traceback" not in err
        return out if status == 0 else err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def shell(gateway: VfsGateway, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(gateway, capsys)


def test_a_key_lets_its_user_in(shell: Shell) -> None:
    key = shell("token", "create", "keyed").strip()
    headers = {"authorization": f"Bearer {key}"}
    url = f"{shell.gateway.url}/v1/folders"
    assert httpx.get(url, headers=headers).json()["items"] == []
    folder = shell.json("folder", "create", "keyed/docs", "--bytes", "1 MiB")
    assert folder["limits"] == {"bytes": 1 << 20, "files": None}
    narrow = shell("token", "create", "keyed", "--allow", "read-only", "--folder", "keyed/docs")
    reader = {"authorization": f"Bearer {narrow.strip()}"}
    assert httpx.get(f"{url}/{folder['id']}", headers=reader).json()["permission"] == "ro"
    refused = httpx.post(url, headers=reader, json={"name": "more"})
    assert refused.status_code == 403


def test_a_folder_s_life(shell: Shell) -> None:
    shell("group", "create", "ops")
    shell("group", "add", "ops", "ann", "--admin")
    assert shell.json("group", "show", "ops") == {"name": "ops", "members": {"ann": True}}
    shell("folder", "create", "logs", "--owner", "group:ops", "--lifetime", "30d")
    shell("share", "set", "group:ops/logs", "bob", "ro")
    assert shell.json("share", "list", "group:ops/logs") == [
        {"with": "user:bob", "permission": "ro"}
    ]
    shell("share", "remove", "group:ops/logs", "bob")
    shell("folder", "rename", "group:ops/logs", "journal")
    folder = shell.json("folder", "show", "group:ops/journal")
    assert folder["expires"] is not None
    snapshot = shell("snapshot", "create", folder["id"], "before", "--wait")
    assert snapshot.startswith("succeeded")
    assert [each["name"] for each in shell.json("snapshot", "list", folder["id"])] == ["before"]
    shell("folder", "clone", folder["id"], "copy", "--wait")
    shell("folder", "transfer", "group:ops/copy", "ann", "--wait")
    assert "user:ann" in shell("folder", "list", "--owner", "ann")
    shell("folder", "delete", folder["id"])
    gone = shell("folder", "show", "group:ops/journal", status=1)
    assert f"is deleted; name it by its id: {folder['id']}" in gone
    shell("folder", "restore", "group:ops/journal")
    shell("folder", "delete", "group:ops/journal")
    assert shell("folder", "purge", "group:ops/journal", "--wait").startswith("succeeded")
    tasks = shell.json("task", "list", "--folder", "ann/copy")
    assert {task["kind"] for task in tasks} == {"clone", "transfer"}
    assert shell.json("volume", "list")[0]["name"] == "main"
    assert "bytes" in shell("volume", "scan", "main", "--wait")


def test_limits_and_users(shell: Shell) -> None:
    shell("quota", "set", "ann", "--bytes", "5 GB", "--files", "100")
    assert shell.json("quota", "show", "ann")["limit_bytes"] == 5_000_000_000
    shell("quota", "set", "ann", "--files", "none")
    assert shell.json("quota", "show", "ann")["limit_files"] is None
    shell("quota", "unset", "ann")
    assert shell.json("quota", "show", "ann")["limit_bytes"] is None
    shell("user", "set", "boss", "--admin", "yes")
    assert {"name": "boss", "admin": True, "disabled": False} in shell.json("user", "list")
    shell("user", "remove", "boss")


def test_how_a_folder_is_mounted(shell: Shell, gateway: VfsGateway) -> None:
    shell("folder", "create", "mine", "--owner", "mounter")
    told = shell.json("mount-info", "mounter/mine")
    assert Path(told["offers"][0]["source"]).is_dir()
    assert told["read_only"] is True


def test_files_by_hand(shell: Shell, gateway: VfsGateway, tmp_path: Path) -> None:
    """What the commands store is there for clients, and counts; and the other way round."""
    shell("folder", "create", "work", "--owner", "hand", "--bytes", "100 KiB")
    shell("folder", "create", "rest", "--owner", "hand")
    content = bytes(range(256)) * 201
    source = tmp_path / "data.bin"
    source.write_bytes(content)
    assert shell.json("file", "put", "hand/work", str(source), "in/")["path"] == "in/data.bin"
    assert "--force replaces it" in shell("file", "put", "hand/work", str(source), "in/", status=1)
    assert "limit" in shell("file", "put", "hand/work", str(source), "b", status=1)
    assert shell.json("folder", "show", "hand/work")["quota"]["used_bytes"] == len(content)
    shell("file", "put", "hand/work", str(source), "in/data.bin", "--force")
    with gateway.client("hand") as client:
        folders = {each["name"]: each["id"] for each in client.get("/v1/folders").json()["items"]}
        url = f"/v1/folders/{folders['work']}/files"
        assert client.get(f"{url}/in/data.bin").content == content
        assert client.put(f"{url}/note", content=b"from a client").status_code == 201
    back = tmp_path / "back"
    shell("file", "get", "hand/work", "note", str(back))
    assert back.read_bytes() == b"from a client"
    assert "exists" in shell("file", "get", "hand/work", "note", str(back), status=1)
    assert "is a folder" in shell("file", "get", "hand/work", "in", status=1)
    shell("file", "cp", "hand/work", "in", "copied", "--to", "hand/rest")
    shell("file", "mv", "hand/work", "note", "notes/today", "--to", "hand/rest")
    shell("file", "mkdir", "hand/rest", "deep/er")
    found = {each["path"] for each in shell.json("file", "ls", "hand/rest", "-r")}
    assert found == {"copied", "copied/data.bin", "notes", "notes/today", "deep", "deep/er"}
    assert "notes/" in shell("file", "ls", "hand/rest")
    assert "not empty" in shell("file", "rm", "hand/rest", "copied", status=1)
    shell("file", "rm", "-r", "hand/rest", "copied", "deep", "notes/today")
    assert [each["path"] for each in shell.json("file", "ls", "hand/rest", "-r")] == ["notes"]
    assert shell.json("folder", "show", "hand/rest")["quota"]["used_bytes"] == 0
    assert "there is no 'gone'" in shell("file", "rm", "hand/work", "gone", status=1)
    assert "leads out" in shell("file", "get", "hand/work", "../../x", status=1)


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (("folder", "show", "nobody/nothing"), "there is no folder", 1),
        (("folder", "create", "a/b", "--owner", "ann"), "a name cannot hold", 2),
        (("folder", "create", "a", "--owner", "an n"), "is no name of a user", 2),
        (("folder", "create", "a", "--owner", "group:none"), "there is no such group", 1),
        (("quota", "set", "ann", "--bytes", "much"), "bytes", 2),
        (("quota", "set", "ann", "--files", "few"), "--files", 2),
        (("task", "show", "none"), "there is no task", 1),
        (("volume", "scan", "none"), "there is no such volume", 1),
        (("folder", "list", "--status", "odd"), "there are ready", 2),
    ],
)
def test_a_mistake_is_told_in_a_line(
    shell: Shell, words: tuple[str, ...], told: str, status: int
) -> None:
    err = shell(*words, status=status)
    lines = [line for line in err.splitlines() if line.startswith("backupgw:")]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    "lacks",
    [
        '[vfs_manager]\ntoken = { env = "NOT_THERE" }',
        '[vfs.manager]\nurl = "http://127.0.0.1:1"\ntoken = { env = "NOT_THERE" }',
        '[vfs.cache]\nurl = { env = "NOT_THERE" }',
        '[[tokens.key]]\nid = "a"\nalgorithm = "HS256"\nsecret = { env = "NOT_THERE" }',
        '[vfs.volumes.far]\ntype = "place"\n[places.far]\nurl = "s3://bucket/path"\n'
        'access_key_id = "a"\nsecret_access_key = { env = "NOT_THERE" }',
        '[[events.hook]]\nname = "a"\nurl = "https://127.0.0.1/"\nsecret = { env = "NOT_THERE" }',
    ],
    ids=["manager", "source", "cache", "signed tokens", "place", "hook"],
)
def test_nothing_is_made_where_a_secret_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lacks: str
) -> None:
    state, volume = tmp_path / "state", tmp_path / "volume"
    volume.mkdir()
    config = tmp_path / "settings.toml"
    config.write_text(
        f'[state]\nfolder = "{state}"\n[vfs]\nlisten = ["127.0.0.1:0"]\n'
        f'[vfs.volumes.default]\ntype = "fs"\npath = "{volume}"\n{lacks}\n'
    )
    assert main(["--config", str(config), "vfs", "serve"]) == 1
    error = capsys.readouterr().err
    assert "NOT_THERE" in error
    assert "Traceback" not in error
    assert not state.exists()
    assert list(volume.iterdir()) == []
