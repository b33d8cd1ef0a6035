"""What one thread writes and another reads, and which of their failures is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import pytest

from backupgw.wingsadapter.pouring import pour

Write = Callable[[bytes], None]


def three(write: Write) -> None:
    for _ in range(3):
        write(b"x" * 100_000)


def everything(source: BinaryIO) -> int:
    return sum(len(piece) for piece in iter(lambda: source.read(65_536), b""))


def test_all_of_it_arrives() -> None:
    assert pour(three, everything) == 300_000


def test_a_failure_of_who_writes_is_told_though_who_reads_is_content() -> None:
    def fail(write: Write) -> None:
        write(b"x")
        raise RuntimeError("the program failed")

    with pytest.raises(RuntimeError, match="the program failed"):
        pour(fail, everything)


def test_the_cause_is_told_and_not_what_follows() -> None:
    def fail(write: Write) -> None:
        raise RuntimeError("the program failed")

    def miss(source: BinaryIO) -> None:
        raise ValueError("it ends early")

    with pytest.raises(RuntimeError, match="the program failed"):
        pour(fail, miss)


def test_who_reads_may_give_up_and_who_writes_ends() -> None:
    def endless(write: Write) -> None:
        try:
            while True:
                write(b"x" * 100_000)
        except BrokenPipeError as error:
            raise RuntimeError("the program was ended") from error

    def give_up(source: BinaryIO) -> None:
        source.read(10)
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        pour(endless, give_up)
