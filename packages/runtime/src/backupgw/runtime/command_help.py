"""The help line of a command, without importing what it stands on.

Reads it from the source: the literal `help` of the `Command(…)` call that the entry point names.
"""

from __future__ import annotations

import ast
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path


def help_line(target: str) -> str:
    """Return the help line of the command at "module:name"; empty where it is not a literal."""
    module, _, name = target.partition(":")
    spec = _find(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return ""
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        # Using the command will tell what is wrong with it; a list of commands need not.
        return ""
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return _help_of(value)
    return ""


def _help_of(value: ast.expr) -> str:
    if not isinstance(value, ast.Call):
        return ""
    candidates = [keyword.value for keyword in value.keywords if keyword.arg == "help"]
    candidates += value.args[1:2]
    for candidate in candidates:
        if isinstance(candidate, ast.Constant) and isinstance(candidate.value, str):
            return candidate.value
    return ""


def _find(module: str) -> ModuleSpec | None:
    """Find a module as the import system would, but run none of its parent packages."""
    spec: ModuleSpec | None = None
    path: list[str] | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path)
            if spec is not None:
                break
        if spec is None:
            return None
        locations = spec.submodule_search_locations
        path = list(locations) if locations is not None else []
    return spec
