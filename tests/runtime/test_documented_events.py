"""The document of events names each kind that a gateway tells, with its fields."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from backupgw.runtime.events.records import known_types

DOCUMENT = Path(__file__).parents[2] / "docs/events.md"
_ROW = re.compile(r"^\| `([a-z_.]+)` \| (\w+)[^|]*\| ([a-z_, ]+) \|$", re.MULTILINE)


def test_every_event_is_documented_with_its_fields() -> None:
    for package in ("restserver", "vfsproxy"):
        import_module(f"backupgw.{package}.event_records")
    ours = {
        name: (kind.severity.name.lower(), {*kind.field_names()})
        for name, kind in known_types().items()
        if kind.__module__.startswith("backupgw.")
    }
    told = {
        name: (severity, {*fields.split(", ")})
        for name, severity, fields in _ROW.findall(DOCUMENT.read_text())
    }
    assert told == ours
