"""Nothing readable reaches the place, and nothing that is not genuine comes back."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import sys
import threading
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.errors import BackendError, ContentMismatch, NameTooLong
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.encrypt import (
    KEY_FILE,
    PLACE_FILE,
    EncryptLayer,
    NameStyle,
    from_options,
)
from backupgw.kvstore.layers.encrypt_age import (
    CHUNK,
    SEALED,
    START,
    Undecryptable,
    file_size,
    open_under_passphrase,
    plain_size,
    seal_under_passphrase,
)
from backupgw.kvstore.layers.encrypt_keys import key_text, make_key, read_key
from backupgw.kvstore.layers.encrypt_names import MOST_SEGMENT_BYTES
from backupgw.kvstore.layers.encrypt_stretching import MOST_WORK, Stretch, Stretching
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.kvstore.layers.trash_contents import Trash

VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "age_vectors.json").read_text()
)
"""From the age format's own test suite (C2SP CCTV, age/testdata; 0BSD): those that are short."""

SECRET = bytes(range(1, 33))
QUICK = 10
"""A work factor that only tests should use."""

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7)


@pytest.fixture
def place() -> Iterator[EncryptLayer]:
    place = EncryptLayer(Memory(), secret=SECRET, names=NameStyle.READABLE)
    place.create()
    with place:
        yield place


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[EncryptLayer]:
    inner = PosixFS(str(tmp_path / "store"), durability="fast")
    place = EncryptLayer(inner, secret=SECRET)
    place.create()
    with place:
        yield place


def whole(reader: Reader, piece: int = 100_000) -> bytes:
    with reader:
        return b"".join(iter(lambda: reader.read(piece), b""))


def _no_memory(*_: object) -> bytes:
    raise RuntimeError("unexpected failure in key derivation")


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


class TestKeys:
    def test_another_key_opens_nothing(self, sealed: EncryptLayer, tmp_path: Path) -> None:
        sealed.store("item", b"value")
        inner = PosixFS(str(tmp_path / "store"))
        with pytest.raises(Undecryptable, match="is this the place's key"):
            EncryptLayer(inner, secret=bytes(32)).open()
        with pytest.raises(BackendError, match=r"key\.age is missing"):
            EncryptLayer(inner, passphrase="x").open()
        with pytest.raises(BackendError, match="names = 'keyed'"):
            EncryptLayer(inner, secret=SECRET, names=NameStyle.READABLE).open()
        with EncryptLayer(inner, secret=SECRET) as again:
            assert again.load("item") == b"value"

    def test_a_passphrase_opens_the_place_again(self, tmp_path: Path) -> None:
        def layer(passphrase: str) -> EncryptLayer:
            inner = PosixFS(str(tmp_path / "store"), durability="fast")
            return EncryptLayer(inner, passphrase=passphrase, work=QUICK)

        layer("old words").create()
        with layer("old words") as place:
            place.store("item", b"value")
        with layer("old words") as place:
            assert place.load("item") == b"value"
        with pytest.raises(Undecryptable, match="the passphrase is wrong"):
            layer("other words").open()
        # The passphrase is changed by sealing the key anew; the items stay as they are.
        file = tmp_path / "store" / KEY_FILE
        key = pyrage.passphrase.decrypt(file.read_bytes(), "old words")
        file.write_bytes(seal_under_passphrase(key, "new words", work=QUICK))
        with layer("new words") as place:
            assert place.load("item") == b"value"

    def test_libsodium_stretches_as_openssl_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stretch = Stretch(bytes(range(16)), QUICK)
        faster = stretch.key("wörter")
        # Without the library, and with one that finds no memory.
        monkeypatch.setitem(sys.modules, "nacl.bindings", None)
        assert stretch.key("wörter") == faster
        broken = types.ModuleType("nacl.bindings")
        broken.crypto_pwhash_scryptsalsa208sha256_ll = _no_memory  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "nacl.bindings", broken)
        assert stretch.key("wörter") == faster

    def test_a_passphrase_that_is_stretched_already(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def layer(passphrase: str = "words") -> EncryptLayer:
            inner = PosixFS(str(tmp_path / "store"))
            return EncryptLayer(inner, passphrase=passphrase, work=QUICK)

        stretched: list[str] = []
        key_of = Stretch.key

        def counted(stretch: Stretch, passphrase: str) -> bytes:
            stretched.append(passphrase)
            return key_of(stretch, passphrase)

        monkeypatch.setattr(Stretch, "key", counted)
        layer().create()
        with layer() as place:
            place.store("item", b"value")
            (stretch,) = filter(None, [place.stretch])
        assert stretched == ["words"], "once, though the place got its key just then"
        early = Stretching("words", stretch)
        assert early.key(stretch) == key_of(stretch, "words")
        stretched.clear()
        place = layer()
        place.take_stretching(early)
        with place:
            assert place.load("item") == b"value"
            assert place.stretch == stretch
        assert stretched == []
        assert early.key(stretch) is None, "it is still in memory"
        # A wrong one is as wrong as ever.
        place = layer("others")
        place.take_stretching(Stretching("others", stretch))
        with pytest.raises(Undecryptable, match="the passphrase is wrong"):
            place.open()
        # The key was sealed anew meanwhile: with another salt, and more work.
        file = tmp_path / "store" / KEY_FILE
        key = open_under_passphrase(file.read_bytes(), "words")
        file.write_bytes(seal_under_passphrase(key, "words", work=QUICK + 1))
        place = layer()
        place.take_stretching(Stretching("words", stretch))
        with place:
            assert place.load("item") == b"value"
            assert place.stretch is not None
            assert place.stretch.work == QUICK + 1
            assert place.stretch.salt != stretch.salt

    @pytest.mark.parametrize(
        "record",
        [
            None,
            7,
            [],
            {},
            {"salt": "00" * 16},
            {"salt": "00" * 16, "work": "17"},
            {"salt": "00" * 16, "work": True},
            {"salt": "00" * 16, "work": 0},
            {"salt": "00" * 16, "work": MOST_WORK + 1},
            {"salt": "00" * 15, "work": 17},
            {"salt": "no hex" * 6, "work": 17},
            {"salt": 7, "work": 17},
        ],
    )
    def test_what_was_remembered_and_damaged(self, record: object) -> None:
        assert Stretch.of_record(record) is None

    def test_how_it_is_stretched_can_be_remembered(self) -> None:
        stretch = Stretch(bytes(range(16)), 17)
        assert Stretch.of_record(json.loads(json.dumps(stretch.record()))) == stretch

    def test_gateways_that_begin_a_place_at_once_agree(self, tmp_path: Path) -> None:
        PosixFS(str(tmp_path / "store")).create()
        places = [
            EncryptLayer(
                PosixFS(str(tmp_path / "store"), durability="fast"), passphrase="x", work=QUICK
            )
            for _ in range(6)
        ]
        threads = [threading.Thread(target=place.open) for place in places]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        for number, place in enumerate(places):
            place.store(str(number), b"value")
        assert [len(list(place.list(""))) for place in places] == [6] * 6
        for place in places:
            place.close()

    def test_a_place_with_plain_items_is_not_taken_over(self, tmp_path: Path) -> None:
        inner = PosixFS(str(tmp_path / "store"))
        inner.create()
        with inner:
            inner.store("plain", b"value")
        with pytest.raises(BackendError, match="begins with an empty place"):
            EncryptLayer(inner, secret=SECRET).open()
        with inner:
            assert inner.load("plain") == b"value"

    def test_a_key_is_text_that_notices_a_typing_error(self) -> None:
        text = make_key()
        assert key_text(read_key(text)) == text
        assert read_key(text.lower()) == read_key(f"# created: today\n# public\n\n {text} \n")
        assert str(pyrage.x25519.Identity.from_str(text)) == text
        for position in range(16, len(text)):
            other = "Q" if text[position] != "Q" else "P"
            with pytest.raises(ValueError, match="mistyped"):
                read_key(text[:position] + other + text[position + 1 :])
        for wrong in ("", "age1xyz", f"{text}\n{text}", text[:20] + text[20:].lower(), text[:-1]):
            with pytest.raises(ValueError, match="key") as caught:
                read_key(wrong)
            assert not wrong or wrong not in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "wrong"),
        [
            ({}, "key"),
            ({"key": "x", "passphrase": "y"}, "key"),
            ({"key": "AGE-SECRET-KEY-1WRONG"}, "key"),
            ({"key": 7}, "key"),
            ({"passphrase": ""}, "passphrase"),
            ({"passphrase": "x", "names": "hidden"}, "names"),
        ],
    )
    def test_a_wrong_option_is_named(self, options: dict[str, object], wrong: str) -> None:
        with pytest.raises(OptionInvalid) as caught:
            from_options(Memory(), **options)
        assert caught.value.option == wrong
        assert "WRONG" not in str(caught.value)

    def test_options_make_the_layer(self) -> None:
        place = from_options(Memory(), key=make_key(), names="readable")
        place.create()
        with place:
            place.store("item", b"value")
            assert place.inner.info("item").exists


