"""Nothing readable reaches the place, and nothing that is not genuine comes back."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kvstore.encrypt.samples import SECRET, SIZES

from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.errors import BackendError, ContentMismatch, NameTooLong
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.encrypt import EncryptLayer, NameStyle
from backupgw.kvstore.layers.encrypt_age import (
    CHUNK,
    SEALED,
    START,
    Undecryptable,
    file_size,
    plain_size,
)
from backupgw.kvstore.layers.encrypt_names import MOST_SEGMENT_BYTES
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.kvstore.layers.trash_contents import Trash


class TestContent:
    @pytest.mark.parametrize("size", SIZES)
    def test_values_and_ranges_come_back(self, place: EncryptLayer, size: int) -> None:
        value = os.urandom(size)
        place.store("item", value)
        assert place.load("item") == value
        assert place.info("item").size == size
        assert [info.size for info in place.list("")] == [size]
        edges = sorted({0, 1, CHUNK - 1, CHUNK, CHUNK + 1, size // 2, max(0, size - 1), size})
        for offset, length in itertools.product(edges, (0, 1, CHUNK, None)):
            end = None if length is None else offset + length
            assert place.load("item", offset=offset, size=length) == value[offset:end]
            if offset:
                found = place.load("item", offset=-offset, size=length)
                start = max(0, size - offset)
                assert found == value[start : None if length is None else start + length]

    def test_a_range_fetches_little_more_than_itself(
        self, place: EncryptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.store("item", bytes(100 * CHUNK))
        fetched: list[int] = []
        real = place.inner.open_reader

        def watched(name: str, *, offset: int = 0, size: int | None = None) -> Reader:
            reader = real(name, offset=offset, size=size)
            fetched.append(reader.remaining)
            return reader

        monkeypatch.setattr(place.inner, "open_reader", watched)
        assert place.load("item", offset=50 * CHUNK - 10, size=20) == bytes(20)
        assert sum(fetched) == START + 2 * SEALED
        fetched.clear()
        assert place.load("item", offset=10, size=20) == bytes(20)
        assert sum(fetched) == START + SEALED

    def test_sizes_follow_from_those_of_the_files(self) -> None:
        for size in (*SIZES, *range(200), *range(CHUNK - 40, CHUNK + 40)):
            assert plain_size(file_size(size)) == size
        for impossible in (0, START, START + 15, START + SEALED + 1, START + SEALED + 16):
            assert plain_size(impossible) is None

    def test_memory_does_not_grow_with_the_value(self, sealed: EncryptLayer) -> None:
        piece = os.urandom(1 << 20)
        tracemalloc.start()
        try:
            with sealed.open_writer("item") as writer:
                for _ in range(24):
                    writer.write(piece)
            with sealed.open_reader("item") as reader:
                while reader.read(1 << 20):
                    pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 << 20

    def test_hash_and_size_are_of_the_plain_bytes(self, place: EncryptLayer) -> None:
        value = os.urandom(CHUNK + 5)
        digest = hashlib.sha256(value).hexdigest()
        with place.open_writer("item", size=len(value), expected_hash=digest) as writer:
            writer.write(value)
        assert place.hash("item") == digest
        for size, expected in ((len(value) + 1, digest), (None, "0" * 64), (3, digest)):
            with (
                pytest.raises(ContentMismatch),
                place.open_writer("item", size=size, expected_hash=expected) as writer,
            ):
                writer.write(value[::-1])
        assert place.load("item") == value

    def test_every_file_has_a_key_of_its_own(self, place: EncryptLayer) -> None:
        for name in ("a", "b"):
            place.store(name, bytes(CHUNK))
        first, second = (place.inner.load(name)[START:] for name in ("a", "b"))
        same = sum(one == other for one, other in zip(first, second, strict=True))
        assert same < len(first) / 100

    def test_an_item_replaced_while_somebody_begins_to_read_is_read_whole(
        self, sealed: EncryptLayer
    ) -> None:
        values = [bytes([number]) * (3 * CHUNK) for number in range(4)]
        sealed.store("item", values[0])
        ended = threading.Event()

        def replace() -> None:
            for number in itertools.count():
                if ended.is_set():
                    return
                sealed.store("item", values[number % 4])

        writer = threading.Thread(target=replace)
        writer.start()
        try:
            for _ in range(150):
                try:
                    found = sealed.load("item", offset=CHUNK + 1)
                except BackendError as error:
                    if not error.retryable:
                        raise  # it was taken for damage
                    continue
                assert len(set(found)) == 1
                assert len(found) == 2 * CHUNK - 1
        finally:
            ended.set()
            writer.join(60)


class TestDamage:
    """Whatever happens to the file, an error of the kernel's family says so."""

    def damage(self, place: EncryptLayer, file: bytes) -> None:
        place.inner.store("item", file)

    def must_fail(self, place: EncryptLayer) -> None:
        with pytest.raises(Undecryptable, match="item: "):
            place.load("item")

    @pytest.mark.parametrize("size", [0, 1, 100, CHUNK, 2 * CHUNK + 100])
    def test_every_flipped_bit_is_noticed(self, place: EncryptLayer, size: int) -> None:
        place.store("item", os.urandom(size))
        file = place.inner.load("item")
        positions = [*range(START + 20), *range(START + 20, len(file), 997), len(file) - 1]
        for position in positions:
            if position >= len(file):
                continue
            damaged = bytearray(file)
            damaged[position] ^= 1 << position % 8
            self.damage(place, bytes(damaged))
            self.must_fail(place)

    def test_cut_off_and_lengthened_files_are_noticed(self, place: EncryptLayer) -> None:
        place.store("item", os.urandom(3 * CHUNK))
        file = place.inner.load("item")
        ends = (0, 1, START, START + 16, START + SEALED, START + 2 * SEALED, len(file) - 1)
        for end in ends:
            self.damage(place, file[:end])
            self.must_fail(place)
        for more in (b"x", bytes(16), bytes(SEALED), file[START:]):
            self.damage(place, file + more)
            self.must_fail(place)

    def test_the_end_of_a_cut_off_file_does_not_pass_for_its_own(self, place: EncryptLayer) -> None:
        place.store("item", os.urandom(3 * CHUNK))
        self.damage(place, place.inner.load("item")[: START + 2 * SEALED])
        with pytest.raises(Undecryptable):
            place.load("item", offset=-10)
        with pytest.raises(Undecryptable):
            place.load("item", offset=CHUNK + 1)

    def test_exchanged_and_repeated_chunks_are_noticed(self, place: EncryptLayer) -> None:
        place.store("item", os.urandom(3 * CHUNK))
        place.store("other", os.urandom(3 * CHUNK))
        file, other = place.inner.load("item"), place.inner.load("other")
        start, chunks = file[:START], [file[START + i * SEALED :][:SEALED] for i in range(3)]
        for order in ((1, 0, 2), (0, 0, 2), (0, 2, 1), (2, 1, 0), (0, 2)):
            self.damage(place, start + b"".join(chunks[index] for index in order))
            self.must_fail(place)
        self.damage(place, start + other[START:])
        self.must_fail(place)

    def test_a_foreign_file_is_no_item(self, place: EncryptLayer) -> None:
        for file in (b"", b"plain", bytes(1000), pyrage.encrypt(b"x", [_other_recipient()])):
            self.damage(place, file)
            self.must_fail(place)
            place.info("item")
            list(place.list(""))

    @given(file=st.binary(max_size=400), cut=st.integers(0, 300))
    def test_rubbish_is_an_error_and_nothing_else(self, file: bytes, cut: int) -> None:
        place = EncryptLayer(Memory(), secret=SECRET, names=NameStyle.READABLE)
        place.create()
        with place:
            place.store("item", b"value")
            genuine = place.inner.load("item")
            place.inner.store("item", genuine[:cut] + file)
            if genuine[:cut] + file != genuine:
                with pytest.raises(Undecryptable):
                    place.load("item")


