"""What keeps an HTTP host from starting."""

from __future__ import annotations

from backupgw.runtime.command import CommandError


class HostError(CommandError):
    """The host cannot start; the message is one line that says what is wrong and what to do."""
