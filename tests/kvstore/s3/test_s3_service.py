"""What places on S3 make of what a service can and cannot; large folders and large values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.kvstore import many_large_writes
from tests.kvstore.s3.places import DIGEST, PART, VALUE, made, on_ceph, write
from tests.servers import peers
from tests.servers.ceph import Ceph
from tests.servers.s3 import Moto, RcloneS3

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    NameTooLong,
    ObjectExists,
    PermissionDenied,
)
from backupgw.kvstore.backends.s3 import S3

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
