"""Which events a receiver wants: by type, by severity, by fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .records import Event, Severity, Value, known_types


@dataclass(frozen=True)
class Filter:
    """What has to be true of an event, all of it.

    Attributes:
        types: patterns such as "quota.*"; one has to match. Empty: every type.
        severity: the least.
        where: patterns by field; for each field one of its patterns has to match. An event that
            has no such field, or None in it, does not match. Numbers match as they are written
            in JSON, truth values as "true" and "false".
    """

    types: Sequence[str] = ()
    severity: Severity = Severity.INFO
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def wants(self, event: Event) -> bool:
        """Whether `event` passes."""
        if event.weight.rank < self.severity.rank:
            return False
        if self.types and not any(fnmatchcase(event.type, pattern) for pattern in self.types):
            return False
        if not self.where:
            return True
        data = event.data()
        for name, patterns in self.where.items():
            value = data.get(name)
            if value is None:
                return False
            text = as_text(value)
            if not any(fnmatchcase(text, pattern) for pattern in patterns):
                return False
        return True


def as_text(value: Value) -> str:
    """Write a field's value for a pattern or an environment variable; None is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def matching_types(patterns: Sequence[str]) -> list[type[Event]]:
    """Return the known kinds of events that one of `patterns` (all, if there are none) matches."""
    known = known_types()
    if not patterns:
        return list(known.values())
    return [
        kind
        for name, kind in known.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
