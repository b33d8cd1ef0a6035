"""Folders with many items in them, filled past the backend: what a list makes of 200,000 is the
subject, not how long it takes to store them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.double_process import D, DoubleProcess

from backupgw.kvstore.conformance.subject import Fill


def on_disk(root: Path) -> Fill:
    """Fill folders of a place that is a folder of this machine for its server."""

    @contextmanager
    def fill(folder: str, names: Sequence[str]) -> Iterator[None]:
        made = [root / folder / name for name in names]
        for path in made:
            path.touch(exist_ok=False)
        yield
        for path in made:
            path.unlink()

    return fill


def in_double(
    double: DoubleProcess[D],
    put: Callable[[D, str, Sequence[str]], None],
    remove: Callable[[D, str, Sequence[str]], None],
    root: str,
) -> Fill:
    """Fill folders of the place `root` in a double, by two functions that are run there."""

    @contextmanager
    def fill(folder: str, names: Sequence[str]) -> Iterator[None]:
        double.tell(put, f"{root}/{folder}", names)
        yield
        double.tell(remove, f"{root}/{folder}", names)

    return fill
