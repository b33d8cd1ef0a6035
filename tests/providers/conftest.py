"""What the tests of providers share."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backupgw.providers.base import BaseProvider
from tests.logging_kept import logging_kept
from tests.providers.provider_site import Site
from tests.servers.b2_double import KEY
from tests.servers.s3 import SECRET

KEPT = frozenset({"provider-credentials.toml", "provider-credentials.toml.lock", "b2.key"})
"""Files that are there to hold secrets; so is all in `backup/keys`."""
LEAST = 16
"""Bytes of what counts as a secret here: words of a test's own are found in other texts, too."""


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands configure loggers; the next test must not inherit that."""
    with logging_kept():
        yield
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("backupgw.providers.") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def no_secret_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Whatever secret a test's providers had: after it, each byte of each file that was written, by
    the test or by what it started, and of the log, is searched for it."""
    used = {SECRET, KEY}
    begin = BaseProvider.__init__

    def noting(self: BaseProvider, config: Mapping[str, Any]) -> None:
        begin(self, config)
        used.update(
            str(self.values[field.name])
            for field in self.all_fields()
            if field.secret and self.values[field.name]
        )

    monkeypatch.setattr(BaseProvider, "__init__", noting)
    yield
    for kept in tmp_path.rglob("backup/keys/*"):
        used.update(line for line in kept.read_text().splitlines() if not line.startswith("#"))
    secrets = [secret for secret in used if len(secret) >= LEAST]
    assert not [secret for secret in secrets if secret in caplog.text], "the log tells a secret"
    assert _holding(tmp_path, [secret.encode() for secret in secrets]) == []


def _holding(folder: Path, secrets: list[bytes]) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.name in KEPT or path.is_symlink() or path.match("backup/keys/*"):
            continue
        if path.is_file() and path.stat().st_size:
            with (
                open(path, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                found += [str(path) for secret in secrets if content.find(secret) >= 0]
    return found
