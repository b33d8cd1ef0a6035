"""`backupgw provider` list, show, calls: what is configured, and what it cost."""

from __future__ import annotations

from typing import Any

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import cell, json_document, line, table
from backupgw.runtime.secrets import HIDDEN

from ..base import BaseProvider
from ..configured import Configured
from ..place_provider import PlaceProvider
from ..registry import PROVIDERS, Listed
from .session import Session


def run(session: Session) -> int:
    """Do what the verb says."""
    verbs = {"list": _list, "show": _show, "calls": _calls}
    return verbs[session.arguments.verb](session)


def _list(session: Session) -> int:
    kinds = {each.id: each for each in PROVIDERS.listed()}
    records = [_listed(each, kinds.get(each.kind)) for each in session.providers.all()]
    if session.json:
        json_document(records)
        return Exit.DONE
    rows = [("PROVIDER", "ENABLED", "CONTAINER", "")]
    for record in records:
        note = record["problem"] or (record["title"] if record["title"] != record["name"] else "")
        enabled = "yes" if record["enabled"] else "no"
        rows.append((record["name"], enabled, record["container"] or "-", note))
    table([tuple(cell(each) for each in row) for row in rows])
    return Exit.DONE


def _listed(configured: Configured, kind: Listed | None) -> dict[str, Any]:
    problem = (
        f"there is no provider {configured.kind!r} installed" if kind is None else kind.problem
    )
    return {
        "name": configured.name,
        "type": configured.kind,
        "title": kind.title if kind else configured.kind,
        "enabled": configured.enabled,
        "container": configured.config.get("container"),
        "usable": not problem,
        "problem": problem or None,
    }


def _show(session: Session) -> int:
    arguments = session.arguments
    configured = session.providers.get(arguments.provider)
    record = session.state(configured.name).read()
    secrets = session.providers.secrets_of(configured.name)
    fields: dict[str, Any] = {}
    for field in session.providers.fields_of(configured):
        if field.name in secrets:
            origin = secrets[field.name].origin
            shown = HIDDEN if origin == "literal" else f"{HIDDEN} ({origin})"
            fields[field.name] = shown if field.secret else secrets[field.name].reveal()
        elif field.name == "enabled":
            continue
        elif field.name in configured.config or arguments.all:
            fields[field.name] = configured.config.get(field.name, field.default)
    if session.json:
        json_document(
            {
                "name": configured.name,
                "type": configured.kind,
                "enabled": configured.enabled,
                "fields": fields,
                "last_test": record.get("last_test"),
            }
        )
        return Exit.DONE
    line(f"{configured.name}: {configured.kind}, {'enabled' if configured.enabled else 'disabled'}")
    for name, value in fields.items():
        line(f"  {name} = {cell(shown_value(value))}")
    if (last := record.get("last_test")) is not None:
        line(f"  last test {last['time']}: {'passed' if last['passed'] else last['error']}")
    return Exit.DONE


def shown_value(value: object) -> str:
    """Return a field's value as people write it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(configured: Configured) -> type[BaseProvider] | None:
    try:
        return PROVIDERS[configured.kind]
    except BackendError:
        return None  # it is not installed, or not whole


def _calls(session: Session) -> int:
    found: list[dict[str, Any]] = []
    names = [each.name for each in session.providers.all()]
    for name in session.arguments.providers or names:
        configured = session.providers.get(name)
        kind = _kind(configured)
        costs = kind.costs if kind is not None and issubclass(kind, PlaceProvider) else None
        for month, counts in sorted(session.state(name).read().get("calls", {}).items()):
            found += [
                {
                    "provider": name,
                    "month": month,
                    "call": call,
                    "cost": costs.of(call) if costs else None,
                    "count": count,
                }
                for call, count in sorted(counts.items())
            ]
    if session.json:
        json_document(found)
    elif not found:
        line("no requests were counted yet")
    else:
        keys = ("provider", "month", "call", "cost", "count")
        rows = [tuple(key.upper() for key in keys)]
        rows += [tuple(cell(each[key] or "-") for key in keys) for each in found]
        table(rows, right=(4,))
    return Exit.DONE
