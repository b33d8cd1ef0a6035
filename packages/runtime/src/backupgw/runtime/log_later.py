"""The log of a command that has mostly nothing to log: the first record imports its pipeline.

To import it takes a sixth of a second, longer than what many commands do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .log import Level


class _First(logging.Handler):
    """Takes the first record, and lets `log.configure` take its place."""

    def __init__(self, name: Level) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        from . import log

        logging.getLogger().removeHandler(self)
        log.configure(self._name).handle(record)


def configure(level: Level) -> None:
    """Have records of at least `level` go to standard error as `log.configure` has it, once there
    is one. May be called again, as that may be; the last call counts."""
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _First)]:
        root.removeHandler(old)
    if level == "debug" or any(type(old).__module__ == log_name() for old in root.handlers):
        from . import log

        log.configure(level)
        return
    root.addHandler(_First(level))
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def log_name() -> str:
    """Return the module whose handlers stand where `log.configure` was called already."""
    return f"{__package__}.log"
