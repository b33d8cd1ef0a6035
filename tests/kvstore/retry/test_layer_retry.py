"""Failures that pass are not noticed; those that do not are told; nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kvstore.retry.naps import Time, broken

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.retry import RetryLayer
from backupgw.kvstore.layers.retry_schedule import Schedule
from backupgw.kvstore.layers.stack import LayerInvalid
from backupgw.kvstore.registry import open_place


class Scripted(Layer):
    """Raises what a test put into `errors`, one a call; `after` lets the call take effect first."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.errors: list[BackendError] = []
        self.after = False
        self.calls = 0

    def _strike(self, *, took_effect: bool) -> None:
        if self.errors and self.after is took_effect:
            raise self.errors.pop(0)

    def info(self, name: str) -> ItemInfo:
        self.calls += 1
        self._strike(took_effect=False)
        return super().info(name)

    def delete(self, name: str) -> None:
        self.calls += 1
        self._strike(took_effect=False)
        super().delete(name)
        self._strike(took_effect=True)

    def move(self, name: str, new_name: str) -> None:
        self.calls += 1
        self._strike(took_effect=False)
        super().move(name, new_name)
        self._strike(took_effect=True)

    def rmdir(self, name: str) -> None:
        self._strike(took_effect=False)
        super().rmdir(name)
        self._strike(took_effect=True)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    place = Scripted(Memory())
    place.create()
    place.open()
    place.store("item", b"value")
    yield place
    place.close()


def test_the_pauses_double_up_to_the_longest_and_the_last_error_is_told(
    scripted: Scripted, time: Time
) -> None:
    scripted.errors = [BackendConnectionError(str(number)) for number in range(7)]
    with pytest.raises(BackendConnectionError, match="6"):
        RetryLayer(scripted, time.schedule(attempts=7)).info("item")
    assert time.naps == [1, 2, 4, 8, 10, 10]
    assert scripted.calls == 7


def test_a_pause_is_random_so_that_clients_do_not_come_back_together(scripted: Scripted) -> None:
    naps: set[float] = set()
    layer = RetryLayer(scripted, Schedule(attempts=9, first=8.0, longest=8.0, sleep=naps.add))
    scripted.errors = [broken() for _ in range(8)]
    layer.info("item")
    assert len(naps) == 8
    assert all(0 <= nap <= 8 for nap in naps)


def test_what_the_place_asks_for_is_waited_for(scripted: Scripted, time: Time) -> None:
    scripted.errors = [broken(retry_after=30)]
    RetryLayer(scripted, time.schedule()).info("item")
    assert time.naps == [31]


def test_a_pause_beyond_the_deadline_is_not_begun(scripted: Scripted, time: Time) -> None:
    scripted.errors = [broken(), broken(retry_after=500)]
    with pytest.raises(BackendConnectionError):
        RetryLayer(scripted, time.schedule()).info("item")
    assert time.naps == [1]


def test_an_error_that_will_not_pass_is_told_at_once(scripted: Scripted, time: Time) -> None:
    scripted.errors = [PermissionDenied("no")]
    with pytest.raises(PermissionDenied):
        RetryLayer(scripted, time.schedule()).delete("item")
    assert (scripted.calls, time.naps) == (1, [])


def test_a_delete_whose_answer_was_lost_succeeds(scripted: Scripted, time: Time) -> None:
    scripted.after = True
    scripted.errors = [broken()]
    RetryLayer(scripted, time.schedule()).delete("item")
    assert not scripted.info("item").exists


def test_a_folder_whose_removal_was_not_answered_is_removed(scripted: Scripted, time: Time) -> None:
    scripted.mkdir("folder")
    scripted.after = True
    scripted.errors = [broken()]
    RetryLayer(scripted, time.schedule()).rmdir("folder")
    assert not scripted.info("folder").exists


def test_a_missing_item_is_told_where_no_attempt_failed(scripted: Scripted, time: Time) -> None:
    layer = RetryLayer(scripted, time.schedule())
    with pytest.raises(ObjectNotFound):
        layer.delete("nothing")
    with pytest.raises(ObjectNotFound):
        layer.move("nothing", "other")
    with pytest.raises(ObjectNotFound):
        layer.rmdir("nothing")


def test_a_move_whose_answer_was_lost_succeeds(scripted: Scripted, time: Time) -> None:
    scripted.after = True
    scripted.errors = [broken()]
    RetryLayer(scripted, time.schedule()).move("item", "folder/new")
    assert scripted.load("folder/new") == b"value"
    assert not scripted.info("item").exists


def test_a_move_without_a_trace_of_the_item_is_told(scripted: Scripted, time: Time) -> None:
    scripted.inner.delete("item")
    scripted.errors = [broken()]
    with pytest.raises(ObjectNotFound):
        RetryLayer(scripted, time.schedule()).move("item", "new")


def test_a_streamed_write_is_never_repeated_and_says_that_it_can_be(time: Time) -> None:
    class Full(Layer):
        commits = 0

        def open_writer(self, name: str, **options: object):  # type: ignore[no-untyped-def]
            writer = super().open_writer(name)
            commit = writer.commit

            def once() -> None:
                type(self).commits += 1
                if type(self).commits == 1:
                    raise broken()
                commit()

            writer.commit = once  # type: ignore[method-assign]
            return writer

    place = Full(Memory())
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        with pytest.raises(BackendConnectionError) as caught, layer.open_writer("item") as writer:
            writer.write(b"value")
        assert caught.value.retryable
        assert (Full.commits, time.naps) == (1, [])
        assert not layer.info("item").exists
        layer.store("item", b"value")
        assert layer.load("item") == b"value"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attempts": 0}, "attempts: must be a whole number of at least 1, not 0"),
        ({"attempts": "often"}, "attempts: must be a whole number"),
        ({"deadline": "soon"}, "deadline: 'soon' is no time; write"),
        ({"first_pause": 20}, "longest_pause: must be at least first_pause, 20 s"),
        ({"tries": 3}, "tries: unknown option 'tries'.*attempts"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(LayerInvalid, match=f"layer retry: {says}"):
        open_place("memory:", layers=[{"layer": "retry", **options}])