class TestFormat:
    """The files are age's: its own test vectors, and another program that reads and writes them."""

    @pytest.mark.parametrize("name", sorted(VECTORS))
    def test_vector(self, name: str) -> None:
        vector = VECTORS[name]
        file = base64.b64decode(vector["file"])
        good = vector["expect"] == "success" and name != "x25519_grease"  # a stanza more than ours
        if "passphrase" in vector:
            if good:
                found = open_under_passphrase(file, vector["passphrase"])
                assert hashlib.sha256(found).hexdigest() == vector["payload"]
            else:
                with pytest.raises(Undecryptable):
                    open_under_passphrase(file, vector["passphrase"])
            return
        secret = read_key(vector["identity"]) if "identity" in vector else SECRET
        place = EncryptLayer(Memory(), secret=secret, names=NameStyle.READABLE)
        place.create()
        with place:
            place.inner.store("item", file)
            if good:
                assert hashlib.sha256(place.load("item")).hexdigest() == vector["payload"]
            else:
                with pytest.raises(Undecryptable):
                    place.load("item")

    @pytest.mark.parametrize("size", SIZES)
    def test_age_reads_what_we_write(self, place: EncryptLayer, size: int) -> None:
        value = os.urandom(size)
        place.store("item", value)
        identity = pyrage.x25519.Identity.from_str(key_text(SECRET))
        assert pyrage.decrypt(place.inner.load("item"), [identity]) == value
        assert json.loads(pyrage.decrypt(place.inner.load(PLACE_FILE), [identity])) == {
            "version": 1,
            "names": "readable",
        }

    def test_age_reads_the_key_of_a_place_with_a_passphrase(self) -> None:
        place = EncryptLayer(Memory(), passphrase="correct horse", work=QUICK)
        place.create()
        with place:
            place.store("item", b"value")
            key = pyrage.passphrase.decrypt(place.inner.load(KEY_FILE), "correct horse").decode()
            identity = pyrage.x25519.Identity.from_str(key.strip())
            (name,) = (info.name for info in place.inner.list(""))
            assert pyrage.decrypt(place.inner.load(name), [identity]) == b"value"
