"""Which of what lies in the trash a command is about: of which repositories, deleted since when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backupgw.kvstore.layers.trash_contents import Entry, Trash
from backupgw.runtime.authorisation.patterns import path_matches

from .limits import repository_of
from .paths import TYPES

_FIRST_BYTES = tuple(f"{byte:02x}" for byte in range(256))


@dataclass(frozen=True)
class Selection:
    """What a command was told.

    Attributes:
        repository: a path or a pattern as in rules; "" is the repository at the root, None means
            everything.
        since: seconds since the epoch; only what was deleted later.
    """

    repository: str | None = None
    since: float | None = None

    @property
    def exact(self) -> bool:
        """Whether it names one repository."""
        return self.repository is not None and "*" not in self.repository

    def entries(self, trash: Trash) -> Iterator[Entry]:
        """Yield what is selected, folder by folder."""
        if not self.exact:
            for entry in trash.entries():
                if self._selects(entry):
                    yield entry
            return
        assert self.repository is not None
        for folder in folders_of(self.repository):
            yield from self.in_folder(trash, folder)

    def in_folder(self, trash: Trash, folder: str) -> Iterator[Entry]:
        """Yield what is selected of one folder or item of a repository."""
        for entry in trash.entries(folder):
            # A prefix alone would also be that of `config-of-another-repository/data/…`.
            if (folder.endswith("/") or entry.name == folder) and self._selects(entry):
                yield entry

    def repositories(self, trash: Trash) -> list[str]:
        """Return the repositories of which something is selected."""
        if self.exact:
            assert self.repository is not None
            return [self.repository]
        found = {repository_of(entry.name) for entry in self.entries(trash)}
        return sorted(repo for repo in found if repo is not None)

    def _selects(self, entry: Entry) -> bool:
        if self.since is not None and entry.when <= self.since:
            return False
        if self.repository is None:
            return True
        repo = repository_of(entry.name)
        if repo is None:
            return self.repository == "**"
        return repo == self.repository or path_matches(self.repository, repo, "")


def folders_of(repo: str) -> Iterator[str]:
    """Yield the folders of a repository that hold objects, and its config.

    In the order in which they come back: who lists snapshots finds all that these need.
    """
    base = f"{repo}/" if repo else ""
    yield from (f"{base}data/{byte}/" for byte in _FIRST_BYTES)
    yield from (f"{base}{kind}/" for kind in TYPES if kind not in ("data", "snapshots"))
    yield f"{base}config"
    yield f"{base}snapshots/"
