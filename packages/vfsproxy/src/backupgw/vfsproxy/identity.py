"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass

from backupgw.runtime.authorisation import Principal


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and by what right.

    Attributes:
        principal: the user with the limits of the token that was shown.
        via: how they came: token, manager, transfer, command, job; "" for nobody.
        manager: it is the manager itself, to whom all folders are open.
    """

    principal: Principal
    via: str
    manager: bool = False

    @property
    def user(self) -> str:
        """The user's name; of the manager, "manager"."""
        return self.principal.user


NOBODY = Identity(Principal(""), "")
MANAGER = Identity(Principal("manager"), "manager", manager=True)
OPERATOR = Identity(Principal("operator"), "command", manager=True)
"""Whoever runs commands on the gateway's machine."""


def job_of(actor: str) -> Identity:
    """Return the gateway itself, at work for somebody."""
    return Identity(Principal(actor), "job", manager=True)
