"""Places on S3 when the service is large, slow, closed to the key, or down for a moment."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import random
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.kvstore import many_large_writes
from tests.servers import peers
from tests.servers.ceph import PROGRAMS, Ceph
from tests.servers.double import Double, Fault, Faults
from tests.servers.http_proxy import faulty
from tests.servers.s3 import KEY_ID, SECRET, Moto, RcloneS3
from tests.servers.tls import Certificate

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import s3_signature, s3_upkeep
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    NameTooLong,
    ObjectExists,
    PermissionDenied,
)
from backupgw.kvstore.backends.s3 import S3

on_ceph = pytest.mark.root(*PROGRAMS)

PART = 5 << 20
VALUE = random.Random(1).randbytes(2 * PART + 12345)
DIGEST = hashlib.sha256(VALUE).hexdigest()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    with RcloneS3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


def made(url: str, **options: Any) -> Backend:
    place = open_place(url, **options)
    place.create()
    return place


def write(place: Backend, name: str, value: bytes = VALUE, **terms: Any) -> None:
    with place.open_writer(name, size=len(value), **terms) as writer:
        for start in range(0, len(value), 100_000):
            writer.write(value[start : start + 100_000])


# -- what a service can and cannot


@on_ceph
def test_ceph_refuses_to_replace_small_values(ceph: Ceph) -> None:
    with made(ceph.url("rules/ceph")) as place:
        assert not place.capabilities.atomic_create, "an upload in parts may replace"
        small, large = (
            place.open_writer("a", if_absent=True),
            place.open_writer("b", if_absent=True),
        )
        small.write(b"mine")
        large.write(VALUE)
        ceph.client().put_object(Bucket="rules", Key="ceph/a", Body=b"other")
        place.store("b", b"other")
        for writer in (small, large):
            with pytest.raises(ObjectExists):
                writer.commit()
            writer.abort()
        assert place.load("a") == place.load("b") == b"other"


@pytest.mark.peers(peers.RCLONE)
def test_a_service_that_ignores_the_condition_is_found_out(rclone: RcloneS3, moto: Moto) -> None:
    with made(rclone.url("rules/place")) as place:
        assert not place.capabilities.atomic_create
    with made(moto.url("rules/place")) as place:
        assert place.capabilities.atomic_create
    with open_place(moto.url("rules/place"), atomic_create=False) as place:
        assert not place.capabilities.atomic_create


@on_ceph
def test_object_lock_keeps_what_was_written_on_ceph(ceph: Ceph) -> None:
    url = ceph.url("locked/place")
    with made(url, retention="30 days", delete_versions=True) as place:
        place.store("small", b"value")
        write(place, "large")
        place.copy("large", "copy")
        for name in ("small", "large", "copy"):
            told = ceph.client().head_object(Bucket="locked", Key=f"place/{name}")
            assert told["ObjectLockMode"] == "GOVERNANCE"
            left = told["ObjectLockRetainUntilDate"] - told["LastModified"]
            assert 29.9 < left.total_seconds() / 86400 < 30.1
            with pytest.raises(PermissionDenied):
                place.delete(name)
        assert place.load("small") == b"value"
        assert place.hash("large") == place.hash("copy") == DIGEST


def test_object_lock_keeps_what_was_written_on_moto(moto: Moto) -> None:
    url = moto.url("locked/place")
    with made(url, retention="30 days", delete_versions=True) as place:
        place.store("small", b"value")
        with pytest.raises(PermissionDenied):
            place.delete("small")
        assert place.load("small") == b"value"
    # Without the version, what is deleted is hidden, and still there.
    with open_place(url, retention="30 days") as place:
        place.delete("small")
        assert not place.info("small").exists
    versions = moto.client().list_object_versions(Bucket="locked", Prefix="place/small")
    assert len(versions["Versions"]) == 1


def test_objects_get_what_was_asked_for(moto: Moto) -> None:
    options = {"storage_class": "STANDARD_IA", "sse": "aws:kms", "sse_kms_key": "a-key"}
    with made(moto.url("kinds/place"), **options) as place:
        place.store("small", b"value")
        write(place, "large")
        place.copy("small", "copy")
        for name in ("small", "large", "copy"):
            told = moto.client().head_object(Bucket="kinds", Key=f"place/{name}")
            assert told["StorageClass"] == "STANDARD_IA"
            assert told["ServerSideEncryption"] == "aws:kms"


def test_a_place_that_is_no_bucket_is_told(moto: Moto) -> None:
    place = open_place(moto.url("missing/place"), create_bucket=False)
    uses: list[Callable[[], object]] = [place.open, place.create, place.destroy]
    for use in uses:
        with pytest.raises(BackendDoesNotExist, match="no bucket"):
            use()


def test_versions_go_where_they_are_to_go(moto: Moto) -> None:
    client = moto.client()
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})

    def versions(name: str) -> int:
        told = client.list_object_versions(Bucket="versioned", Prefix=f"place/{name}")
        return len(told.get("Versions", []))

    with made(moto.url("versioned/place")) as place:
        place.store("a", b"1")
        place.delete("a")
        assert versions("a") == 1, "deleting without delete_versions only hides"
    place = open_place(moto.url("versioned/place"), delete_versions=True)
    with place:
        place.store("b", b"1")
        place.delete("b")
        assert versions("b") == 0
    place.destroy()
    told = client.list_object_versions(Bucket="versioned", Prefix="place/")
    assert not {"Versions", "DeleteMarkers"} & set(told)


def test_a_key_longer_than_s3_has_is_refused(moto: Moto) -> None:
    with made(moto.url("names/place")) as place:
        room = 1024 - len("place/")
        fits = "/".join(["é" * 100] * (room // 201))
        fits += "/" + "x" * (room - len(fits.encode()) - 1)
        place.store(fits, b"fits")
        assert place.load(fits) == b"fits"
        with pytest.raises(NameTooLong):
            place.store(fits + "x", b"")
        with pytest.raises(NameTooLong):
            place.open_writer(fits + "x")
        assert not place.info(fits + "x").exists


# -- large


@on_ceph
def test_a_folder_of_more_than_a_page(ceph: Ceph) -> None:
    with made(ceph.url("large/place")) as place:
        names = [f"top/{number:04}/deeper" for number in range(1010)]
        names += [f"top/item{number:04}" for number in range(1010)]
        client = ceph.client()

        def put(name: str) -> None:
            client.put_object(Bucket="large", Key=f"place/{name}", Body=b"x")

        with ThreadPoolExecutor(8) as executor:
            list(executor.map(put, names))
        listed = sorted((info.name, info.directory) for info in place.list("top"))
        assert listed == sorted(
            [(f"{n:04}", True) for n in range(1010)] + [(f"item{n:04}", False) for n in range(1010)]
        )
        assert [info.name for info in place.list("")] == ["top"]
    place.destroy()
    assert ceph.keys("large", "place/") == []


@on_ceph
def test_a_copy_in_parts(ceph: Ceph) -> None:
    with made(ceph.url("copies/place")) as place:
        write(place, "item")
    assert isinstance(place, S3)
    few = S3(dataclasses.replace(place._settings, copied_at_once=PART))
    with few:
        few.copy("item", "copy")
        few.move("item", "moved")
        assert few.hash("copy") == few.hash("moved") == DIGEST
        assert not few.info("item").exists
    assert ceph.uploads("copies") == []


@on_ceph
def test_memory_of_many_large_writes(ceph: Ceph, tmp_path: Path) -> None:
    with made(ceph.url("memory/place")):
        pass
    peak = many_large_writes.peak(ceph.url("memory/place"), {}, tmp_path)
    assert peak < many_large_writes.CEILING


# -- what goes wrong


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
    for url, option in (
        (f"s3:{KEY_ID}:wrong{SECRET}@{ceph.endpoint}/rules/ceph", "secret_access_key"),
        (f"s3:NOBODY:{SECRET}@{ceph.endpoint}/rules/ceph", "access_key_id"),
    ):
        start = time.monotonic()
        with pytest.raises(PermissionDenied, match=option) as caught:
            open_place(url).open()
        assert time.monotonic() - start < 5, "what waiting cannot help was tried again"
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


class TlsRclone(RcloneS3):
    """The same server behind a certificate."""

    def __init__(self, folder: Path, certificate: Certificate) -> None:
        super().__init__(folder)
        self._certificate = certificate

    @property
    def endpoint(self) -> str:
        return super().endpoint.replace("http:", "https:")

    def command(self) -> list[str]:
        shown = self._certificate
        return [*super().command(), "--cert", str(shown.chain), "--key", str(shown.key)]


def test_over_tls(certificate: Certificate, tmp_path: Path) -> None:
    with TlsRclone(tmp_path / "s3", certificate) as server:
        url = server.url("tls/place")
        with made(url, cacert=str(certificate.authority)) as place:
            place.store("small", b"value")
            write(place, "large")
            assert place.load("small") == b"value"
            assert place.load("large") == VALUE
        with pytest.raises(BackendError, match=r"is not trusted.*cacert"):
            open_place(url, attempts=1).open()


@pytest.mark.parametrize("token", [None, "a/token=="])
@pytest.mark.parametrize("path", ["/bucket/key", "/bucket/%C3%A4%20b~_-.x"])
@pytest.mark.parametrize("data", [None, b"", b"content"])
def test_signatures_are_those_of_amazons_library(
    data: bytes | None, path: str, token: str | None
) -> None:
    headers = {"x-amz-meta-note": "two  spaces", "range": "bytes=0-1"}
    signed = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
    method = "GET" if data is None else "PUT"
    theirs = AWSRequest(method, f"http://s3.test:9000{path}", headers=signed, data=data)
    S3SigV4Auth(Credentials("id", "secret", token), "s3", "eu-north-1").add_auth(theirs)
    ours = s3_signature.sign(
        method, "s3.test:9000", path, headers, data,
        key_id="id", secret="secret", token=token, region="eu-north-1",
        now=datetime.strptime(theirs.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
    )  # fmt: skip
    assert ours["authorization"] == theirs.headers["Authorization"]


def test_no_log_shows_a_secret(moto: Moto, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        options = {"sse_customer_key": "ab" * 32, "session_token": "a-token-of-a-session"}
        with made(moto.url("logs/place"), **options) as place:
            place.store("a", b"value")
            place.load("a")
            write(place, "b")
    said = caplog.text
    for secret in (SECRET, "Signature=", "Authorization", "a-token-of-a-session", "ab" * 32):
        assert secret not in said
