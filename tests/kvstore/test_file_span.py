"""What a local place tells of the file that an item is; conformance asks every place and layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backupgw.kvstore.backends.posixfs import PosixFS

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def place(tmp_path: Path) -> PosixFS:
    place = PosixFS(str(tmp_path / "place"))
    place.create()
    with place:
        place.store("a/b", CONTENT)
    return place


@pytest.mark.parametrize(
    ("offset", "size"), [(0, None), (17, None), (17, 1000), (-9, None), (5, 0), (10**6, None)]
)
def test_the_span_holds_what_reading_returns(place: PosixFS, offset: int, size: int | None) -> None:
    with place, place.open_reader("a/b", offset=offset, size=size) as reader:
        span = reader.file_span()
        assert span is not None
        assert span.size == reader.remaining
        assert os.pread(span.fd, span.size, span.offset) == reader.read(len(CONTENT))


def test_the_span_is_what_remains(place: PosixFS) -> None:
    with place, place.open_reader("a/b", offset=3) as reader:
        reader.read(100)
        reader.read_nowait(100)
        span = reader.file_span()
        assert span is not None
        assert (span.offset + span.size, span.size) == (len(CONTENT), reader.remaining)
