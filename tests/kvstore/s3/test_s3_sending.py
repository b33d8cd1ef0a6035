"""Values that are on their way into S3 before all of them is there, and looks that cost no wait."""

from __future__ import annotations

import hashlib
import random
import threading
from typing import Any

import pytest
from tests.servers import peers
from tests.servers.double import Fault, Faults
from tests.servers.faulty_proxy import FaultyProxy
from tests.servers.http_proxy import faulty
from tests.servers.s3 import Moto, RcloneS3

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ContentMismatch, ObjectExists, ObjectNotFound

pytestmark = pytest.mark.peers(peers.RCLONE)

PACK = random.Random(7).randbytes(12 << 20)
DIGEST = hashlib.sha256(PACK).hexdigest()
SMALL = PACK[:300]
SMALL_DIGEST = hashlib.sha256(SMALL).hexdigest()


def made(url: str, calls: list[str] | None = None, **options: Any) -> Backend:
    place = open_place(url, on_call=None if calls is None else calls.append, **options)
    place.create()
    return place


def write(place: Backend, name: str, value: bytes, **terms: Any) -> None:
    digest = hashlib.sha256(value).hexdigest()
    with place.open_writer(
        name, size=len(value), **{"if_absent": True, "expected_hash": digest, **terms}
    ) as writer:
        for start in range(0, len(value), 1 << 20):
            writer.write(value[start : start + (1 << 20)])


def objects(calls: list[str]) -> list[str]:
    return [call for call in calls if "Object" in call and "List" not in call]


def test_a_pack_takes_one_request_and_one_look(rclone: RcloneS3) -> None:
    calls: list[str] = []
    with made(rclone.url("packs/place"), calls) as place:
        place.mkdir("data")
        calls.clear()
        write(place, f"data/{DIGEST}", PACK)
        assert sorted(objects(calls)) == ["HeadObject", "PutObject"]
        assert place.hash(f"data/{DIGEST}") == DIGEST


def test_a_pack_is_on_its_way_before_all_of_it_has_come(rclone: RcloneS3) -> None:
    with made(rclone.url("early/place")):
        pass
    with FaultyProxy(("127.0.0.1", rclone.port)) as proxy:
        passed = threading.Event()
        proxy.break_after = lambda: None
        carried = proxy.carried
        seen = 0

        def counted(way: Any, size: int) -> float:
            nonlocal seen
            seen += size
            if seen > 1 << 20:
                passed.set()
            return carried(way, size)

        proxy.carried = counted  # type: ignore[method-assign]
        with open_place(rclone.url("early/place", endpoint=f"http://{proxy.address}")) as place:
            writer = place.open_writer("item", size=len(PACK), expected_hash=DIGEST)
            writer.write(PACK[: 6 << 20])
            assert passed.wait(10), "nothing was sent before the end"
            assert not place.info("item").exists
            writer.write(PACK[6 << 20 :])
            writer.commit()
            assert place.hash("item") == DIGEST


def test_what_is_given_up_or_wrong_leaves_nothing(rclone: RcloneS3) -> None:
    calls: list[str] = []
    with made(rclone.url("wrong/place"), calls) as place:
        writer = place.open_writer("item", size=len(PACK), expected_hash="0" * 64)
        writer.write(PACK)
        with pytest.raises(ContentMismatch):
            writer.commit()
        writer.abort()
        writer = place.open_writer("item", size=len(PACK), expected_hash=DIGEST)
        writer.write(PACK[:-1])
        writer.abort()
        assert [info.name for info in place.list("")] == []
    assert "CreateMultipartUpload" not in calls


def test_what_is_there_is_not_replaced(rclone: RcloneS3) -> None:
    with made(rclone.url("there/place")) as place:
        write(place, "item", b"older", expected_hash=None)
        writer = place.open_writer("item", size=len(PACK), if_absent=True, expected_hash=DIGEST)
        writer.write(PACK)
        with pytest.raises(ObjectExists):
            writer.commit()
        assert place.load("item") == b"older"
        place.delete("item")
        writer.commit()  # the writer is still whole
        assert place.hash("item") == DIGEST


@pytest.mark.parametrize("after", [100, 300_000, 3 << 20, 11 << 20])
def test_a_connection_that_breaks_costs_nothing_but_time(rclone: RcloneS3, after: int) -> None:
    path = f"breaks{after}/place"
    with made(rclone.url(path)):
        pass
    breaks: list[int | None] = []
    with FaultyProxy(
        ("127.0.0.1", rclone.port), break_after=lambda: breaks.pop() if breaks else None
    ) as proxy:
        endpoint = f"http://{proxy.address}"
        with open_place(rclone.url(path, endpoint=endpoint), first_pause=0.01) as place:
            proxy.cut()
            breaks += [after, after]
            write(place, "item", PACK)
            assert not breaks, "no connection was used"
            assert place.hash("item") == DIGEST


