"""Names are claimed while they change: one creator, whoever waits too long is told, and what stands
in no way of another is not held up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from tests.kvstore.looking_disk import LookingDisk, claimed

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError, ObjectExists, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.layers.claims import ClaimsLayer
from backupgw.kvstore.ledger import LedgerError, NameBusy, SQLiteLedger

CHECKED = (
    "concurrency.one_thread_creates",
    "concurrency.one_process_creates",
    "concurrency.one_mover_wins",
    "concurrency.unrelated_operations_overlap",
    "naming.hostile",
    "naming.names_are_text",
    "naming.quarantine",
    "operations.",
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with Subject(partial(claimed, str(tmp_path_factory.mktemp("claims")), 0.001)) as subject:
        yield subject


@pytest.mark.parametrize(
    "check", [each for each in checks if str(each).startswith(CHECKED)], ids=str
)
def test_what_the_place_cannot_promise(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is Status.OK, result.note


class Slow(Memory):
    """In memory, looks first, and waits where it is told to.

    Attributes:
        looking: set while a commit or a removal is between its look and its change.
        go_on: what it waits for then.
    """

    capabilities = LookingDisk("/nonexistent").capabilities

    def __init__(self) -> None:
        super().__init__()
        self.looking = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def delete(self, name: str) -> None:
        self.looking.set()
        assert self.go_on.wait(20)
        super().delete(name)


@pytest.fixture
def place() -> Slow:
    place = Slow()
    place.create()
    return place


def layer(place: Backend, folder: Path, **options: float) -> ClaimsLayer:
    return ClaimsLayer(place, lambda: SQLiteLedger(str(folder / "names")), "tried", **options)


def test_a_writer_waits_for_a_removal_and_other_names_for_nobody(
    place: Slow, tmp_path: Path
) -> None:
    with layer(place, tmp_path) as here:
        here.store("a", b"old")
        place.go_on.clear()
        with ThreadPoolExecutor(2) as pool:
            removing = pool.submit(here.delete, "a")
            assert place.looking.wait(20)
            storing = pool.submit(_create, here, "a", b"new")
            here.store("b", b"at once")
            assert here.load("a") == b"old"
            assert not storing.done()
            place.go_on.set()
            removing.result()
            storing.result()
        assert here.load("a") == b"new"
        with pytest.raises(ObjectExists):
            _create(here, "a", b"another")


def _create(place: Backend, name: str, value: bytes) -> None:
    with place.open_writer(name, size=len(value), if_absent=True) as writer:
        writer.write(value)


def test_who_waits_too_long_is_told_to_try_again(place: Slow, tmp_path: Path) -> None:
    with layer(place, tmp_path, patience=0.1) as here:
        here.store("a", b"old")
        place.go_on.clear()
        with ThreadPoolExecutor(1) as pool:
            removing = pool.submit(here.delete, "a")
            assert place.looking.wait(20)
            with pytest.raises(BackendError, match="a: another write or removal") as caught:
                _create(here, "a", b"new")
            place.go_on.set()
            removing.result()
        assert caught.value.retryable
        _create(here, "a", b"new")
        assert here.load("a") == b"new"


def test_without_its_ledger_it_can_be_read_and_not_changed(place: Slow, tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()  # where the file is to be
    place.open()
    place.store("a", b"value")
    place.close()
    with layer(place, tmp_path) as here:
        assert here.load("a") == b"value"
        with pytest.raises(LedgerError):
            here.delete("a")
        with pytest.raises(LedgerError):
            here.store("a", b"")
        assert here.load("a") == b"value"


def test_what_the_place_can_by_itself_is_left_to_it(tmp_path: Path) -> None:
    place = Memory()
    place.create()
    with layer(place, tmp_path) as here:
        here.store("a", b"value")
        here.delete("a")
        with pytest.raises(ObjectNotFound):
            here.delete("a")
        assert here.capabilities == place.capabilities
        assert [*tmp_path.iterdir()] == [], "nobody asked the ledger"


def test_a_checkpoint_belongs_to_its_name(tmp_path: Path) -> None:
    class Resumable(Memory):
        capabilities = LookingDisk("/nonexistent").capabilities

    place = Resumable()
    place.create()
    with layer(place, tmp_path, patience=0.1) as here:
        writer = here.open_writer("a/å b", size=6)
        writer.write(b"abc")
        token = writer.checkpoint()
        resumed = here.resume_writer(token)
        resumed.write(b"def")
        with ThreadPoolExecutor(1) as pool, here.claiming("a/å b"):
            committing = pool.submit(resumed.commit)
            assert isinstance(committing.exception(), NameBusy)
        resumed.abort()
        with pytest.raises(ObjectNotFound):
            here.resume_writer(token)


def test_a_process_that_died_is_waited_for_once(place: Slow, tmp_path: Path) -> None:
    with layer(place, tmp_path, settling=1.5) as here:
        here.store("before", b"")
        assert os.waitpid(_dying_child(tmp_path), 0)[1] == 0
        took = []
        for _ in range(2):
            start = time.monotonic()
            here.store("a", b"value")
            took.append(time.monotonic() - start)
    assert took[0] >= 1.5
    assert took[1] < 1.5


def _dying_child(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ledger = SQLiteLedger(str(folder / "names"))
            ledger.open()
            claim = ledger.claiming("tried", ["a"], patience=1)
            claim.__enter__()
            status = 0
        finally:
            os._exit(status)
    return child
