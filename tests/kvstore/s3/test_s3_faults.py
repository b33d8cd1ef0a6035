"""Places on S3 whose service is slow, closed to the key, or down; and what writers leave."""

from __future__ import annotations

import hashlib
import random
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore.s3.places import DIGEST, PART, VALUE, made, on_ceph, write
from tests.servers.ceph import Ceph
from tests.servers.double import Double, Fault, Faults
from tests.servers.http_proxy import faulty
from tests.servers.s3 import KEY_ID, SECRET, Moto

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import s3_upkeep
from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError, PermissionDenied


@on_ceph
def test_orphans_are_cleared_away_and_the_living_are_not(ceph: Ceph) -> None:
    with made(ceph.url("orphans/place")) as place:
        for number in range(3):  # nobody ends these
            upload = ceph.client().create_multipart_upload(
                Bucket="orphans", Key=f"place/orphan{number}"
            )
            ceph.client().upload_part(
                Bucket="orphans",
                Key=f"place/orphan{number}",
                UploadId=upload["UploadId"],
                PartNumber=1,
                Body=b"x" * 100,
            )
        ceph.client().create_multipart_upload(Bucket="orphans", Key="another/upload")
        writer = place.open_writer("checkpointed")
        writer.write(VALUE)
        token = writer.checkpoint()
        assert place.reap(24 * 3600.0) == 0
        time.sleep(1.1)  # the service's times are whole seconds
        assert place.reap(1.0) == 3
        assert sorted(ceph.uploads("orphans")) == ["another/upload", "place/checkpointed"]
        place.resume_writer(token).commit()
        assert place.hash("checkpointed") == DIGEST
        given_up = place.open_writer("given up")
        given_up.write(VALUE)
        given_up.abort()
    assert ceph.uploads("orphans") == ["another/upload"]
    assert [key for key in ceph.keys("orphans", "place/") if "-part-" in key] == []


