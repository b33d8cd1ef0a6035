"""The access log's lines: what stands in them, and what must never."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest

from backupgw.runtime.http.access_log import AccessLog, LineFormat, quoted, without_query
from tests.runtime.http_process import HostProcess, wait_for_line


class Request:
    """A request that ended."""

    client = "192.0.2.1"
    user: str | None = "alice"
    http_version = "1.1"
    seconds = 0.25

    def __init__(self, target: bytes = b"/x", headers: list[tuple[bytes, bytes]] | None = None):
        self.method = "POST"
        self.target = target
        self.headers = headers or []
        self.status = 200
        self.sent = 12
        self.received = 7


def test_a_line_is_apaches_combined_format() -> None:
    request = Request(b"/x", [(b"user-agent", b"restic/0.19")])
    line = LineFormat().combined(request)
    pattern = (
        r"192\.0\.2\.1 - alice \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"POST /x HTTP/1\.1" 200 12 "-" "restic/0\.19"\n'
    )
    assert re.fullmatch(pattern, line)


def test_the_same_as_json() -> None:
    record = json.loads(LineFormat().json(Request(b"/x?token=secret")))
    assert record["target"] == "/x?..."
    assert (record["sent"], record["received"], record["seconds"]) == (12, 7, 0.25)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", record["time"])


@pytest.mark.parametrize("style", ["combined", "json"])
def test_tokens_and_passwords_are_never_logged(style: str) -> None:
    headers = [(b"referer", b"http://h/?token=secret"), (b"authorization", b"Basic secret")]
    for target in (b"/x?token=secret", b"http://user:secret@h/x?secret"):
        line = getattr(LineFormat(), style)(Request(target, headers))
        assert "secret" not in line


@pytest.mark.parametrize("style", ["combined", "json"])
def test_a_client_cannot_forge_or_split_a_line(style: str) -> None:
    request = Request(b'/"\x1b[31m', [(b"user-agent", b'x" 200\r\n\x85\\evil')])
    request.user = 'al"ice\n b'
    line: str = getattr(LineFormat(), style)(request)
    assert line.count("\n") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", line)
    if style == "combined":
        assert len(re.findall(r'(?<!\\)"', line)) == 6
        assert r"al\"ice\x0a\x20b" in line


def test_escapes() -> None:
    assert quoted(b'a"b\\c\x00\xe9') == r"a\"b\\c\x00" + "é"
    assert without_query(b"/a?b?c") == b"/a?..."
    assert without_query(b"/a") == b"/a"


def test_the_user_and_the_sizes_come_from_the_request(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    options = {"listen": "127.0.0.1:0", "access_log": str(log), "access_log_format": "json"}
    with HostProcess(options) as host, host.connect() as wire:
        assert wire.request("POST", "/user", body=b"12345").status == 200
        wire.send(b"GARBAGE\r\n\r\n")
        assert wire.answer().status == 400
        first = json.loads(wait_for_line(log, "/user"))
        second = json.loads(wait_for_line(log, '"status":400'))
    assert (first["user"], first["sent"], first["status"]) == ("alice b", 6, 200)
    assert (second["method"], second["http"]) == ("-", "")


def test_standard_output_gets_the_lines_at_the_end_at_the_latest() -> None:
    with HostProcess({"listen": "127.0.0.1:0", "access_log": "-"}) as host:
        with host.connect() as wire:
            assert wire.request("GET", "/last").status == 200
        host.process.terminate()
        assert host.process.stdout is not None
        assert '"GET /last HTTP/1.1" 200' in host.process.stdout.read()


def test_a_pipe_gets_pieces_that_no_other_worker_can_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    log = AccessLog(str(path))
    sizes = []
    write = os.write

    def spy(fd: int, data: memoryview) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr("backupgw.runtime.http.access_log.os.write", spy)
    for _ in range(200):
        log.add(Request())
    log.close()
    reader.join()
    assert got[0].count(b"\n") == 200
    assert max(sizes) <= 4096
    assert len(sizes) > 1


def test_a_full_disk_is_said_once_and_serving_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full")
    for _ in range(5):
        log.add(Request())
        log.flush()
    log.close()
    assert [record.getMessage() for record in caplog.records] == [
        "access log /dev/full: No space left on device"
    ]
