"""A SHA-256 goes on from its written state, in another process too."""

from __future__ import annotations

import hashlib
import random

import pytest

from backupgw.kvstore.backends import resumable_sha256
from backupgw.kvstore.backends.errors import UnsupportedOperation
from backupgw.kvstore.backends.resumable_sha256 import PlainSha256, ResumableSha256

DATA = bytearray(random.Random(1).randbytes(70_000))


@pytest.mark.parametrize("cut", [0, 1, 55, 56, 63, 64, 65, 127, 128, 1000, 69_999, 70_000])
def test_goes_on_where_it_was(cut: int) -> None:
    first = ResumableSha256()
    first.update(DATA, 0, cut)
    state = first.state()
    assert first.hexdigest() == hashlib.sha256(DATA[:cut]).hexdigest()
    second = ResumableSha256.from_state(state)
    assert second.state() == state
    second.update(DATA, cut, len(DATA))
    assert second.hexdigest() == hashlib.sha256(DATA).hexdigest()
    DATA.append(0)  # nothing of the buffer is held
    DATA.pop()


def test_counts_beyond_four_gib() -> None:
    """The counter of bits has two halves; the second is needed after 512 MiB."""
    digest, expected, block = ResumableSha256(), hashlib.sha256(), bytearray(16 << 20)
    for _ in range(33):
        digest.update(block, 0, len(block))
        expected.update(block)
    assert ResumableSha256.from_state(digest.state()).hexdigest() == expected.hexdigest()


@pytest.mark.parametrize("state", ["", "x", "0" * 64, f"{'0' * 64}:1:", f"{'0' * 64}:64:00"])
def test_other_text_is_no_state(state: str) -> None:
    with pytest.raises(ValueError, match="not the state"):
        ResumableSha256.from_state(state)


def test_without_the_functions_it_hashes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("no such function")

    monkeypatch.setattr(resumable_sha256, "_library", missing)
    digest = resumable_sha256.new()
    assert isinstance(digest, PlainSha256)
    digest.update(DATA, 5, 500)
    assert digest.hexdigest() == hashlib.sha256(DATA[5:500]).hexdigest()
    with pytest.raises(UnsupportedOperation):
        digest.state()
