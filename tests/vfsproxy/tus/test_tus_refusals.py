"""Uploads by tus that mean nothing, are too large, or whose names are taken."""

from __future__ import annotations

import contextlib

import pytest
from tests.vfsproxy.file_process import OCTETS, TUS, FileProcess, check_accounts, metadata

MIB = 1 << 20


class TestWhatIsWrong:
    @pytest.mark.parametrize("told", [{}, {"Tus-Resumable": "0.2.2"}])
    def test_another_version(self, server: FileProcess, told: dict[str, str]) -> None:
        answer = server.client.post("/uploads/", headers={**told, "Upload-Length": "1"})
        assert answer.status_code == 412
        assert answer.headers["tus-version"] == "1.0.0"

    @pytest.mark.parametrize(
        "told",
        [
            {},
            {"Upload-Length": "-1"},
            {"Upload-Length": "1e3"},
            {"Upload-Length": "+1"},
            {"Upload-Length": "1_0"},
            {"Upload-Length": "9" * 19},
            {"Upload-Length": "0x10"},
            {"Upload-Length": "٣"},
            {"Upload-Length": "1", "Upload-Defer-Length": "1"},
            {"Upload-Defer-Length": "2"},
            {"Upload-Length": "1", "Upload-Concat": "half"},
            {"Upload-Length": "1", "Upload-Concat": "final;/uploads/1"},
            {"Upload-Concat": "final;"},
        ],
    )
    def test_a_creation_that_means_nothing(self, server: FileProcess, told: dict[str, str]) -> None:
        sent = {**TUS, "Upload-Metadata": metadata(filename="x"), **told}
        encoded = [(key.encode(), value.encode()) for key, value in sent.items()]
        assert server.client.post("/uploads/", headers=encoded).status_code == 400
        check_accounts(server)

    @pytest.mark.parametrize(
        "text", ["filename !", "filename QQ", "filename QQ==,filename QQ==", ",", "a b c", "x QQ=="]
    )
    def test_metadata_that_is_none(self, server: FileProcess, text: str) -> None:
        sent = {**TUS, "Upload-Length": "1", "Upload-Metadata": text}
        assert server.client.post("/uploads/", headers=sent).status_code == 400

    @pytest.mark.parametrize(
        "name",
        [
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a//b",
            "a\nb",
            "\x00",
            "..\\x",
            ".backupgw-x",
            "x" * 256,
        ],
    )
    def test_names_that_lead_elsewhere(self, server: FileProcess, name: str) -> None:
        answer = server.create(1, name)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-name")
        check_accounts(server)

    def test_a_name_that_is_no_text(self, server: FileProcess) -> None:
        told = {**TUS, "Upload-Length": "1", "Upload-Metadata": "filename /w=="}
        assert server.client.post("/uploads/", headers=told).status_code == 400

    def test_more_than_is_allowed(self, server: FileProcess) -> None:
        assert server.create(48 * MIB + 1).status_code == 413
        path = server.start(None, "deferred.bin")
        server.patch(path, 0, b"1")
        answer = server.patch(path, 1, b"", Upload_Length=str(48 * MIB + 1))
        assert answer.status_code == 413
        server.client.delete(path, headers=TUS)

    def test_more_than_was_announced(self, server: FileProcess) -> None:
        path = server.start(10, "over.bin")
        server.patch(path, 0, b"12345")
        assert server.patch(path, 5, b"123456").status_code == 413
        told = {**OCTETS, "Upload-Offset": "5"}
        answer = server.client.patch(path, headers=told, content=iter([b"123", b"456"]))
        assert answer.status_code == 413
        assert int(server.head(path).headers["upload-offset"]) <= 8
        assert not (server.files / "over.bin").exists()
        server.client.delete(path, headers=TUS)
        check_accounts(server)

    def test_another_offset(self, server: FileProcess) -> None:
        path = server.start(10, "offset.bin")
        server.patch(path, 0, b"12345")
        for offset in (0, 4, 6, 10, 2**62):
            answer = server.patch(path, offset, b"1" if offset < 10 else b"")
            assert (answer.status_code, answer.headers["upload-offset"]) == (409, "5")
        assert server.patch(path, 5, b"67890").status_code == 204
        assert server.patch(path, 5, b"67890").status_code == 409
        assert (server.files / "offset.bin").read_bytes() == b"1234567890"

    @pytest.mark.parametrize(
        ("told", "status"),
        [
            ({"Content-Type": "application/octet-stream"}, 415),
            ({"Upload-Offset": "-1"}, 400),
            ({"Upload-Offset": "x"}, 400),
            ({"Upload-Offset": "+0"}, 400),
            ({"Upload-Offset": "0_0"}, 400),
            ({"Upload-Offset": "9" * 20}, 400),
        ],
    )
    def test_a_patch_that_means_nothing(
        self, server: FileProcess, told: dict[str, str], status: int
    ) -> None:
        path = server.start(3, "patch.bin", Upload_Metadata=metadata(filename="patch.bin"))
        sent = {**OCTETS, "Upload-Offset": "0", **told}
        assert server.client.patch(path, headers=sent, content=b"123").status_code == status
        assert server.client.delete(path, headers=TUS).status_code == 204

    def test_no_such_upload(self, server: FileProcess) -> None:
        for path in ("/uploads/0123", "/uploads/..%2f", "/uploads/%00"):
            assert server.head(path).status_code == 404
            assert server.patch(path, 0, b"1").status_code == 404
            assert server.client.delete(path, headers=TUS).status_code == 404


class TestNamesTaken:
    def test_a_file_is_not_replaced_unasked(self, server: FileProcess) -> None:
        server.patch(server.start(3, "taken.bin"), 0, b"old")
        assert server.create(3, "taken.bin").status_code == 409
        asked = metadata(filename="taken.bin", overwrite="true")
        path = server.start(4, Upload_Metadata=asked)
        assert (server.files / "taken.bin").read_bytes() == b"old"
        server.patch(path, 0, b"news")
        assert (server.files / "taken.bin").read_bytes() == b"news"
        check_accounts(server)

    def test_a_name_that_was_taken_meanwhile(self, server: FileProcess) -> None:
        first = server.start(3, "race.bin")
        second = server.start(3, "race.bin")
        assert server.patch(first, 0, b"one").status_code == 204
        assert server.patch(second, 0, b"two").status_code == 409
        # A client that asks now must not take it for done.
        assert server.head(second).status_code == 409
        assert (server.files / "race.bin").read_bytes() == b"one"
        with (
            server.site.ledger() as ledger,
            contextlib.closing(server.site.open_volume(ledger)) as volume,
        ):
            volume.delete("files/race.bin")
        assert server.head(second).headers["upload-offset"] == "3"
        assert (server.files / "race.bin").read_bytes() == b"two"

    def test_a_folder_is_never_replaced(self, server: FileProcess) -> None:
        server.patch(server.start(1, "dir/inside.bin"), 0, b"1")
        asked = metadata(filename="dir", overwrite="true")
        assert server.create(1, Upload_Metadata=asked).status_code == 409
        below = server.create(1, "dir/inside.bin/below")
        assert (below.status_code, below.json()["code"]) == (409, "not-a-folder")