@on_ceph
def test_orphans_go_when_a_place_is_opened(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    url = ceph.url("left/place")
    with made(url):
        ceph.client().create_multipart_upload(Bucket="left", Key="place/orphan")
    with open_place(url):
        pass  # closing waits for what it does beside
    assert ceph.uploads("left") == ["place/orphan"]
    later = types.SimpleNamespace(time=lambda: time.time() + 2 * 86400)
    monkeypatch.setattr(s3_upkeep, "time", later)
    with open_place(url):
        pass
    assert ceph.uploads("left") == []


@on_ceph
def test_a_wrong_key_is_told(ceph: Ceph) -> None:
    for key, option in (
        (f"{KEY_ID}:wrong{SECRET}", "secret_access_key"),
        (f"NOBODY:{SECRET}", "access_key_id"),
    ):
        with faulty(ceph.endpoint) as proxy:
            with pytest.raises(PermissionDenied, match=option) as caught:
                open_place(f"s3:{key}@{proxy.url}/rules/ceph").open()
            assert len(proxy.calls) == 1, "what waiting cannot help was tried again"
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nobody_listens(moto: Moto) -> None:
    url = f"s3:{KEY_ID}:{SECRET}@http://127.0.0.1:9/bucket/place"
    with pytest.raises(BackendConnectionError, match="cannot be reached") as caught:
        open_place(url, attempts=2).open()
    assert caught.value.retryable


def test_without_credentials_it_says_what_to_do(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PermissionDenied, match="set access_key_id"):
        open_place(f"s3:{moto.endpoint}/bucket/place").open()
    with pytest.raises(PermissionDenied, match="list-profiles"):
        open_place(f"s3:nobody@{moto.endpoint}/bucket/place").open()
    (tmp_path / "none").write_text(f"[p]\naws_access_key_id={KEY_ID}\naws_secret_access_key=s\n")
    with made(f"s3:p@{moto.endpoint}/profiles/place") as place:
        place.store("a", b"value")


@on_ceph
def test_a_key_revoked_in_the_middle(ceph: Ceph) -> None:
    with made(ceph.url("revoked/place")) as place:
        place.store("old", b"old")
        writer = place.open_writer("old")
        writer.write(VALUE[: PART + 1000])
        ceph.revoke_key()
        try:
            with pytest.raises(PermissionDenied):
                _finish(writer)
            writer.abort()
        finally:
            ceph.restore_key()
        assert place.load("old") == b"old"
        write(place, "old", expected_hash=DIGEST)
        assert place.hash("old") == DIGEST
        place.reap(0)
    assert ceph.uploads("revoked") == []


def _finish(writer: Any) -> None:
    writer.write(VALUE[PART + 1000 :])
    writer.commit()


@on_ceph
def test_a_service_that_dies_in_the_middle_of_an_upload(ceph: Ceph) -> None:
    with made(ceph.url("killed/place"), attempts=10) as place:
        writer = place.open_writer("item", size=len(VALUE), expected_hash=DIGEST)
        writer.write(VALUE[: PART + 1000])
        ceph.kill_gateway()
        try:
            assert not _answers(ceph)
        finally:
            ceph.start_gateway()
        writer.write(VALUE[PART + 1000 :])
        writer.commit()
        with place.open_reader("item") as reader:
            read = reader.read(100_000)
            ceph.kill_gateway()
            ceph.start_gateway()
            while piece := reader.read(1 << 20):
                read += piece
        assert read == VALUE


def _answers(ceph: Ceph) -> bool:
    try:
        open_place(ceph.url("killed/place"), attempts=1).open()
    except BackendConnectionError:
        return False
    return True


@pytest.fixture
def flaky(moto: Moto) -> Iterator[Double]:
    with faulty(moto.endpoint) as proxy:
        yield proxy


def through(moto: Moto, proxy: Double, path: str) -> str:
    return moto.url(path, endpoint=proxy.url)


def test_a_fifth_of_the_answers_is_a_failure(moto: Moto, flaky: Double) -> None:
    place = made(through(moto, flaky, "flaky/place"), attempts=12)
    kinds = [Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.CUT]
    flaky.faults = Faults(rate=0.2, kinds=kinds, seed=4)
    kept: dict[str, bytes] = {}
    dice = random.Random(2)
    with place:
        for number in range(25):
            name, size = f"folder{number % 3}/{number}", dice.choice([0, 1000, 200_000, PART + 7])
            kept[name] = VALUE[:size]
            write(
                place,
                name,
                kept[name],
                if_absent=number % 2 == 0,
                expected_hash=hashlib.sha256(kept[name]).hexdigest(),
            )
            if number % 5 == 4:
                gone = dice.choice(sorted(kept))
                place.delete(gone)
                del kept[gone]
            if number % 7 == 6:
                moved = dice.choice(sorted(kept))
                place.move(moved, f"{moved}.moved")
                kept[f"{moved}.moved"] = kept.pop(moved)
        for name, value in kept.items():
            assert place.load(name) == value
        listed = {
            f"{folder.name}/{info.name}"
            for folder in place.list("")
            for info in place.list(folder.name)
        }
        assert listed == set(kept)
    assert flaky.faults.hit > 20
    flaky.faults = Faults()
    client = moto.client()
    left = client.list_multipart_uploads(Bucket="flaky").get("Uploads", [])
    for each in left:
        # Its beginning was answered into nothing, so nobody knew of it.
        parts = client.list_parts(Bucket="flaky", Key=each["Key"], UploadId=each["UploadId"])
        assert not parts.get("Parts"), "a part of a value was left behind"
    with place:
        assert place.reap(0.0) == len(left)
    assert moto.uploads("flaky") == []


def test_a_stall_ends(moto: Moto, flaky: Double) -> None:
    place = made(through(moto, flaky, "stalls/place"), timeout=1)
    with place:
        for fault_number in range(3):
            flaky.faults = Faults(rate=1.0, kinds=[Fault.STALL], stall=60, limit=1)
            start = time.monotonic()
            write(place, "item", expected_hash=DIGEST)
            assert flaky.faults.hit == 1, fault_number
            assert time.monotonic() - start < 30
        flaky.faults = Faults(rate=1.0, kinds=[Fault.STALL], stall=60, limit=1)
        assert place.hash("item") == DIGEST


def test_a_service_that_only_refuses_is_not_asked_for_ever(moto: Moto, flaky: Double) -> None:
    place = made(through(moto, flaky, "busy/place"), attempts=3)
    with place:
        flaky.faults = Faults(rate=1.0, kinds=[Fault.UNAVAILABLE])
        flaky.calls.clear()
        with pytest.raises(BackendError, match="503") as caught:
            place.load("item")
        assert caught.value.retryable
        asked = flaky.calls.count(lambda call: call.path.endswith("/item"))
        assert asked == 3, "the library repeats, and so do we"
