"""A double of a service that is signed in to, and a fresh place on it.

A file of one kind's tests says which by a fixture `kind` of its own; elsewhere a test runs on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from tests.conftest import SOAK
from tests.kvstore.filled_folders import in_double
from tests.kvstore.signed_in.kinds import DROPBOX, GCS, GDRIVE, Kind
from tests.kvstore.signed_in.told_doubles import change, options_of
from tests.servers.double_process import DoubleProcess

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.conformance import Subject


@pytest.fixture(scope="module", params=[GCS, DROPBOX, GDRIVE], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[Kind], DoubleProcess[Any]]]:
    """Gives the double of a kind, which a file's tests have in common."""
    with ExitStack() as doubles:
        found: dict[str, DoubleProcess[Any]] = {}

        def start(kind: Kind) -> DoubleProcess[Any]:
            if kind.name not in found:
                found[kind.name] = doubles.enter_context(DoubleProcess(kind.double))
            return found[kind.name]

        yield start


@pytest.fixture(scope="module")
def double(kind: Kind, started: Callable[[Kind], DoubleProcess[Any]]) -> DoubleProcess[Any]:
    return started(kind)


@pytest.fixture(scope="module")
def options(kind: Kind, double: DoubleProcess[Any]) -> dict[str, Any]:
    return {"part_size": kind.part, **double.tell(options_of)}


@pytest.fixture(scope="module")
def subject(kind: Kind, double: DoubleProcess[Any], options: dict[str, Any]) -> Iterator[Subject]:
    folder = "Backups/conformance"
    make = partial(open_place, kind.url + folder, **options)
    fill = in_double(double, kind.fill, kind.clear, folder)
    with Subject(make, soak=SOAK, scale=kind.scale, fill=fill, remembers=kind.remembers) as subject:
        yield subject


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """The name of the fresh place's folder."""
    return str(request.node.name)[:60]


@pytest.fixture
def url(kind: Kind, folder: str) -> str:
    """The fresh place's URL."""
    return kind.url + folder


@pytest.fixture
def place(
    kind: Kind, double: DoubleProcess[Any], options: dict[str, Any], url: str
) -> Iterator[Backend]:
    """A fresh place on a service that works."""
    place = open_place(url, **options)
    place.create()
    with place:
        yield place
        double.fail()
        double.tell(change, **kind.usual)
