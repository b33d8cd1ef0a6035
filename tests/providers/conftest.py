"""What the tests of providers share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.provider_site import Site


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands configure loggers; the next test must not inherit that."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if handler not in handlers and type(handler).__module__ != "_pytest.logging":
            root.removeHandler(handler)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("backupgw.providers.") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
