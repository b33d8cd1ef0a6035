"""What the tests of Drime share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kvstore.drime.places import place
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.drime import Drime
from backupgw.kvstore.layers.retry_schedule import Schedule


@pytest.fixture
def drime() -> Iterator[DrimeDouble]:
    with DrimeDouble() as drime:
        yield drime


@pytest.fixture
def there(drime: DrimeDouble) -> Iterator[Backend]:
    """A place, open; nothing is counted yet."""
    made = place(drime.url, drime.key)
    made.create()
    with made:
        made.mkdir("data/ab")
        drime.forget_calls()
        yield made


@pytest.fixture
def quick(drime: DrimeDouble) -> Iterator[Backend]:
    """The same with shorter pauses between attempts, for many failures."""
    schedule = Schedule(attempts=10, deadline=60, first=0.01, longest=0.3)
    made = Drime(drime.key, "backups/place", api_url=drime.url, schedule=schedule)
    made.create()
    with made:
        made.mkdir("data/ab")
        drime.forget_calls()
        yield made
