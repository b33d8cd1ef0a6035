"""Google Cloud Storage as a place, through its real library, on a double of its API."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gcp_storage_emulator.server import create_server
from tests.kvstore import many_large_writes
from tests.kvstore.signed_in.kinds import CHECKS, GCS, Kind
from tests.kvstore.signed_in.told_doubles import change, requests
from tests.servers.double_process import DoubleProcess
from tests.servers.gcs_double import GcsDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.conformance import Check, Status, Subject

PART = GCS.part


def unfinished(double: GcsDouble) -> int:
    return sum(session.done is None for session in double.service.sessions.values())


@pytest.fixture(scope="module")
def kind() -> Kind:
    return GCS


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


def test_memory_of_many_large_writes(
    place: Backend, options: dict[str, Any], tmp_path: Path, url: str
) -> None:
    usual = {name: value for name, value in options.items() if name != "part_size"}
    assert many_large_writes.peak(url, usual, tmp_path) < many_large_writes.CEILING


class TestRequests:
    """What an operation costs: Google counts requests."""

    def test_a_new_item_takes_one_once_its_folder_is_known(
        self, place: Backend, double: DoubleProcess[GcsDouble]
    ) -> None:
        place.store("data/00/first", b"value")
        double.tell(requests)
        with place.open_writer("data/00/second", if_absent=True) as writer:
            writer.write(b"value")
        assert double.tell(requests) == ["POST upload"]
        place.load("data/00/second")
        assert double.tell(requests) == ["GET download"]
        with place.open_writer("data/00/large", if_absent=True) as writer:
            writer.write(bytes(2 * PART + 1))
        assert double.tell(requests) == ["POST upload", *["PUT upload"] * 3]
        place.delete("data/00/second")
        assert double.tell(requests) == ["DELETE storage"]

    def test_each_is_told_by_its_name(
        self, place: Backend, options: dict[str, Any], url: str
    ) -> None:
        told: list[str] = []
        with open_place(url, on_call=told.append, **options) as counted:
            counted.store("item", b"value")
            counted.load("item")
            counted.delete("item")
        assert told == ["objects.list", "objects.insert", "objects.get", "objects.delete"]


class TestFaults:
    def test_a_large_value_waits_until_the_old_one_is_out_of_the_way(
        self, place: Backend, double: DoubleProcess[GcsDouble]
    ) -> None:
        place.store("item", b"old")
        value = bytes(range(256)) * (PART // 100)
        double.tell(change, rewritten=1 << 20)
        writer = place.open_writer("item", if_absent=True)
        writer.write(value)
        with pytest.raises(ObjectExists):
            writer.commit()
        assert place.load("item") == b"old"
        place.delete("item")
        writer.commit()
        assert place.load("item") == value
        assert [entry.name for entry in place.list("")] == ["item"]
        assert place.reap(0) == 0, "nothing is left"

    def test_what_waited_for_a_writer_that_died_is_cleared_away(self, place: Backend) -> None:
        place.store("item", b"old")
        writer = place.open_writer("item", if_absent=True)
        writer.write(bytes(2 * PART + 1))
        with pytest.raises(ObjectExists):
            writer.commit()
        assert place.reap(3600.0) == 0, "the writer may be alive"
        assert place.reap(0) == 1
        assert place.load("item") == b"old"
        writer.abort()

    def test_a_value_that_came_in_the_middle_of_an_upload_stays(self, place: Backend) -> None:
        writer = place.open_writer("item", if_absent=True)
        writer.write(bytes(2 * PART + 1))
        place.store("item", b"first")
        with pytest.raises(ObjectExists):
            writer.commit()
        writer.abort()
        assert place.load("item") == b"first"

    def test_bytes_damaged_on_the_way_are_sent_again(
        self, place: Backend, double: DoubleProcess[GcsDouble]
    ) -> None:
        double.tell(change, damages=1)
        place.store("item", b"value")
        assert place.load("item") == b"value"
        double.tell(change, damages=1)
        with pytest.raises(BackendError), place.open_writer("large") as writer:
            writer.write(bytes(2 * PART + 1))
        assert not place.info("large").exists

    def test_a_key_that_may_not_delete(
        self, place: Backend, double: DoubleProcess[GcsDouble]
    ) -> None:
        place.store("item", b"value")
        double.tell(change, denied={"objects.delete"})
        with pytest.raises(PermissionDenied, match=r"storage\.objects\.delete"):
            place.delete("item")

    def test_an_upload_that_is_given_up_is_cancelled(
        self, place: Backend, double: DoubleProcess[GcsDouble]
    ) -> None:
        before = double.tell(unfinished)
        writer = place.open_writer("item")
        writer.write(bytes(2 * PART + 1))
        assert double.tell(unfinished) == before + 1
        writer.abort()  # the part under way takes it back when it has arrived
        deadline = time.monotonic() + 10
        while double.tell(unfinished) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert double.tell(unfinished) == before


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        ["gs://the-bucket/a/b", "gcs://the-bucket/a/b/", "gs:the-bucket:/a/b", "gs:the-bucket/a/b"],
    )
    def test_all_ways_of_writing_mean_the_same(self, url: str, options: dict[str, Any]) -> None:
        assert repr(open_place(url, **options)) == repr(
            open_place("gs://the-bucket/a/b", **options)
        )

    @pytest.mark.parametrize(
        ("url", "options", "message"),
        [
            ("gs://", {}, "gs://BUCKET/PATH"),
            ("gs://the-bucket/a/../b", {}, "segment"),
            ("gs://the-bucket/a?b=c", {}, "options go beside it"),
            ("gs://the-bucket", {"part_size": 1 << 20 | 1}, "256 KiB"),
            ("gs://the-bucket", {"endpoint": "ftp://x"}, "endpoint"),
            ("gs://the-bucket", {"cacert": "/no/such"}, "cacert"),
            ("gs://the-bucket", {"anonymous": True, "service_account": "{}"}, "exclude"),
        ],
    )
    def test_mistakes_are_named(self, url: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(BackendURLInvalid, match=message):
            open_place(url, **options)

    @pytest.mark.parametrize(
        "key", ["/no/such/file", '{"type": "service_account", "private_key": "top"}']
    )
    def test_a_key_that_is_none(self, key: str, options: dict[str, Any]) -> None:
        with pytest.raises(BackendURLInvalid, match="service_account") as caught:
            open_place("gs://the-bucket", **{**options, "service_account": key}).open()
        assert "top" not in str(caught.value)

    def test_a_key_in_a_file(self, options: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "key.json").write_text(options["service_account"])
        place = open_place(
            "gs://a-third-bucket", **{**options, "service_account": str(tmp_path / "key.json")}
        )
        place.create()
        with place:
            place.store("item", b"value")

    def test_nothing_to_sign_in_with(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        with pytest.raises(PermissionDenied, match="service_account"):
            open_place("gs://the-bucket").open()

    def test_a_bucket_that_is_not_there(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendDoesNotExist, match="no bucket"):
            open_place("gs://no-such-bucket/x", **options).open()
        with pytest.raises(BackendDoesNotExist):
            open_place("gs://no-such-bucket/x", create_bucket=False, **options).create()


def test_what_is_not_there(place: Backend) -> None:
    with pytest.raises(ObjectNotFound):
        place.move("nothing", "new")
    with pytest.raises(ObjectNotFound):
        place.delete("folder/nothing")
    assert not place.info("folder").exists


@pytest.fixture
def emulator() -> Iterator[str]:
    """The address of gcp-storage-emulator, which others have written; it knows no conditions."""
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        yield f"127.0.0.1:{server._api._httpd.server_address[1]}"
    finally:
        server.stop()


def test_an_emulator_of_others_understands_it(
    emulator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    with pytest.raises(BackendDoesNotExist, match="project"):
        open_place("gs://the-bucket/place").create()
    place = open_place("gs://the-bucket/place", part_size=PART, project="mine")
    place.create()
    large = bytes(range(256)) * (PART // 64)
    with place:
        place.store("folder/small", b"value")
        place.store("folder/large", large)
        assert place.load("folder/large", offset=PART - 1, size=3) == large[PART - 1 : PART + 2]
        assert place.hash("folder/large") == hashlib.sha256(large).hexdigest()
        place.copy("folder/small", "copy")
        place.move("folder/small", "moved")
        assert sorted(entry.name for entry in place.list("")) == ["copy", "folder", "moved"]
        assert [entry.name for entry in place.list("folder")] == ["large"]
        place.delete("folder/large")
        assert [*place.list("folder")] == []
    place.destroy()
    with pytest.raises(BackendDoesNotExist):
        place.open()