def _other_recipient() -> Any:
    return pyrage.x25519.Identity.generate().to_public()


class TestNames:
    def test_nothing_readable_is_on_the_disk(self, sealed: EncryptLayer, tmp_path: Path) -> None:
        value = b"the quick brown fox " * 5000
        sealed.store("repository/snapshots/secret-name", value)
        sealed.store("repository/secret-name", value)
        sealed.mkdir("empty-folder")
        seen = b""
        for path in (tmp_path / "store").rglob("*"):
            seen += path.name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
        for plain in (b"quick", b"secret", b"repository", b"snapshots", b"empty-f", b"keyed"):
            assert plain not in seen
        names = [path.name for path in (tmp_path / "store").rglob("*")]
        assert len(set(names)) == len(names), "equal names in two folders can be told"
        assert [info.name for info in sealed.list("repository/snapshots")] == ["secret-name"]
        assert sealed.load("repository/secret-name") == value

    def test_a_longer_name_is_refused_with_what_would_fit(self, sealed: EncryptLayer) -> None:
        assert MOST_SEGMENT_BYTES == 143
        sealed.store(f"{'d' * 143}/{'é' * 71}x", b"value")
        for name in ("n" * 144, f"{'d' * 144}/n", "é" * 72):
            with pytest.raises(NameTooLong, match="at most 143 bytes"):
                sealed.store(name, b"value")
        with pytest.raises(NameTooLong, match="too long"):
            sealed.store("/".join(["d" * 20] * 100), b"value")

    def test_entries_that_were_not_sealed_are_left_out(
        self, sealed: EncryptLayer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        sealed.store("folder/item", b"value")
        folder = next(p for p in (tmp_path / "store").iterdir() if not p.name.startswith("."))
        (item,) = folder.iterdir()
        (folder / "stranger").write_bytes(b"x")
        (folder / item.name.upper()).write_bytes(b"x")
        (tmp_path / "store" / item.name).write_bytes(item.read_bytes())  # moved to another folder
        assert [info.name for info in sealed.list("folder")] == ["item"]
        assert [info.name for info in sealed.list("")] == ["folder"]
        assert "stranger" in caplog.text

    def test_the_trash_above_keeps_no_plain_name_either(
        self, sealed: EncryptLayer, tmp_path: Path
    ) -> None:
        place = TrashLayer(sealed, 86_400.0)
        place.store("folder/secret-name", b"value")
        place.store("folder/secret-name", b"newer")
        place.delete("folder/secret-name")
        assert all("secret" not in path.as_posix() for path in (tmp_path / "store").rglob("*"))
        assert sorted(entry.size for entry in Trash(place).entries("folder/")) == [5, 5]
        Trash(place).restore_name("folder/secret-name")
        assert place.load("folder/secret-name") == b"newer"
