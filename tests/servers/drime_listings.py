"""What Drime lists, and how it counts pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .drime_entries import Account, Entry

Asked = Mapping[str, str]
"""A request's query."""


class Listings:
    """Lists the entries of an account, as its switches say."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.switches = account.switches
        self._last: tuple[object, list[Entry]] = (None, [])

    def page(self, asked: Asked, workspace: int) -> dict[str, Any]:
        """Return the page that a request's query asks for, as the API shows it."""
        size = min(int(asked.get("perPage", 50)), self.switches.most_per_page)
        asked_for = int(asked.get("page", 1))
        if asked_for > 1 and self._last[0] == self._state(asked):
            found = self._last[1]  # a large folder is not sorted anew for each page
        else:
            found = self._ordered(asked, self._selected(asked, workspace))
            if len(found) > size:
                self._last = (self._state(asked), found)
        last = max(1, -(-len(found) // size))
        page = min(asked_for, last) if self.switches.repeat_last_page else asked_for
        start = (page - 1) * size
        shown = found[start : start + size]
        if self.switches.honest_last_page:
            told = last
        elif len(found) > self.switches.never_ends_above:
            told = asked_for + 1
        else:
            told = asked_for + 1 if asked_for < last else asked_for
        return {
            "data": [entry.shown() for entry in shown],
            "folder": None,
            "current_page": asked_for,
            "last_page": told,
            "next_page": told if told > asked_for else None,
            "per_page": size,
            "total": len(found) if self.switches.honest_last_page else None,
            "from": start + 1 if shown else None,
            "to": start + len(shown) if shown else None,
        }

    def _state(self, asked: Asked) -> object:
        """Return what a list is the same for."""
        which = {name: value for name, value in asked.items() if name not in ("page", "perPage")}
        return which, self.account.changes, repr(self.switches)

    def _ordered(self, asked: Asked, found: list[Entry]) -> list[Entry]:
        if self.switches.order and (by := asked.get("orderBy")):
            keys: dict[str, Callable[[Entry], Any]] = {
                "name": lambda entry: (entry.name, entry.id),
                "created_at": lambda entry: (entry.created, entry.id),
                "updated_at": lambda entry: (entry.updated, entry.id),
                "file_size": lambda entry: (entry.size, entry.id),
                "id": lambda entry: entry.id,
            }
            return sorted(found, key=keys[by], reverse=asked.get("orderDir") == "desc")
        return sorted(found, key=lambda entry: (entry.updated, entry.id), reverse=True)

    def _selected(self, asked: Asked, workspace: int) -> list[Entry]:
        query = asked.get("query")
        parents = [int(part) or None for part in asked.get("parentIds", "0").split(",")]
        if query and not self.switches.search_scoped:
            entries = self.account.everything(workspace)
        else:
            entries = self.account.children(workspace, parents)
        if query is not None:
            if not self.switches.search_finds:
                return []
            entries = (entry for entry in entries if query.lower() in entry.name.lower())
        if (kind := asked.get("type")) is not None:
            entries = (entry for entry in entries if entry.is_folder == (kind == "folder"))
        return [*entries]
