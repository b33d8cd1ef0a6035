"""hashlib's algorithms by name, over values and files."""

from __future__ import annotations

import hashlib
import io

import pytest

from backupgw.kvstore.utils import hashing


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "md5", "blake2b"])
def test_digests_are_hashlibs(algorithm: str) -> None:
    value = bytes(range(256)) * 10_000
    expected = hashlib.new(algorithm, value).hexdigest()
    assert hashing.new(algorithm, value).hexdigest() == expected
    assert hashing.file_digest(io.BytesIO(value), algorithm).hexdigest() == expected
    pieces = hashing.new(algorithm)
    pieces.update(value[:1000])
    pieces.update(value[1000:])
    assert pieces.hexdigest() == expected


@pytest.mark.parametrize("algorithm", ["nonsense", "", "shake_256"])
def test_unknown_algorithms_are_value_errors(algorithm: str) -> None:
    with pytest.raises(ValueError, match="Unsupported hash algorithm"):
        hashing.new(algorithm)
    with pytest.raises(ValueError, match="Unsupported hash algorithm"):
        hashing.file_digest(io.BytesIO(b""), algorithm)
