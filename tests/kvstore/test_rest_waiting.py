"""A client stays awake for answers that come at once, and for no others."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from backupgw.kvstore.backends.rest_dialing import wait_at_most
from backupgw.kvstore.backends.rest_waiting import FEWEST, Waiting


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait_at_most(ours, 30)
        yield ours, theirs


def late(pair: tuple[socket.socket, socket.socket], waiting: Waiting) -> int:
    """How often this thread asked for an answer that comes after 10 ms."""
    asked = 0

    def look(_frame: FrameType, event: str, argument: Any) -> None:
        nonlocal asked
        asked += event == "c_call" and argument.__name__ == "recv"

    ours, theirs = pair
    timer = threading.Timer(0.01, theirs.sendall, [b"late"])
    timer.start()
    sys.setprofile(look)
    try:
        assert waiting.first(ours) == b"late"
    finally:
        sys.setprofile(None)
    timer.join()
    return asked


def test_what_is_there_is_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    waiting = Waiting()
    for number in range(3 * FEWEST):
        pair[1].sendall(b"%d" % number)
        assert waiting.first(pair[0]) == b"%d" % number


def test_late_answers_are_slept_for(pair: tuple[socket.socket, socket.socket]) -> None:
    assert max(late(pair, Waiting()) for _ in range(5)) > 2, "they are tried for"
    waiting = Waiting()
    late(pair, waiting)
    assert [late(pair, waiting) for _ in range(FEWEST)] == [1] * FEWEST, "and then it slept"


def test_the_end_of_a_connection_is_no_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    assert Waiting().first(pair[0]) == b""


@pytest.mark.parametrize("tried", [False, True])
def test_a_connection_on_which_nothing_comes_breaks_in_time(
    pair: tuple[socket.socket, socket.socket], tried: bool
) -> None:
    waiting = Waiting()
    if tried:
        late(pair, waiting)
    wait_at_most(pair[0], 0.05)
    with pytest.raises(OSError, match=r"unavailable|timed out"):
        waiting.first(pair[0])
