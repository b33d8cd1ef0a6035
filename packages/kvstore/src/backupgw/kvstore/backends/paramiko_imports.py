"""To be imported before paramiko: what that imports for rare cases is imported when they come.

paramiko needs invoke, with a YAML parser and asyncio behind it, for `Match exec` in ssh's settings
and for nothing else; it is a quarter of the time that a short command takes.
"""

from __future__ import annotations

import importlib.util
import sys


def _later(name: str) -> None:
    """Have a module imported by the first use of it. One that is missing stays missing."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    loader = spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)


_later("invoke")
