"""tus 1.0.0 on the wire: what the protocol says, and what it leaves to the server."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from base64 import b64encode
from pathlib import Path

import pytest
from tests.vfsproxy.file_process import (
    OCTETS,
    TUS,
    FileProcess,
    check_accounts,
    metadata,
    patch_head,
    usage,
)

MIB = 1 << 20


class TestProtocol:
    def test_options_tell_what_there_is(self, server: FileProcess) -> None:
        answer = server.client.options("/uploads/")
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-max-size"] == str(48 * MIB)
        assert set(answer.headers["tus-extension"].split(",")) == {
            "creation",
            "creation-with-upload",
            "creation-defer-length",
            "checksum",
            "expiration",
            "termination",
            "concatenation",
        }
        assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")

    def test_an_upload_in_two_requests(self, server: FileProcess, content: bytes) -> None:
        path = server.start(len(content), "two.bin")
        assert usage(server).reserved.bytes >= (0 if server.site.pieces else len(content))
        assert server.patch(path, 0, content[:MIB]).headers["upload-offset"] == str(MIB)
        told = server.head(path)
        assert (told.status_code, told.headers["upload-offset"]) == (200, str(MIB))
        assert told.headers["upload-length"] == str(len(content))
        assert told.headers["cache-control"] == "no-store"
        assert told.headers["upload-metadata"] == metadata(filename="two.bin")
        assert "upload-expires" in told.headers
        assert not (server.files / "two.bin").exists()
        last = server.patch(path, MIB, content[MIB:])
        assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(content)))
        assert "upload-expires" not in last.headers
        assert (server.files / "two.bin").read_bytes() == content
        assert server.head(path).headers["upload-offset"] == str(len(content))
        check_accounts(server)

    def test_an_empty_file_needs_no_patch(self, server: FileProcess) -> None:
        path = server.start(0, "empty.bin")
        assert (server.files / "empty.bin").read_bytes() == b""
        assert server.head(path).headers["upload-offset"] == "0"
        assert server.patch(path, 0, b"").status_code == 204

    @pytest.mark.parametrize("part", [0, 1, 2])
    def test_bytes_may_come_with_the_creation(
        self, server: FileProcess, content: bytes, part: int
    ) -> None:
        size = (1000, MIB, len(content))[part]
        name = f"with-{part}.bin"
        answer = server.client.post(
            "/uploads/",
            headers={
                **OCTETS,
                "Upload-Length": str(len(content)),
                "Upload-Metadata": metadata(filename=name),
            },
            content=content[:size],
        )
        assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(size))
        path = answer.headers["location"]
        assert server.head(path).headers["upload-offset"] == str(size)
        if size < len(content):
            assert server.patch(path, size, content[size:]).status_code == 204
        assert (server.files / name).read_bytes() == content
        check_accounts(server)

    def test_the_length_may_come_later(self, server: FileProcess, content: bytes) -> None:
        path = server.start(None, "later.bin")
        assert server.head(path).headers["upload-defer-length"] == "1"
        assert "upload-length" not in server.head(path).headers
        server.patch(path, 0, content[:MIB])
        assert server.patch(path, MIB, b"", Upload_Length=str(MIB - 1)).status_code == 400
        told = server.patch(path, MIB, content[MIB : 2 * MIB], Upload_Length=str(len(content)))
        assert told.status_code == 204
        assert server.head(path).headers["upload-length"] == str(len(content))
        assert server.patch(path, 2 * MIB, b"", Upload_Length="7").status_code == 400
        assert server.patch(path, 2 * MIB, content[2 * MIB :]).status_code == 204
        assert (server.files / "later.bin").read_bytes() == content
        check_accounts(server)

    def test_a_length_that_comes_with_no_bytes_ends_the_upload(self, server: FileProcess) -> None:
        path = server.start(None, "late.bin")
        server.patch(path, 0, b"123")
        assert not (server.files / "late.bin").exists()
        assert server.patch(path, 3, b"", Upload_Length="3").status_code == 204
        assert (server.files / "late.bin").read_bytes() == b"123"

    def test_a_body_of_unknown_length_is_taken(self, server: FileProcess, content: bytes) -> None:
        path = server.start(len(content), "chunked.bin")
        pieces = iter([content[:MIB], content[MIB:]])
        answer = server.client.patch(path, headers={**OCTETS, "Upload-Offset": "0"}, content=pieces)
        assert answer.status_code == 204
        assert (server.files / "chunked.bin").read_bytes() == content

    def test_a_post_may_mean_another_method(self, server: FileProcess, content: bytes) -> None:
        path = server.start(4, "meant.bin")
        told = {**OCTETS, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
        assert server.client.post(path, headers=told, content=b"1234").status_code == 204
        assert (server.files / "meant.bin").read_bytes() == b"1234"


class TestTermination:
    def test_nothing_is_left(self, server: FileProcess, content: bytes) -> None:
        path = server.start(len(content), "ended.bin")
        server.patch(path, 0, content[:MIB])
        assert server.client.delete(path, headers=TUS).status_code == 204
        assert server.head(path).status_code == 404
        assert server.patch(path, MIB, b"x").status_code == 404
        check_accounts(server)

    def test_a_file_outlives_its_upload(self, server: FileProcess) -> None:
        path = server.start(3, "kept.bin")
        server.patch(path, 0, b"123")
        assert server.client.delete(path, headers=TUS).status_code == 204
        assert (server.files / "kept.bin").read_bytes() == b"123"


class TestChecksums:
    @pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5", "blake2b"])
    def test_a_good_one(self, server: FileProcess, algorithm: str) -> None:
        data = os.urandom(200_000)
        digest = b64encode(hashlib.new(algorithm, data).digest()).decode()
        path = server.start(len(data), f"{algorithm}.bin")
        answer = server.patch(path, 0, data, Upload_Checksum=f"{algorithm} {digest}")
        assert answer.status_code == 204
        assert (server.files / f"{algorithm}.bin").read_bytes() == data

    def test_a_bad_one_leaves_the_upload_as_it_was(
        self, server: FileProcess, content: bytes
    ) -> None:
        path = server.start(3 * MIB, "bad.bin")
        server.patch(path, 0, content[:MIB])
        wrong = "sha1 " + b64encode(hashlib.sha1(b"something else").digest()).decode()
        bad = server.patch(path, MIB, content[MIB : 2 * MIB], Upload_Checksum=wrong)
        assert bad.status_code == 460
        assert server.head(path).headers["upload-offset"] == str(MIB)
        assert server.patch(path, MIB, content[MIB : 3 * MIB]).status_code == 204
        assert (server.files / "bad.bin").read_bytes() == content[: 3 * MIB]
        check_accounts(server)

    def test_of_a_creation(self, server: FileProcess) -> None:
        wrong = "sha1 " + b64encode(hashlib.sha1(b"something else").digest()).decode()
        told = {**OCTETS, "Upload-Length": "4", "Upload-Metadata": metadata(filename="c.bin")}
        answer = server.client.post(
            "/uploads/", headers={**told, "Upload-Checksum": wrong}, content=b"1234"
        )
        assert answer.status_code == 460
        assert not (server.files / "c.bin").exists()
        check_accounts(server)

    def test_one_that_broke_off_is_not_kept(self, server: FileProcess, content: bytes) -> None:
        path = server.start(2 * MIB, "broken-checked.bin")
        digest = b64encode(hashlib.sha1(content[: 2 * MIB]).digest())
        head = patch_head(path, 0, 2 * MIB)[:-2] + b"Upload-Checksum: sha1 " + digest + b"\r\n\r\n"
        with server.connect() as wire:
            wire.send(head + content[:MIB])
        assert server.head(path).headers["upload-offset"] == "0"
        assert server.client.delete(path, headers=TUS).status_code == 204

    @pytest.mark.parametrize("text", ["crc7 AAAA", "sha1", "sha1 AAAA", "sha1 ?", ""])
    def test_what_is_none(self, server: FileProcess, text: str) -> None:
        path = server.start(4, f"none-{len(text)}.bin")
        assert server.patch(path, 0, b"1234", Upload_Checksum=text).status_code == 400
        assert server.head(path).headers["upload-offset"] == "0"
        server.client.delete(path, headers=TUS)

    def test_one_of_too_much_is_refused(self, server: FileProcess) -> None:
        path = server.start(6 * MIB, "large-checked.bin")
        digest = b64encode(hashlib.sha1(bytes(6 * MIB)).digest()).decode()
        answer = server.patch(path, 0, bytes(6 * MIB), Upload_Checksum=f"sha1 {digest}")
        assert answer.status_code == 413
        assert server.head(path).headers["upload-offset"] == "0"
        server.client.delete(path, headers=TUS)


class TestConcatenation:
    def test_parallel_parts_become_a_file(self, server: FileProcess, content: bytes) -> None:
        cuts = [0, MIB, 2 * MIB, len(content)]
        paths = []
        for start, end in itertools.pairwise(cuts):
            paths.append(server.start(end - start, Upload_Concat="partial"))
            assert server.head(paths[-1]).headers["upload-concat"] == "partial"
        begun = server.upload(paths[0])
        threads = [
            threading.Thread(target=server.patch, args=(path, 0, content[start:end]))
            for path, start, end in zip(paths, cuts, cuts[1:], strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A part that is done waits as long for the others as one that is not.
        assert server.upload(paths[0]).expires >= begun.expires
        urls = [paths[0], f"{server.url}{paths[1]}", paths[2]]
        final = server.start(-1, "joined.bin", Upload_Concat=f"final;{' '.join(urls)}")
        assert (server.files / "joined.bin").read_bytes() == content
        told = server.head(final)
        assert told.headers["upload-concat"] == f"final;{' '.join(paths)}"
        assert told.headers["upload-length"] == told.headers["upload-offset"] == str(len(content))
        assert server.patch(final, len(content), b"").status_code == 403
        check_accounts(server)
        again = server.create(-1, "again.bin", Upload_Concat=f"final;{' '.join(paths)}")
        assert again.status_code == 409

    def test_unfinished_parts_wait(self, server: FileProcess) -> None:
        done = server.start(2, Upload_Concat="partial")
        server.patch(done, 0, b"12")
        part = server.start(3, Upload_Concat="partial")
        answer = server.create(-1, "early.bin", Upload_Concat=f"final;{done} {part}")
        assert (answer.status_code, answer.json()["code"]) == (409, "part-unfinished")
        assert not (server.files / "early.bin").exists()
        for path in (done, part):
            assert server.client.delete(path, headers=TUS).status_code == 204
        check_accounts(server)

    def test_strangers_parts_are_not_there(self, server: FileProcess) -> None:
        part = server.start(1, Upload_Concat="partial", X_User="mallory")
        server.patch(part, 0, b"1")
        whole = server.start(1, "whole.bin")
        for parts in (part, whole, "/uploads/0123"):
            answer = server.create(-1, "stolen.bin", Upload_Concat=f"final;{parts}")
            assert answer.status_code == 404
        for path in (part, whole):
            server.client.delete(path, headers=TUS)


class TestBrokenConnections:
    @pytest.mark.parametrize("size", [100_000, 2 * MIB + 77])
    def test_what_came_is_kept(self, server: FileProcess, content: bytes, size: int) -> None:
        name = f"broken-{size}.bin"
        path = server.start(len(content), name)
        with server.connect() as wire:
            wire.send(patch_head(path, 0, len(content)) + content[:size])
        # The connection ended after the bytes, so they all came.
        assert server.wait_until_kept(path) == size
        assert server.head(path).headers["upload-offset"] == str(size)
        assert server.patch(path, size, content[size:]).status_code == 204
        assert (server.files / name).read_bytes() == content
        check_accounts(server)

    def test_a_client_that_comes_back_is_served_before_its_old_request_is_given_up(
        self, server: FileProcess, content: bytes
    ) -> None:
        path = server.start(len(content), "back.bin")
        size = 2 * MIB + 77
        with server.connect() as wire:
            wire.send(patch_head(path, 0, len(content)) + content[:size])
            wait_until_written(server)
            told = int(server.head(path).headers["upload-offset"])
            assert 0 < told <= size
            assert server.patch(path, told, content[told:]).status_code == 204
            assert (server.files / "back.bin").read_bytes() == content
            assert wire.answer().status == 423
        check_accounts(server)

    def test_two_at_once_never_mix(self, server: FileProcess) -> None:
        size = 4 * MIB
        path = server.start(size, "mixed.bin")
        bodies = [bytes([65 + number]) * size for number in range(6)]
        answers: list[int] = []

        def send(body: bytes) -> None:
            answers.append(server.patch(path, 0, body).status_code)

        threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {204, 409, 423}, server.output
        while (offset := int(server.head(path).headers["upload-offset"])) < size:
            assert server.patch(path, offset, b"z" * (size - offset)).status_code == 204
        found = (server.files / "mixed.bin").read_bytes()
        assert len(found) == size
        # Each byte is of the one request that had the upload then; a second one changed nothing.
        changes = sum(1 for one, other in itertools.pairwise(found) if one != other)
        assert changes <= len(bodies) + 1
        check_accounts(server)


def wait_until_written(server: FileProcess) -> None:
    """Wait until the gateway has written something of an upload that it has not kept yet."""
    ended = time.monotonic() + 20
    while time.monotonic() < ended:
        for fd in Path(f"/proc/{server.pid}/fd").iterdir():
            try:
                if "volume" in os.readlink(fd) and fd.is_file() and fd.stat().st_size:
                    return
            except OSError:
                continue  # closed meanwhile
        time.sleep(0.02)
    raise AssertionError("nothing arrived")
