"""Schedules in the settings: what cannot be is named with its line, before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupgw.runtime.settings import load
from backupgw.runtime.settings_errors import SettingsError


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("wings.upkeep", "prune", "10 4 * *", "no cron expression"),
        ("wings.upkeep", "check", "0 3 31 2 *", "never comes|no cron expression"),
        ("wings.upkeep", "zone", "Mars", "no time zone 'Mars'"),
        ("wings.upkeep", "read_data", "500%", 'no part of the data; write "5%"'),
        ("wings.upkeep", "read_data", "3/2", "no part of the data"),
        ("vfs.schedule", "scan", "nightly", "no cron expression"),
        ("rest.verify", "schedule", "at night", "no cron expression"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, section: str, key: str, value: str, says: str) -> None:
    file = tmp_path / "backupgw.toml"
    file.write_text(f'[{section}]\n{key} = "{value}"\n')
    with pytest.raises(SettingsError, match=rf":2: {section}\.{key}: .*({says})"):
        load(file)
