"""The answer to a client leaves after the disk was told, never before: seen in system calls.

One request after the other on one connection, under strace. The same check, run on servers that
leave a sync out, names the one that is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.protocol import Client, blob_name
from tests.faults.server_process import (
    Program,
    flawed,
    gateway,
    gateway_without_syncs,
    running,
)
from tests.faults.system_calls import (
    NAMING,
    Call,
    Trace,
    by_answer,
    folder_synced,
    missing_for_folders,
    missing_for_removed,
    missing_for_stored,
)
from tests.faults.visible import on_disk

pytestmark = [pytest.mark.root("strace"), pytest.mark.timeout(120)]

FILE = "the file is not synced between its last byte and its name"
FOLDER = "the folder is not synced between the name and the answer"
REMOVAL = "the folder is not synced between the removal and the answer"


def trace(program: Program, root: Path, send: Callable[[Client], list[int]]) -> list[list[Call]]:
    """The calls behind each request that `send` makes; all must be answered with 200."""
    store = root / "store"
    store.mkdir(exist_ok=True)
    with running(program, store) as server, Client(server.port) as client:
        assert client.create("there") == 200
        tracing = Trace(server.pid, root / "trace")
        with tracing:
            statuses = send(client)
            # A client can have its answer before strace has seen the call that sent it return.
            # Whoever answers again has returned; of this one, strace may or may not see the end.
            assert client.create("there") == 200
    assert statuses == [200] * len(statuses), client.said
    requests = by_answer(tracing.calls())
    assert len(requests) - len(statuses) in (0, 1), "strace saw another number of answers"
    return requests[: len(statuses)]


def place(root: Path, path: str) -> Path:
    return on_disk(root.resolve() / "store", path)


def stored(program: Program, root: Path, repository: str) -> list[str]:
    body = b"a blob" * 300_000
    [request] = trace(program, root, lambda client: [client.upload(repository, "data", body)])
    return missing_for_stored(request, place(root, f"{repository}/data/{blob_name(body)}"))


def removed(program: Program, root: Path) -> list[str]:
    body = b"a lock"
    path = f"there/locks/{blob_name(body)}"
    requests = trace(
        program,
        root,
        lambda client: [client.upload("there", "locks", body), client.delete(path)],
    )
    return missing_for_removed(requests[1], place(root, path))


def test_a_blob_is_synced_before_the_answer(tmp_path: Path) -> None:
    assert stored(gateway(), tmp_path, "there") == []


def test_new_folders_are_synced_with_the_blob_that_needed_them(tmp_path: Path) -> None:
    assert stored(gateway(), tmp_path, "new/inner") == []


def test_a_created_repository_is_synced_before_the_answer(tmp_path: Path) -> None:
    [request] = trace(gateway(), tmp_path, lambda client: [client.create("new/inner")])
    assert sum(call.name.startswith("mkdir") and call.result == 0 for call in request) >= 7
    assert missing_for_folders(request) == []


def test_the_config_is_synced_before_the_answer(tmp_path: Path) -> None:
    [request] = trace(gateway(), tmp_path, lambda client: [client.save_config("there", b"c" * 155)])
    assert missing_for_stored(request, place(tmp_path, "there/config")) == []


def test_a_removal_is_synced_before_the_answer(tmp_path: Path) -> None:
    assert removed(gateway(), tmp_path) == []


def test_a_repeated_upload_is_not_promised_on_anothers_sync(tmp_path: Path) -> None:
    """The first upload may have died between the name and the sync: the second must sync."""
    body = b"sent twice"
    requests = trace(
        gateway(), tmp_path, lambda client: [client.upload("there", "data", body) for _ in "12"]
    )
    folder = place(tmp_path, f"there/data/{blob_name(body)}").parent
    assert folder_synced(requests[1], folder, after=0, before=requests[1][-1].start)


def twins_answered_early(program: Program, root: Path) -> bool:
    """Whether one of two uploads of a blob at once was told 200 before the folder was synced.

    Every sync is held up, so that the second finds the first between its name and its sync.
    """
    store = root / "store"
    store.mkdir()
    body = b"sent by two at once"
    statuses: list[int] = []

    def upload(client: Client) -> None:
        statuses.append(client.upload("there", "data", body))

    with running(program, store) as server, Client(server.port) as one, Client(server.port) as two:
        assert one.create("there") == 200
        assert two.create("there") == 200
        slow = "fsync:delay_enter=300000"
        tracing = Trace(server.pid, root / "trace", inject=[slow])
        with tracing:
            threads = [threading.Thread(target=upload, args=(client,)) for client in (one, two)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert one.create("there") == 200  # as in `trace`
    assert statuses == [200, 200]
    calls = tracing.calls()
    file = place(root, f"there/data/{blob_name(body)}")
    naming = next(
        call
        for call in calls
        if call.name in NAMING and call.result == 0 and call.places[-1] == str(file)
    )
    answers = [call for call in calls if call.is_answer]
    assert len(answers) in (2, 3), "strace saw another number of answers"
    return not all(
        folder_synced(calls, file.parent, after=naming.end, before=answer.start)
        for answer in answers[:2]
    )


def test_of_two_uploads_at_once_neither_is_answered_before_the_sync(tmp_path: Path) -> None:
    assert not twins_answered_early(gateway(), tmp_path)


class TestTheCheckItself:
    """A sound stand-in passes, and each defect is named."""

    def test_sound(self, tmp_path: Path) -> None:
        assert stored(flawed(), tmp_path, "there") == []
        assert stored(flawed(), tmp_path, "new/inner") == []
        assert removed(flawed(), tmp_path) == []

    def test_twins(self, tmp_path: Path) -> None:
        (tmp_path / "sound").mkdir()
        assert not twins_answered_early(flawed(), tmp_path / "sound")
        trials = [tmp_path / f"early-{number}" for number in range(5)]
        for trial in trials:
            trial.mkdir()
        # On a busy machine the second may come when the first is through.
        assert any(twins_answered_early(flawed("early-answer"), trial) for trial in trials)

    @pytest.mark.parametrize(
        ("flaw", "named"),
        [
            ("no-file-sync", [FILE]),
            ("no-folder-sync", [FOLDER]),
            ("early-answer", [FOLDER]),
            ("no-file-sync,no-folder-sync", [FILE, FOLDER]),
        ],
    )
    def test_flaws(self, tmp_path: Path, flaw: str, named: list[str]) -> None:
        assert stored(flawed(flaw), tmp_path, "there") == named

    def test_parent(self, tmp_path: Path) -> None:
        missing = stored(flawed("no-parent-sync"), tmp_path, "new/inner")
        assert len(missing) >= 3
        assert all(line.endswith("made, but its parent is not synced") for line in missing)

    def test_removal(self, tmp_path: Path) -> None:
        assert removed(flawed("no-folder-sync"), tmp_path) == [REMOVAL]

    def test_a_gateway_told_not_to_sync(self, tmp_path: Path) -> None:
        assert stored(gateway_without_syncs(), tmp_path, "there") == [FILE, FOLDER]
