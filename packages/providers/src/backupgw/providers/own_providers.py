"""Providers that somebody wrote for this installation: files of Python in a folder.

    ~/.config/backupgw/providers/new_provider.py

A file is what the guide has as `src/providers/new_provider.py`, unchanged: it is loaded as a module
of this package, so that `from .base import BaseProvider` finds ours. What its PROVIDERS mapping
names is added, and where it has none, its class under the file's own name.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from .base import BaseProvider
from .registry import PROVIDERS

FOLDER = "providers"
"""Beside the settings file."""

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


def load_folder(folder: Path) -> None:
    """Add the providers of a folder to PROVIDERS; one that cannot be loaded is listed with why."""
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.py")):
        name = path.stem
        if not _NAME.match(name) or name == "base":
            continue
        module = f"{__package__}.{name}"
        if module in sys.modules and getattr(sys.modules[module], "__file__", None) == str(path):
            continue  # loaded already
        try:
            _load(module, path)
        except Exception as error:  # noqa: BLE001 - whatever somebody's file raises
            text = str(error) or type(error).__name__
            _log.warning("%s: cannot be loaded: %s", path, text)
            PROVIDERS.add_broken(name, f"{path}: {text}")


def _load(module_name: str, path: Path) -> None:
    if importlib.util.find_spec(module_name) is not None:
        raise ImportError(f"{path.stem} is a name of backupgw's own; rename the file")
    _check_owner(path)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
        found = _providers(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    for name, kind in found.items():
        PROVIDERS[name] = kind


def _check_owner(path: Path) -> None:
    """See that nobody else could have put a program there. Raises PermissionError."""
    for each in (path, path.parent):
        status = each.stat()
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise PermissionError(f"others can change {each}; chmod go-w it")


def _providers(module: ModuleType) -> dict[str, type[BaseProvider]]:
    mapping = getattr(module, "PROVIDERS", None)
    if isinstance(mapping, Mapping) and mapping is not PROVIDERS:
        return {str(name): kind for name, kind in mapping.items() if name not in PROVIDERS}
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, BaseProvider)
        and kind.__module__ == module.__name__
        and not inspect.isabstract(kind)
    ]
    if len(kinds) != 1:
        raise ImportError(
            f"there are {len(kinds)} providers in it; with a mapping PROVIDERS it can have several"
        )
    return {module.__name__.rpartition(".")[2]: kinds[0]}
