"""To be imported before paramiko: what that imports for rare cases is imported when they come.

paramiko needs invoke, with a YAML parser and asyncio behind it, for `Match exec` in ssh's settings
and for nothing else; it is a quarter of the time that a short command takes.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

_loading = threading.RLock()


class _Later(ModuleType):
    """A module that is loaded when something in it is wanted. The standard library's LazyLoader
    loads it at its second import: that looks at `__spec__`, and any look will do."""

    def __getattr__(self, name: str) -> Any:
        with _loading:
            if type(self) is _Later:
                spec = self.__spec__
                assert spec is not None
                assert spec.loader is not None
                self.__class__ = ModuleType  # type: ignore[assignment]  # its own look again
                spec.loader.exec_module(self)
        return getattr(self, name)


def _later(name: str) -> None:
    """Have a module imported by the first use of it. One that is missing stays missing."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Later
    sys.modules[name] = module


_later("invoke")
