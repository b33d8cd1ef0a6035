"""Ctrl-C at the moments at which a lock of Python's library stays taken: nothing waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupgw.runtime import cli
from tests.ctrl_c import at_every_lock
from tests.providers.backup_site import BackupSite
from tests.providers.provider_site import Site
from tests.servers import peers


def test_an_upload_ends_wherever_it_is_interrupted(site: Site) -> None:
    nas = site.local()
    files = [str(site.file(f"{number}", b"%d" % number)) for number in range(20)]
    words = ["provider", "upload", "local", *files, "--config", str(site.config)]
    at_every_lock(lambda: cli.main(words))
    assert len([path for path in nas.iterdir() if path.name.isdigit()]) == 20


@pytest.mark.parametrize(
    "form", ["archive", pytest.param("restic", marks=pytest.mark.peers(peers.RESTIC_NEW))]
)
def test_a_backup_ends_wherever_it_is_interrupted(tmp_path: Path, form: str) -> None:
    backups = BackupSite(tmp_path)
    backups.add_local("one", "two")
    backups.write(sets=f'[backup.sets.home]\npaths = ["{backups.home}"]\nformat = "{form}"')
    (backups.home / "file").write_bytes(bytes(100))
    if form == "restic":
        backups.run("create")
        backups.cheap("one")
        backups.cheap("two")
    at_every_lock(lambda: backups.run("create", status=None).returncode)
    assert {each["state"] for each in backups.status().values()} == {"done"}
