"""Grants: what a person gives a place's program to act for them, by a web page (OAuth 2, RFC 6749).

A backend whose service works that way registers, beside itself, a function under its URL scheme in
the entry-point group `backupgw.grants`:

    begin(options: Mapping[str, object], redirect: str | None) -> Grant

It is given the options of the place, and an address of this machine where an answer would be heard
(`loopback`), and returns what the person has to visit. Nothing of this needs a browser on this
machine: the page leads to a code, which the person brings back where nothing hears it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .. import entry_points
from .errors import UnsupportedOperation

GROUP = "backupgw.grants"


@dataclass(frozen=True)
class Grant:
    """A grant that is being asked for.

    Attributes:
        visit: the page where the person agrees; holds no secret.
        option: of the place that the grant is put into.
        finish: given what the person brings back, returns the value of that option, a secret.
            Raises PermissionDenied for a code that is wrong or was used, BackendConnectionError.
        brings: what that is, in words.
        is_answer: whether an address that a browser asked `redirect` for is the answer, which
            `finish` takes too; None where the service sends no browser there.
    """

    visit: str
    option: str
    finish: Callable[[str], str]
    brings: str = "the code that it shows"
    is_answer: Callable[[str], bool] | None = None


def begin(url: str, options: Mapping[str, object], redirect: str | None = None) -> Grant:
    """Ask for a grant for the place at `url`.

    Args:
        options: the place's.
        redirect: an address of this machine where the answer is heard; None for nowhere.

    Raises:
        UnsupportedOperation: places of that kind need none.
        BackendURLInvalid: an option that is needed for it is missing.
        BackendDoesNotExist: the library that reaches the place is not installed.
    """
    scheme = url.partition(":")[0].lower()
    known = entry_points.registered(GROUP, "URL scheme")
    if scheme not in known:
        raise UnsupportedOperation(
            f"{scheme}: needs no grant (places that do: {', '.join(sorted(known)) or 'none'})"
        )
    grant: Grant = entry_points.load(known[scheme])(options, redirect)
    return grant
