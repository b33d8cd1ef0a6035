"""What tests tell the doubles of services that are signed in to, or ask of them; each runs in a
double's process (`DoubleProcess.tell`)."""

from __future__ import annotations

from typing import Any, Protocol

from tests.servers.double import Calls


class SignedIn(Protocol):
    """A double, and what it remembers."""

    @property
    def service(self) -> Any:
        """What is behind its HTTP."""

    @property
    def options(self) -> dict[str, str]:
        """What a place on it signs in with."""

    @property
    def calls(self) -> Calls:
        """What came."""


def account(double: SignedIn, url: str) -> str:
    """The key of a service account, whose tokens come from the double at that URL."""
    key: str = double.service.account(url)
    return key


def options_of(double: SignedIn) -> dict[str, str]:
    """What a place on it signs in with."""
    return double.options


def change(double: SignedIn, /, **attributes: object) -> None:
    """Have the service behave otherwise."""
    for name, value in attributes.items():
        setattr(double.service, name, value)


def expire(double: SignedIn) -> None:
    """Let what was signed in with run out."""
    double.service.expire_tokens()


def requests(double: SignedIn) -> list[str]:
    """What was asked since the last time: method and kind."""
    found = [f"{call.method} {call.path.split('/')[1]}" for call in double.calls]
    double.calls.clear()
    return found
