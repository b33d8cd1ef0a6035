"""Archives go to a real S3 service in the parts that the Panel names."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.double import Double, Fault, Faults, Receive, Scope, Send
from tests.servers.panel import TOKEN, TOKEN_ID, Backup, Panel
from tests.servers.s3 import Moto
from tests.telling_lock import TellingLock

from backupgw.wingsadapter import part_upload
from backupgw.wingsadapter.part_upload import (
    PartPlan,
    UploadError,
    _Uploading,
    reported,
    upload_parts,
)

SIZE = (12 << 20) + 12_345
HEADERS = {"authorization": f"Bearer {TOKEN_ID}.{TOKEN}", "accept": "application/json"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_upload, "FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def s3() -> Iterator[Moto]:
    with Moto() as server:
        server.client().create_bucket(Bucket="panel")
        yield server


@pytest.fixture
def panel(s3: Moto) -> Iterator[Panel]:
    with Panel(s3=s3) as panel:
        yield panel


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "archive").write_bytes(content())
    descriptor = os.open(tmp_path / "archive", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def content() -> bytes:
    return random.Random(3).randbytes(SIZE)


def begun(panel: Panel) -> tuple[Backup, PartPlan]:
    row = Backup("a09316f2-c1df-44b9-8244-6c6789eb75a1", panel.add_server(), "s3", hidden=False)
    panel.backups[row.uuid] = row
    url = f"{panel.url}/api/remote/backups/{row.uuid}?size={SIZE}"
    answer = httpx.get(url, headers=HEADERS)
    assert answer.status_code == 200
    return row, PartPlan.from_answer(answer.json(), SIZE)


def report(panel: Panel, row: Backup, **values: Any) -> httpx.Response:
    url = f"{panel.url}/api/remote/backups/{row.uuid}"
    body = {"checksum": "00", "checksum_type": "sha1", "size": SIZE, "successful": True, **values}
    return httpx.post(url, headers=HEADERS, json=body)


def test_parts_arrive_and_the_panel_puts_them_together(
    panel: Panel, s3: Moto, archive: int
) -> None:
    row, plan = begun(panel)
    told: list[int] = []
    parts = upload_parts(archive, SIZE, plan, tell=told.append)
    assert [part.part_number for part in parts] == [1, 2, 3]
    assert told[-1] == SIZE
    assert report(panel, row, parts=reported(parts)).status_code == 204
    found = s3.client().get_object(Bucket="panel", Key=panel.key(row))["Body"].read()
    assert found == content()
    assert s3.uploads("panel") == []
    assert "Signature" not in repr(plan)


def test_several_at_once_arrive_in_order(panel: Panel, s3: Moto, archive: int) -> None:
    row, plan = begun(panel)
    plan = PartPlan(plan.urls, plan.part_size, at_once=3)
    parts = upload_parts(archive, SIZE, plan)
    assert report(panel, row, parts=reported(parts)).status_code == 204
    assert s3.client().get_object(Bucket="panel", Key=panel.key(row))["Body"].read() == content()


class Bucket(Double):
    """Takes parts, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.parts: dict[str, bytes] = {}
        self.status = 200
        self.etag = True

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if message["type"] == "http.request":
            self.parts[scope["path"]] = body
        headers = [(b"etag", b'"%d"' % len(body))] if self.etag else []
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"<Error>secret</Error>"})


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as bucket:
        yield bucket


def plan_for(bucket: Bucket, part_size: int = 5 << 20) -> PartPlan:
    count = -(-SIZE // part_size)
    return PartPlan(
        tuple(f"{bucket.url}/{n}?X-Amz-Signature=hush" for n in range(count)), part_size, 2
    )


def test_parts_that_fail_are_sent_again(bucket: Bucket, archive: int) -> None:
    bucket.faults = Faults(
        rate=1.0, limit=5, kinds=[Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST]
    )
    told: list[int] = []
    parts = upload_parts(archive, SIZE, plan_for(bucket), tell=told.append)
    assert [part.etag for part in parts] == ['"5242880"', '"5242880"', f'"{SIZE - (10 << 20)}"']
    assert b"".join(bucket.parts[f"/{n}"] for n in range(3)) == content()
    assert told[-1] == SIZE  # what was sent twice counts once


@pytest.mark.parametrize("status", [400, 403, 404, 301])
def test_a_refused_part_ends_the_upload_at_once(bucket: Bucket, archive: int, status: int) -> None:
    bucket.status = status
    with pytest.raises(UploadError, match=f"was refused: status {status}") as found:
        upload_parts(archive, SIZE, plan_for(bucket))
    assert "hush" not in str(found.value)
    assert len(bucket.calls) <= 2


def test_the_part_that_was_refused_says_why_and_not_one_that_would_have_been_sent_again(
    archive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_upload, "FIRST_PAUSE", 600.0)
    failed = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        if request.url.path == "/0":
            return httpx.Response(503)
        assert failed.wait(60)
        return httpx.Response(403)

    plan = PartPlan(("http://bucket/0", "http://bucket/1"), 10 << 20, 2)
    monkeypatch.setattr(part_upload.log, "info", lambda *_: failed.set())  # it is sent again
    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(UploadError, match="part 2 of 2 was refused: status 403"),
    ):
        upload_parts(archive, SIZE, plan, client=client)


def test_what_is_told_last_is_all_that_arrived(archive: int) -> None:
    told: list[int] = []
    overtaken = threading.Event()

    def tell(done: int) -> None:
        if threading.current_thread() is not other:
            other.start()
            assert overtaken.wait(60)
        told.append(done)

    def arrive() -> None:
        uploading._told(1)
        overtaken.set()

    plan = PartPlan(("http://bucket/0",), SIZE, 1)
    other = threading.Thread(target=arrive)
    with httpx.Client() as client:
        uploading = _Uploading(client, archive, SIZE, plan, tell, lambda _: None)
        vars(uploading)["_lock"] = TellingLock(overtaken)
        uploading._told(1)
        other.join(60)
    assert told == [1, 2]


def test_a_bucket_that_is_away_ends_the_upload_in_the_end(bucket: Bucket, archive: int) -> None:
    plan = plan_for(bucket)
    bucket.kill()
    with pytest.raises(UploadError, match="did not arrive: ConnectError") as found:
        upload_parts(archive, SIZE, plan)
    assert "hush" not in str(found.value)


def test_a_part_without_an_etag_is_no_part(bucket: Bucket, archive: int) -> None:
    bucket.etag = False
    with pytest.raises(UploadError, match="without an ETag"):
        upload_parts(archive, SIZE, plan_for(bucket))


def test_who_asked_can_end_it(bucket: Bucket, archive: int) -> None:
    def end(done: int) -> None:
        if done > 6 << 20:
            raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        upload_parts(archive, SIZE, plan_for(bucket), tell=end)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"parts": [], "part_size": 5 << 20},
        {"parts": ["https://a/1"] * 3, "part_size": 0},
        {"parts": ["https://a/1"] * 3, "part_size": "5"},
        {"parts": ["https://a/1"] * 3, "part_size": True},
        {"parts": ["file:///etc/passwd"] * 3, "part_size": 5 << 20},
        {"parts": [1, 2, 3], "part_size": 5 << 20},
        {"parts": ["https://a/1"] * 2, "part_size": 5 << 20},
        {"parts": ["https://a/1"] * (SIZE // 1000 + 1), "part_size": 1000},
    ],
)
def test_a_plan_that_cannot_be_is_refused(answer: object) -> None:
    with pytest.raises(UploadError):
        PartPlan.from_answer(answer, SIZE)
