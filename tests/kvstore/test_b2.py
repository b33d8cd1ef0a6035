"""Backblaze B2: the real SDK, on its own simulator and over HTTP on a double."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from b2sdk.v3.exception import ServiceError
from tests.conftest import SOAK
from tests.kvstore.b2_places import BUCKET, Simulator, http_place, simulated_place
from tests.kvstore.filled_folders import in_double
from tests.servers.b2_double import KEY, KEY_ID, B2Double, B2Service, error_answer
from tests.servers.double import Double, Fault, Faults
from tests.servers.double_process import DoubleProcess

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.b2 import B2
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.layers.retry import from_options as retry
from backupgw.kvstore.registry import redact_url

MIB = 1 << 20


@pytest.fixture
def service() -> Iterator[tuple[B2Service, Double]]:
    found = B2Service()
    with Double(found) as double:
        found.url = double.url
        yield found, double


@pytest.fixture
def place(service: tuple[B2Service, Double]) -> Iterator[B2]:
    backend = http_place(service[1].url, "place")
    backend.create()
    with backend:
        yield backend


# -- every promise of a backend

SLOW = {
    "listing.list_streams",
    "listing.entries_may_vanish",
    "listing.abandoned_lists_are_harmless",
    "concurrency.processes_see_no_torn_value",
}
"""Thousands of requests each; `make soak` runs them."""


def fill_folder(double: B2Double, path: str, names: Sequence[str]) -> None:
    bucket = double.service._named(BUCKET)
    for name in names:
        double.service._store(bucket, f"{path}/{name}", b"", "none")


def empty_folder(double: B2Double, path: str, names: Sequence[str]) -> None:
    bucket = double.service._named(BUCKET)
    for name in names:
        bucket.drop(bucket.files[f"{path}/{name}"][0])


@pytest.fixture(scope="module")
def http_subject() -> Iterator[Subject]:
    with DoubleProcess(B2Double) as double:
        make = partial(http_place, double.url, "place", memory=0)
        fill = in_double(double, fill_folder, empty_folder, "place")
        with Subject(make, soak=SOAK, fill=fill) as subject:
            yield subject


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(each, id=str(each), marks=[pytest.mark.soak] * (each.name in SLOW))
        for each in checks
    ],
)
def test_conformance_over_http(check: Check, http_subject: Subject) -> None:
    result = check.run(http_subject)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture(scope="module")
def simulated_subject() -> Iterator[Subject]:
    make = partial(simulated_place, Simulator(), "place", memory=0)
    with Subject(make, soak=SOAK) as subject:
        yield subject


NOT_IN_SIMULATOR = (
    "streaming.",  # it sleeps between the pieces of a download, and holds copies in this process
    "listing.list_streams",
    "listing.mtime_is_told",  # its clock counts from 5000
    "checkpoint.",  # it stumbles over uploads that are gone
    "concurrency.threads_see_no_torn_value",  # it stumbles over what was removed meanwhile
)
IN_SIMULATOR = [each for each in checks if not each.name.startswith(NOT_IN_SIMULATOR)]
"""The others run over HTTP."""


@pytest.mark.parametrize("check", IN_SIMULATOR, ids=str)
def test_conformance_in_the_simulator(check: Check, simulated_subject: Subject) -> None:
    result = check.run(simulated_subject)
    assert result.status is not Status.FAILED, result.note


def test_uploads_that_fail_are_repeated() -> None:
    simulator = Simulator()
    backend = simulated_place(simulator, "place")
    backend.create()
    with backend:
        simulator.set_upload_errors([ServiceError("503"), ServiceError("503")])
        backend.store("item", b"value")
        assert backend.load("item") == b"value"


def test_what_expired_is_renewed() -> None:
    simulator = Simulator()
    backend = simulated_place(simulator, "place")
    backend.create()
    with backend:
        backend.store("item", b"value")
        simulator.expire_auth_token(simulator.current_token)
        assert backend.load("item") == b"value"


# -- foul weather


def test_expired_tokens_in_the_middle_of_a_large_file(
    service: tuple[B2Service, Double], place: B2
) -> None:
    value = os.urandom(17 * MIB)
    with place.open_writer("large") as writer:
        writer.write(value[: 8 * MIB])
        service[0].expire()
        writer.write(value[8 * MIB :])
    assert service[0].authorized > 2
    assert place.load("large") == value
    assert service[0].unfinished == {}


def test_a_fifth_of_all_requests_fails(service: tuple[B2Service, Double], place: Backend) -> None:
    double = service[1]
    backend = retry(place)
    double.faults = Faults(rate=0.2, seed=1, answer=error_answer)
    values = {f"folder/{number}": os.urandom(100_000) for number in range(20)}
    values["large"] = os.urandom(12 * MIB)
    for name, value in values.items():
        backend.store(name, value)
    assert {name: backend.load(name) for name in values} == values
    for name in values:
        backend.delete(name)
    assert double.faults.hit > 15
    double.faults = Faults()
    assert [*backend.list("folder")] == []
    assert service[0].unfinished == {}


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_an_answer_that_is_lost(
    size: int, service: tuple[B2Service, Double], place: Backend
) -> None:
    """What took effect is not done twice, and if_absent does not refuse its own value."""
    found, double = service
    value = os.urandom(size)
    ends = ("b2_upload_file", "b2_finish_large_file")
    with place.open_writer("item", if_absent=True) as writer:
        writer.write(value)
        double.faults = Faults(
            rate=1,
            kinds=[Fault.LOST],
            limit=1,
            only=lambda scope: any(e in scope["path"] for e in ends),
        )
    assert place.load("item") == value
    assert found.versions(BUCKET, "place/item") == ["upload"]


def test_the_service_is_restarted_while_it_is_read(
    service: tuple[B2Service, Double], place: B2
) -> None:
    value = os.urandom(20 * MIB)
    place.store("item", value)
    with place.open_reader("item") as reader:
        got = reader.read(1000)
        service[1].restart()
        while piece := reader.read(MIB):
            got += piece
    assert got == value


def test_a_full_account_fails_at_once(service: tuple[B2Service, Double], place: B2) -> None:
    found, double = service
    found.storage_cap = 6 * MIB
    place.store("small", b"value")
    for size in (7 * MIB, 20 * MIB):
        before = double.calls.count(lambda call: call.status == 403)
        with pytest.raises(StorageFull, match="storage cap of the account is reached") as caught:
            place.store("large", bytes(size))
        assert not caught.value.retryable
        assert double.calls.count(lambda call: call.status == 403) - before <= 6, "once a part"
    assert place.load("small") == b"value"
    place.close()  # waits for what was under way, which clears away
    assert found.unfinished == {}
    place.open()


def test_a_revoked_key(service: tuple[B2Service, Double], place: B2) -> None:
    writer = place.open_writer("item")
    writer.write(bytes(8 * MIB))
    service[0].revoked = True
    with pytest.raises(PermissionDenied, match="unknown, expired or revoked") as caught:
        writer.commit()
    assert not caught.value.retryable
    assert KEY not in str(caught.value)
    service[0].revoked = False
    writer.abort()
    assert not place.info("item").exists


def test_too_many_requests_tells_when(service: tuple[B2Service, Double], place: B2) -> None:
    service[1].faults = Faults(
        rate=1, kinds=[Fault.TOO_MANY], retry_after=7, answer=error_answer, limit=1
    )
    with pytest.raises(BackendError) as caught:
        place.info("item")
    assert (caught.value.retryable, caught.value.retry_after) == (True, 7.0)


# -- keys


def test_a_key_without_what_is_needed(service: tuple[B2Service, Double], place: B2) -> None:
    service[0].capabilities = ("listBuckets", "listFiles", "writeFiles")
    with pytest.raises(PermissionDenied, match="lacks readFiles; make one that has"):
        http_place(service[1].url, "place").open()


def test_a_key_that_may_not_delete(service: tuple[B2Service, Double], place: B2) -> None:
    service[0].capabilities = ("listBuckets", "listFiles", "readFiles", "writeFiles")
    with http_place(service[1].url, "place") as backend:
        backend.store("item", b"value")
        with pytest.raises(PermissionDenied, match="it has listBuckets, listFiles, readFiles, wri"):
            backend.delete("item")
        assert backend.load("item") == b"value"


def test_a_key_for_one_bucket_and_one_path(service: tuple[B2Service, Double], place: B2) -> None:
    found, double = service
    found.only_bucket, found.prefix = BUCKET, "place/"
    with http_place(double.url, "place") as backend:
        backend.store("item", b"value")
        assert backend.load("item") == b"value"
    with pytest.raises(PermissionDenied, match="names that begin with 'place/'"):
        http_place(double.url, "elsewhere").open()


def test_a_wrong_key(service: tuple[B2Service, Double]) -> None:
    url = f"backblaze:{KEY_ID}:wrong-secret@{BUCKET}/place"
    with pytest.raises(PermissionDenied) as caught:
        open_place(url, realm=service[1].url).open()
    assert "wrong-secret" not in str(caught.value) + repr(caught.value.__cause__)


def test_no_secret_is_logged(
    service: tuple[B2Service, Double], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        backend = http_place(service[1].url, "place")
        backend.create()
        with backend:
            backend.store("item", b"value")
            backend.load("item")
    assert KEY not in caplog.text
    assert "4_token_" not in caplog.text
    assert "4_upload_" not in caplog.text
    assert KEY not in repr(backend)


# -- versions


def test_older_versions_go_when_an_item_is_replaced(
    service: tuple[B2Service, Double], place: B2
) -> None:
    for value in (b"one", b"two", b"three"):
        place.store("item", value)
    assert service[0].versions(BUCKET, "place/item") == ["upload"]
    assert place.load("item") == b"three"
    place.delete("item")
    assert service[0].versions(BUCKET, "place/item") == []


def test_versions_can_be_kept(service: tuple[B2Service, Double], place: B2) -> None:
    with http_place(service[1].url, "place", versions="all") as backend:
        backend.store("item", b"one")
        backend.store("item", b"two")
        backend.delete("item")
        assert not backend.info("item").exists
        assert [*backend.list("")] == []
        with pytest.raises(ObjectNotFound):
            backend.delete("item")
    assert service[0].versions(BUCKET, "place/item") == ["hide", "upload", "upload"]


def test_hiding_instead_of_removing(service: tuple[B2Service, Double], place: B2) -> None:
    with http_place(service[1].url, "place", delete="hide") as backend:
        backend.store("item", b"one")
        backend.delete("item")
        assert not backend.info("item").exists
        backend.store("item", b"two")
        assert backend.load("item") == b"two"


def test_of_two_that_create_one_name_the_later_counts(
    service: tuple[B2Service, Double], place: B2
) -> None:
    with http_place(service[1].url, "place") as other:
        first = place.open_writer("item", if_absent=True)
        first.write(b"first")
        second = other.open_writer("item", if_absent=True)
        second.write(b"second")
        first.commit()
        with pytest.raises(ObjectExists):
            second.commit()
        second.abort()
    # As it is when both looked at the same moment:
    place._bucket.put("item", b"later")
    with http_place(service[1].url, "place") as other:
        assert place.load("item") == other.load("item") == b"later"
        assert [info.name for info in other.list("")] == ["item"]
        other.delete("item")
    assert service[0].versions(BUCKET, "place/item") == [], "an older one would come back"


# -- what else B2 is


def test_unfinished_large_files_are_reaped(service: tuple[B2Service, Double], place: B2) -> None:
    writer = place.open_writer("large")
    writer.write(bytes(11 * MIB))
    assert [*place.list("")] == []
    assert place.reap(3600) == 0
    assert place.reap(0) == 1
    writer.abort()
    assert service[0].unfinished == {}


def test_a_list_asks_once_for_a_folder_of_thousands(
    service: tuple[B2Service, Double], place: B2
) -> None:
    found, double = service
    bucket = next(iter(found.buckets.values()))
    for number in range(3500):
        found._store(bucket, f"place/deep/{number:05}", b"", "none")
    place.store("zoo", b"value")
    double.calls.clear()
    assert sorted(info.name for info in place.list("")) == ["deep", "zoo"]
    assert double.calls.count(lambda call: "b2_list_file_names" in call.path) <= 2
    assert sum(1 for _ in place.list("deep")) == 3500


def test_what_is_in_one_request_and_what_in_parts(
    service: tuple[B2Service, Double], place: B2
) -> None:
    double = service[1]
    place.store("small", bytes(5_000_000))
    assert double.calls.count(lambda call: "b2_upload_part" in call.path) == 0
    place.store("large", bytes(12_000_000))
    assert double.calls.count(lambda call: call.path.startswith("/b2api/v4/b2_upload_part/")) == 3


def test_names_that_b2_has_no_room_for(place: B2) -> None:
    for name in ("n" * 251, "é" * 126, "/".join(["d" * 100] * 11)):
        with pytest.raises(NameTooLong):
            place.store(name, b"")
        assert not place.info(name).exists


def test_nobody_listens() -> None:
    with pytest.raises(BackendConnectionError):
        http_place("http://127.0.0.1:9", "place").open()


def test_a_bucket_that_does_not_exist(service: tuple[B2Service, Double]) -> None:
    with pytest.raises(BackendDoesNotExist, match="there is no such bucket"):
        http_place(service[1].url, "place").open()


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("backblaze:", {}, "a B2 URL is"),
        ("backblaze:short/path", {}, "a B2 URL is"),
        ("backblaze:bucket-name/path", {}, "needs key_id and application_key"),
        ("backblaze:id:key@bucket-name/a/../b", {}, "the path in the bucket"),
        ("backblaze:id:key@bucket-name", {"delete": "no"}, "'remove' or 'hide'"),
        ("backblaze:id:key@bucket-name", {"versions": "no"}, "'newest' or 'all'"),
        ("backblaze:id:key@bucket-name", {"part_size": 5}, "5 MB|from 5000000"),
    ],
)
def test_mistakes_are_named(url: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BackendURLInvalid, match=complaint):
        open_place(url, **options)  # type: ignore[arg-type]


def test_a_url_is_shown_without_its_key() -> None:
    assert KEY not in redact_url(f"backblaze:{KEY_ID}:{KEY}@{BUCKET}/path")


def test_no_secret_is_in_a_command_line(service: tuple[B2Service, Double], place: B2) -> None:
    place.store(secrets.token_hex(4), b"value")
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert KEY.encode() not in line.read_bytes()
        except OSError:
            continue  # it has ended
