"""The checks with other processes notice what one process alone cannot see."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.kvstore.naive_disk import DiskThatRemembers, NaiveDisk

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.conformance import Status, Subject, checks

BY_NAME = {check.name: check for check in checks}


@pytest.mark.parametrize(
    ("check", "backend"),
    [
        ("atomicity.killed_writer_leaves_nothing", NaiveDisk),
        ("concurrency.one_process_creates", NaiveDisk),
        ("concurrency.processes_see_no_torn_value", NaiveDisk),
        ("lifecycle.second_opening_sees_the_same", DiskThatRemembers),
    ],
)
def test_a_broken_promise_among_processes_is_noticed(
    tmp_path: Path, check: str, backend: type[NaiveDisk]
) -> None:
    with Subject(partial(backend, str(tmp_path / "place"))) as subject:
        result = BY_NAME[check].run(subject)
    assert result.status is Status.FAILED
    assert result.note


@pytest.mark.parametrize(
    "check",
    [
        "atomicity.killed_writer_leaves_nothing",
        "concurrency.one_process_creates",
        "concurrency.processes_see_no_torn_value",
        "lifecycle.second_opening_sees_the_same",
        "checkpoint.resumed_elsewhere",
    ],
)
def test_a_sound_backend_on_disk_passes_them(tmp_path: Path, check: str) -> None:
    from backupgw.kvstore import open_place

    with Subject(partial(open_place, f"file://{tmp_path}/place")) as subject:
        result = BY_NAME[check].run(subject)
    assert result.status is Status.OK, result.note


def test_a_factory_that_cannot_reach_other_processes_is_refused(tmp_path: Path) -> None:
    subject = Subject(lambda: NaiveDisk(str(tmp_path)))
    with pytest.raises(ValueError, match="picklable"), subject:
        pass


def test_an_existing_place_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "item").write_bytes(b"precious")
    with Subject(partial(NaiveDisk, str(tmp_path))) as subject:
        results = [check.run(subject) for check in checks if check.own_place]
        BY_NAME["operations.move_renames"].run(subject)
    assert {result.status for result in results} == {Status.NOT_OFFERED}
    assert (tmp_path / "mine" / "item").read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_place_made_for_the_suite_is_removed() -> None:
    subject = Subject(Memory)
    with subject:
        assert subject.owned
    with pytest.raises(Exception, match="never created"):
        subject.backend.open()
