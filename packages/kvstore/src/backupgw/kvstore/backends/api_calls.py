"""Telling of each request that goes to a service: some of them are billed, and all have limits.

A backend whose service counts requests has the option `on_call`, which only a program can give. It
is called before each request is sent, repetitions too, with what the service itself calls it
(`PutObject`, `b2_upload_part`), from whatever thread sends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..layers.options import OptionInvalid

OnCall = Callable[[str], None]


def hook(on_call: object) -> OnCall | None:
    """Return the option's value. Raises OptionInvalid for what is no function."""
    if on_call is not None and not callable(on_call):
        raise OptionInvalid("on_call", "is a function, which only a program can give")
    return on_call


def route(method: str, path: str) -> str:
    """Return what to call a request that has no name: its method and route, without ids."""
    return f"{method} {re.sub(r'(?<=/)[^/]*[0-9][^/]*', 'N', path)}"
