"""The sample for Backend.AI's development stack is good as it is, and with every line in effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.servers.etcd import EtcdServer

from backupgw.runtime.settings import load

SAMPLE = Path(__file__).parents[2] / "deploy/vfs/halfstack.toml"


def test_as_it_is() -> None:
    settings = load(SAMPLE, {}, {}, serving=["vfs", "vfs_manager"])
    assert settings.section("vfs").listen == ["127.0.0.1:6021"]
    assert settings.section("vfs_manager").listen == ["127.0.0.1:6022"]
    assert not settings.warnings


@pytest.mark.root("etcd")
def test_with_every_line_in_effect(tmp_path: Path) -> None:
    text = re.sub(r"^# (\[[a-z_.]+\]$|[a-z]+ = )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
    with EtcdServer(tmp_path / "etcd") as etcd:
        config = tmp_path / "halfstack.toml"
        config.write_text(text.replace("http://127.0.0.1:8121", etcd.url))
        etcd.put("/backupgw/vfs/groups/bytes", "1 TiB")
        settings = load(config, {}, {}, serving=["vfs", "vfs_manager"])
    vfs = settings.section("vfs")
    assert vfs.groups.bytes == 1 << 40
    assert vfs.manager.url == "http://127.0.0.1:8091/storage"
    assert set(vfs.volumes) == {"local", "minio"}
    assert settings.log.loki is not None
    assert settings.section("state").database.startswith("postgresql://")
