"""Who guesses passwords is slowed down and told so; who knows theirs is let in meanwhile."""

import asyncio
import logging
import threading
from collections import Counter
from pathlib import Path

import pytest
from tests.runtime.auth.auth_site import Clock, Counting, Run, header

from backupgw.runtime.auth import BasicAuthenticator, Htpasswd, Throttle, Throttled
from backupgw.runtime.auth.throttle import PAIR
from backupgw.runtime.auth.turns import Turns


def test_guessing_is_slowed_down_and_told_when_to_come_back(run: Run, clock: Clock) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        for number in range(6):
            assert await auth.authenticate(header("ann", f"x{number}"), "6.6.6.6") is None
        with pytest.raises(Throttled) as caught:
            await auth.authenticate(header("ann", "x"), "6.6.6.6")
        assert caught.value.retry_after == 1
        with pytest.raises(Throttled):
            await auth.authenticate(header("ann", "pa"), "6.6.6.6")
        assert await auth.authenticate(header("ann", "pa"), "1.1.1.1") == "ann"
        clock.now += 1
        assert await auth.authenticate(header("bob", "pb"), "6.6.6.6") == "bob"

    run(main)


def test_who_is_in_stays_in_while_others_guess_from_the_same_address(
    run: Run, clock: Clock, file: Counting
) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        right = header("ann", "pa")
        await auth.authenticate(right, "6.6.6.6")
        for number in range(40):
            try:
                await auth.authenticate(header("ann", f"x{number}"), "6.6.6.6")
                await auth.authenticate(header(f"u{number}", "x"), "6.6.6.6")
            except Throttled:
                continue
        assert auth.authenticate_cached(right) == "ann"
        clock.now += 3601  # remembered no more: bcrypt is asked again, no throttle is
        for number in range(40):
            try:
                await auth.authenticate(header("ann", f"y{number}"), "6.6.6.6")
            except Throttled:
                break
        assert auth.authenticate_cached(right) is None
        assert await auth.authenticate(right, "6.6.6.6") == "ann"

    run(main)


def test_a_thousand_wrong_logins_at_once_hold_up_no_right_one(path: Path) -> None:
    """One address floods; the others get their turn after a few verifications, not a thousand."""
    count = 1000
    order: list[str] = []

    class Ordered(Counting):
        def verify(self, user: str, password: bytes) -> str | None:
            order.append(user)
            return super().verify(user, password)

    async def main() -> None:
        auth = BasicAuthenticator(Ordered(path))
        known = header("Ünal", "pü")
        await auth.authenticate(known, "9.9.9.9")
        order.clear()

        async def wrong(number: int) -> str:
            try:
                answer = await auth.authenticate(header(f"w{number}", "x"), "6.6.6.6")
            except Throttled as error:
                return "throttled" if error.retry_after > 0 else "throttled for nothing"
            return "refused" if answer is None else f"let in as {answer}"

        flood = [asyncio.create_task(wrong(number)) for number in range(count)]
        await asyncio.sleep(0)
        assert auth.authenticate_cached(known) == "Ünal"
        ann = auth.authenticate(header("ann", "pa"), "1.1.1.1")
        bob = auth.authenticate(header("bob", "pb"), "2.2.2.2")
        answers: list[str | None] = list(await asyncio.gather(ann, bob))
        assert answers == ["ann", "bob"]
        assert await auth.authenticate(known, "6.6.6.6") == "Ünal"
        outcome = Counter(await asyncio.gather(*flood))
        assert set(outcome) == {"refused", "throttled"}
        assert outcome["refused"] < 100, "most are not even looked at"
        assert max(order.index("ann"), order.index("bob")) <= 10, "first come would be after 30"
        assert len(order) == outcome["refused"] + 2
        auth.close()

    asyncio.run(main())


def test_a_flood_from_everywhere_is_bounded(path: Path) -> None:
    async def main() -> None:
        auth = BasicAuthenticator(Htpasswd(path))

        async def wrong(number: int) -> bool:
            try:
                where = f"10.0.{number >> 8}.{number & 255}"
                return await auth.authenticate(header(f"w{number}", "x"), where) is not None
            except Throttled:
                return False

        answers = await asyncio.gather(*(wrong(number) for number in range(3000)))
        assert not any(answers)
        assert not auth._flights
        assert await auth.authenticate(header("ann", "pa"), "1.1.1.1") == "ann"
        auth.close()

    asyncio.run(main())


def test_hanging_up_early_makes_no_guess_free(path: Path) -> None:
    class Slow(Counting):
        started = threading.Event()
        finish = threading.Event()

        def verify(self, user: str, password: bytes) -> str | None:
            self.started.set()
            self.finish.wait(10)
            return super().verify(user, password)

    async def main() -> None:
        file = Slow(path)
        throttle = Throttle()
        auth = BasicAuthenticator(file, throttle=throttle, threads=1)
        running = asyncio.create_task(auth.authenticate(header("ann", "x"), "6.6.6.6"))
        await asyncio.to_thread(file.started.wait, 10)
        in_line = asyncio.create_task(auth.authenticate(header("bob", "x"), "6.6.6.6"))
        await asyncio.sleep(0)
        running.cancel()
        in_line.cancel()
        await asyncio.gather(running, in_line, return_exceptions=True)
        file.finish.set()
        assert await auth.authenticate(header("ann", "pa"), "1.1.1.1") == "ann"
        for user in ("ann", "bob"):
            for _ in range(PAIR.free):
                throttle.failed("6.6.6.6", user)
        with pytest.raises(Throttled):  # it was looked at, so it counts
            throttle.check("6.6.6.6", "ann")
        throttle.check("6.6.6.6", "bob")
        assert file.asked["bob"] == 0, "nobody waited for it any more"
        assert not auth._flights
        auth.close()

    asyncio.run(main())


def test_one_who_hangs_up_does_not_take_the_answer_from_another(path: Path) -> None:
    async def main() -> None:
        auth = BasicAuthenticator(Htpasswd(path))
        tasks = [asyncio.create_task(auth.authenticate(header("ann", "pa"))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == ["ann", "ann"]
        auth.close()

    asyncio.run(main())


def test_turns_go_round_the_addresses() -> None:
    from concurrent.futures import ThreadPoolExecutor

    ran: list[str] = []

    async def main(executor: ThreadPoolExecutor) -> None:
        turns = Turns[None](executor, at_once=1, per_address=5, in_all=12)

        def put(address: str, *, proven: bool = False) -> asyncio.Future[None]:
            return turns.queue(address, lambda: ran.append(address), lambda: None, proven=proven)

        waiting = [put("a") for _ in range(6)] + [put("b"), put("b"), put("c")]
        with pytest.raises(Throttled):
            put("a")
        waiting += [put("d"), put("d"), put("d"), put("d")]
        with pytest.raises(Throttled):
            put("e")
        waiting.append(put("a", proven=True))
        await asyncio.gather(*waiting)

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(main(executor))
    assert ran == list("aaabcdabdadada")


def test_failures_are_logged_for_fail2ban_without_forged_lines(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        await auth.authenticate(header("a\nlogin ok", "hunter2"), "6.6.6.6")

    with caplog.at_level(logging.WARNING):
        run(main)
    [record] = caplog.records
    assert record.getMessage() == "login failed: user 'a\\nlogin ok' from 6.6.6.6"
