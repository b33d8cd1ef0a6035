"""A client stays awake for answers that come at once, and for no others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from backupgw.kvstore.backends.rest_dialing import wait_at_most
from backupgw.kvstore.backends.rest_waiting import FEWEST, LONGEST, Waiting


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait_at_most(ours, 30)
        yield ours, theirs


def late(pair: tuple[socket.socket, socket.socket], waiting: Waiting) -> float:
    """The processor seconds that this thread took for an answer that comes after 10 ms."""
    ours, theirs = pair
    timer = threading.Timer(0.01, theirs.sendall, [b"late"])
    timer.start()
    before = time.thread_time()
    assert waiting.first(ours) == b"late"
    took = time.thread_time() - before
    timer.join()
    return took


def test_what_is_there_is_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    waiting = Waiting()
    for number in range(3 * FEWEST):
        pair[1].sendall(b"%d" % number)
        assert waiting.first(pair[0]) == b"%d" % number


def test_late_answers_are_slept_for(pair: tuple[socket.socket, socket.socket]) -> None:
    assert max(late(pair, Waiting()) for _ in range(5)) > LONGEST / 4, "they are tried for"
    waiting = Waiting()
    late(pair, waiting)
    took = sum(late(pair, waiting) for _ in range(FEWEST))
    assert took < FEWEST * LONGEST / 2, "and then it slept"


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
