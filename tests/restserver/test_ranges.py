"""The Range header: one range of bytes, or an answer that says what is wrong."""

from __future__ import annotations

import pytest

from backupgw.runtime.http.ranges import ByteRange, InvalidRange, parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"bytes=0-", ByteRange(0, None)),
        (b"bytes=5-9", ByteRange(5, 5)),
        (b"bytes=0-0", ByteRange(0, 1)),
        (b"bytes=-7", ByteRange(-7, None)),
        (b"bytes= 5 - 9 ", ByteRange(5, 5)),
        (b"", None),
        (b"bytes=0-1,4-5", None),
    ],
)
def test_a_range_becomes_offset_and_size(header: bytes, expected: ByteRange | None) -> None:
    assert parse(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        b"bytes",
        b"bytes=",
        b"bytes=-",
        b"bytes=-0",
        b"bytes=-000",
        b"bytes=a-b",
        b"bytes=5-4",
        b"bytes=--5",
        b"bytes=+5-",
        b"bytes=5-\n",
        b"bytes=0x1-",
        b"lines=1-2",
        b"bytes 1-2",
        b"bytes=" + b"9" * 30 + b"-",
        b"bytes=-" + b"9" * 30,
        "bytes=٣-".encode(),
    ],
)
def test_what_is_no_range_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidRange):
        parse(header)
