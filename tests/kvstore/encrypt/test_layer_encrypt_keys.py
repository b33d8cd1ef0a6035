"""Keys and passphrases of encrypted places, and whose place it is."""

from __future__ import annotations

import json
import sys
import threading
import types
from pathlib import Path

import pyrage
import pytest
from tests.kvstore.encrypt.samples import QUICK, SECRET

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.encrypt import KEY_FILE, EncryptLayer, NameStyle, from_options
from backupgw.kvstore.layers.encrypt_age import (
    Undecryptable,
    open_under_passphrase,
    seal_under_passphrase,
)
from backupgw.kvstore.layers.encrypt_keys import key_text, make_key, read_key
from backupgw.kvstore.layers.encrypt_stretching import MOST_WORK, Stretch, Stretching
from backupgw.kvstore.layers.options import OptionInvalid


def _no_memory(*_: object) -> bytes:
    raise RuntimeError("unexpected failure in key derivation")


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