def test_without_memory_for_all_of_it_a_value_goes_in_parts(rclone: RcloneS3) -> None:
    calls: list[str] = []
    with made(rclone.url("memory/place"), calls, memory="30 MiB") as place:
        writers = [
            place.open_writer(f"item{number}", size=len(PACK), expected_hash=DIGEST)
            for number in range(4)
        ]
        calls.clear()
        for writer in writers:
            writer.write(PACK)
        for writer in writers:
            writer.commit()
        assert objects(calls).count("PutObject") == 2
        assert calls.count("CreateMultipartUpload") == 2
        for number in range(4):
            assert place.hash(f"item{number}") == DIGEST


def test_a_small_object_and_its_look_share_a_round_trip(rclone: RcloneS3) -> None:
    calls: list[str] = []
    with made(rclone.url("small/place")):
        pass
    with FaultyProxy(("127.0.0.1", rclone.port), latency=0.05) as proxy:
        url = rclone.url("small/place", endpoint=f"http://{proxy.address}")
        with open_place(url, on_call=calls.append) as place:
            write(place, "warm", b"", expected_hash=None)
            calls.clear()
            before = proxy.connections
            write(place, SMALL_DIGEST, SMALL)
            assert objects(calls) == ["HeadObject", "PutObject"]
            calls.clear()
            with pytest.raises(ObjectExists):
                write(place, SMALL_DIGEST, SMALL)
            assert place.load(SMALL_DIGEST) == SMALL
            calls.clear()
            assert place.delete_sized(SMALL_DIGEST) == len(SMALL)
            assert objects(calls) == ["HeadObject", "DeleteObject"]
            write(place, SMALL_DIGEST, SMALL)
            calls.clear()
            place.delete(SMALL_DIGEST)
            assert objects(calls) == ["HeadObject", "DeleteObject"]
            with pytest.raises(ObjectNotFound):
                place.delete(SMALL_DIGEST)
            assert proxy.connections == before


def test_only_a_name_that_is_the_hash_is_written_without_waiting(rclone: RcloneS3) -> None:
    with made(rclone.url("named/place")) as place:
        write(place, "config", b"older")
        with pytest.raises(ObjectExists):
            write(place, "config", SMALL)
        assert place.load("config") == b"older"


def test_a_damaged_object_is_whole_after_its_upload(
    rclone: RcloneS3, caplog: pytest.LogCaptureFixture
) -> None:
    with made(rclone.url("damaged/place")) as place:
        rclone.client().put_object(
            Bucket="damaged", Key=f"place/{SMALL_DIGEST}", Body=b"?" + SMALL[1:]
        )
        with pytest.raises(ObjectExists):
            write(place, SMALL_DIGEST, SMALL)
        assert place.load(SMALL_DIGEST) == SMALL
        assert "was damaged" in caplog.text
        caplog.clear()
        with pytest.raises(ObjectExists):
            write(place, SMALL_DIGEST, SMALL)
        assert "was damaged" not in caplog.text


def test_lost_answers_of_two_requests_at_once(rclone: RcloneS3) -> None:
    """Whatever becomes of either, what was stored is stored once, and what was removed is gone."""
    with made(rclone.url("lost/place")):
        pass
    kinds = [Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST]
    with faulty(rclone.endpoint) as proxy:
        url = rclone.url("lost/place", endpoint=proxy.url)
        with open_place(url, attempts=12, first_pause=0.001) as place:
            proxy.faults = Faults(rate=0.3, kinds=kinds, seed=5)
            for number in range(12):
                value = b"%d" % number
                name = hashlib.sha256(value).hexdigest()
                write(place, name, value)
                assert place.load(name) == value
                if number % 2:
                    place.delete(name)
                    assert not place.info(name).exists
            assert proxy.faults.hit > 8
            proxy.faults = Faults()
            assert len([*place.list("")]) == 6


def test_a_server_that_answers_one_request_a_connection() -> None:
    """moto's closes each connection after its answer."""
    with Moto() as moto, made(moto.url("single/place"), atomic_create=False) as place:
        for number in range(6):
            value = b"%d" % number
            name = hashlib.sha256(value).hexdigest()
            write(place, name, value)
            with pytest.raises(ObjectExists):
                write(place, name, value)
            place.delete(name)
            with pytest.raises(ObjectNotFound):
                place.delete(name)
