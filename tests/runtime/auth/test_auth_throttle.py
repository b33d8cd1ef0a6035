"""What guessing at passwords costs, and whom it does not cost anything."""

import pytest

from backupgw.runtime.auth import Throttle, Throttled
from backupgw.runtime.auth.throttle import ADDRESS, PAIR, network


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock=clock)


def wait(throttle: Throttle, address: str, user: str) -> float:
    try:
        throttle.check(address, user)
    except Throttled as error:
        return error.retry_after
    return 0.0


def guess(throttle: Throttle, clock: Clock, seconds: float, address: str, users: list[str]) -> int:
    """Guess as fast as is allowed for `seconds`; return how many guesses were looked at."""
    end, looked_at = clock.now + seconds, 0
    while clock.now < end:
        user = users[looked_at % len(users)]
        if (delay := wait(throttle, address, user)) > 0:
            clock.now += delay
            continue
        throttle.failed(address, user)
        looked_at += 1
        clock.now += 0.01
    return looked_at


def test_a_few_typing_errors_cost_nothing(throttle: Throttle) -> None:
    for _ in range(PAIR.free):
        throttle.failed("1.1.1.1", "ann")
        assert wait(throttle, "1.1.1.1", "ann") == 0


def test_then_each_failure_doubles_the_wait_up_to_a_bound(throttle: Throttle, clock: Clock) -> None:
    for _ in range(PAIR.free):
        throttle.failed("1.1.1.1", "ann")
    waits = []
    for _ in range(9):
        throttle.failed("1.1.1.1", "ann")
        waits.append(wait(throttle, "1.1.1.1", "ann"))
        clock.now += waits[-1]
        assert wait(throttle, "1.1.1.1", "ann") == 0
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert waits[-1] == PAIR.longest


def test_guessing_at_one_name_leaves_others_behind_the_same_address_alone(
    throttle: Throttle, clock: Clock
) -> None:
    looked_at = guess(throttle, clock, 3600, "1.1.1.1", ["ann"])
    assert looked_at < 100
    assert wait(throttle, "1.1.1.1", "bob") == 0
    assert wait(throttle, "2.2.2.2", "ann") == 0


def test_guessing_at_many_names_slows_the_address_but_never_shuts_it_for_long(
    throttle: Throttle, clock: Clock
) -> None:
    names = [f"u{number}" for number in range(100_000)]
    looked_at = guess(throttle, clock, 3600, "1.1.1.1", names)
    assert looked_at < 1500
    assert wait(throttle, "1.1.1.1", "new") <= ADDRESS.longest
    clock.now += ADDRESS.longest
    assert wait(throttle, "1.1.1.1", "new") == 0


def test_failures_are_forgotten(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        throttle.failed("1.1.1.1", "ann")
    clock.now += PAIR.forget * 20
    throttle.failed("1.1.1.1", "ann")
    assert wait(throttle, "1.1.1.1", "ann") == 0


def test_a_login_clears_the_user_and_not_the_address(throttle: Throttle, clock: Clock) -> None:
    """Or whoever has one login could guess at all others for ever."""
    for number in range(ADDRESS.free + 5):
        throttle.failed("1.1.1.1", f"u{number}")
        throttle.failed("1.1.1.1", "ann")
        throttle.succeeded("1.1.1.1", "ann")
    assert wait(throttle, "1.1.1.1", "other") > 0
    clock.now += ADDRESS.longest
    assert wait(throttle, "1.1.1.1", "ann") == 0


def test_memory_is_bounded(clock: Clock) -> None:
    throttle = Throttle(size=100, clock=clock)
    for number in range(10_000):
        throttle.failed(f"10.{number >> 8}.{number & 255}.1", f"u{number}")
    assert wait(throttle, "10.0.0.1", "u0") == 0
    for _ in range(10):
        throttle.failed("1.1.1.1", "ann")
    assert wait(throttle, "1.1.1.1", "ann") > 0, "the newest are the ones kept"


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::1", "::"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_a_whole_ipv6_network_is_one_client(address: str, same: str) -> None:
    assert network(address) == same
