"""The files are age's: its own test vectors, and another program that reads and writes them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pyrage
import pytest
from tests.kvstore.encrypt.samples import QUICK, SECRET, SIZES

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.encrypt import KEY_FILE, PLACE_FILE, EncryptLayer, NameStyle
from backupgw.kvstore.layers.encrypt_age import Undecryptable, open_under_passphrase
from backupgw.kvstore.layers.encrypt_keys import key_text, read_key

VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "age_vectors.json").read_text()
)
"""From the age format's own test suite (C2SP CCTV, age/testdata; 0BSD): those that are short."""


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_vector(name: str) -> None:
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
def test_age_reads_what_we_write(place: EncryptLayer, size: int) -> None:
    value = os.urandom(size)
    place.store("item", value)
    identity = pyrage.x25519.Identity.from_str(key_text(SECRET))
    assert pyrage.decrypt(place.inner.load("item"), [identity]) == value
    assert json.loads(pyrage.decrypt(place.inner.load(PLACE_FILE), [identity])) == {
        "version": 1,
        "names": "readable",
    }


def test_age_reads_the_key_of_a_place_with_a_passphrase() -> None:
    place = EncryptLayer(Memory(), passphrase="correct horse", work=QUICK)
    place.create()
    with place:
        place.store("item", b"value")
        key = pyrage.passphrase.decrypt(place.inner.load(KEY_FILE), "correct horse").decode()
        identity = pyrage.x25519.Identity.from_str(key.strip())
        (name,) = (info.name for info in place.inner.list(""))
        assert pyrage.decrypt(place.inner.load(name), [identity]) == b"value"
