"""HTTP Basic on an event loop: fast for those who are known, fair to those who are not."""

import asyncio
import base64
import hashlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import bcrypt
import pytest

from backupgw.runtime.auth import (
    BasicAuthenticator,
    Credential,
    Htpasswd,
    Throttle,
    Throttled,
    parse_basic,
)
from backupgw.runtime.auth.throttle import PAIR
from backupgw.runtime.auth.turns import Turns


def header(user: str | bytes, password: str) -> bytes:
    name = user.encode() if isinstance(user, str) else user
    return b"Basic " + base64.b64encode(name + b":" + password.encode())


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def write(path: Path, **passwords: str) -> None:
    new = path.with_suffix(".new")
    new.write_text("".join(f"{user}:{hashed(word)}\n" for user, word in passwords.items()))
    os.utime(new, (time.time() - 3, time.time() - 3))
    new.replace(path)


def rewrite(path: Path, text: str | None) -> None:
    """Change the file in place, or take it away."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting(Htpasswd):
    """Counts what bcrypt is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: Counter[str] = Counter()
        self.threads: set[str] = set()

    def verify(self, user: str, password: bytes) -> str | None:
        self.asked[user] += 1
        self.threads.add(threading.current_thread().name)
        return super().verify(user, password)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    write(path, ann="pa", bob="pb", Ünal="pü")
    return path


@pytest.fixture
def file(path: Path) -> Counting:
    return Counting(path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Run = Callable[[Callable[[BasicAuthenticator], Awaitable[None]]], None]


@pytest.fixture
def run(file: Counting, clock: Clock) -> Iterator[Run]:
    auth = BasicAuthenticator(file, clock=clock)

    def go(main: Callable[[BasicAuthenticator], Awaitable[None]]) -> None:
        async def whole() -> None:
            await main(auth)

        asyncio.run(whole())

    yield go
    auth.close()


async def settled(auth: BasicAuthenticator) -> None:
    """Wait for what was handed to the authenticator's threads."""
    loop = asyncio.get_running_loop()
    barrier = threading.Barrier(3)
    waits = [loop.run_in_executor(auth._executor, barrier.wait) for _ in range(3)]
    await asyncio.gather(*waits)


@pytest.mark.parametrize(
    ("value", "credential"),
    [
        (b"Basic YW5uOnBh", Credential("ann", b"pa")),
        (b"basic YW5uOnBh", Credential("ann", b"pa")),
        (b"BASIC   YW5uOnBh  ", Credential("ann", b"pa")),
        (header("Ünal", "p:ü"), Credential("Ünal", "p:ü".encode())),
        (header("ann", ""), Credential("ann", b"")),
        (b"Basic Og==", None),
        (header("", "pa"), None),
        (None, None),
        (b"", None),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Bearer YW5uOnBh", None),
        (b"BasicYW5uOnBh", None),
        (b"Basic YW5uOnB", None),
        (b"Basic YW5u*OnBh", None),
        (b"Basic YW5u\nOnBh", None),
        (b"Basic " + base64.b64encode(b"no colon"), None),
        (header(b"\xff\xfe", "pa"), None),
        (header("x" * 300, "pa"), None),
        (b"Basic " + b"A" * 100_000, None),
        (b"Basic \xff\xff", None),
        (b"\x00" * 30, None),
    ],
)
def test_headers(value: bytes | None, credential: Credential | None) -> None:
    assert parse_basic(value) == credential


def test_a_credential_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(parse_basic(header("ann", "hunter2")))


def test_right_wrong_unknown_and_nonsense(run: Run, file: Counting) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        assert await auth.authenticate(header("ann", "pa"), "1.1.1.1") == "ann"
        assert await auth.authenticate(header("Ünal", "pü"), "1.1.1.1") == "Ünal"
        assert await auth.authenticate(header("ann", "pb"), "1.1.1.1") is None
        assert await auth.authenticate(header("eve", "pa"), "1.1.1.1") is None
        assert file.asked["eve"] == 1, "a user who does not exist is verified like any other"
        for nonsense in (None, b"Basic Og==", b"Basic !", b"", b"\xff"):
            assert auth.authenticate_cached(nonsense) is None
            assert await auth.authenticate(nonsense, "1.1.1.1") is None
        assert all(name.startswith("auth") for name in file.threads), "never on the event loop"

    run(main)


def test_bcrypt_is_asked_once_for_a_credential(run: Run, file: Counting) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        right = header("ann", "pa")
        assert auth.authenticate_cached(right) is None
        answers = await asyncio.gather(*(auth.authenticate(right, "1.1.1.1") for _ in range(100)))
        assert answers == ["ann"] * 100
        assert auth.authenticate_cached(right) == "ann"
        assert await auth.authenticate(right, "2.2.2.2") == "ann"
        assert file.asked["ann"] == 1
        assert auth.authenticate_cached(header("ann", "pb")) is None
        assert auth.authenticate_cached(header("bob", "pa")) is None

    run(main)


def test_parallel_requests_with_one_wrong_password_count_once(run: Run, file: Counting) -> None:
    """restic's five connections make the same mistake at the same time."""

    async def main(auth: BasicAuthenticator) -> None:
        wrong = header("ann", "typo")
        for _ in range(4):
            answers = await asyncio.gather(*(auth.authenticate(wrong, "1.1.1.1") for _ in range(5)))
            assert answers == [None] * 5
        assert file.asked["ann"] == 4
        assert await auth.authenticate(header("ann", "pa"), "1.1.1.1") == "ann"

    run(main)


def test_what_is_remembered_ends(run: Run, file: Counting, clock: Clock) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        right = header("ann", "pa")
        await auth.authenticate(right)
        clock.now += 3601
        assert auth.authenticate_cached(right) is None
        assert await auth.authenticate(right) == "ann"
        assert file.asked["ann"] == 2

    run(main)


def test_memory_is_bounded(path: Path) -> None:
    write(path, **{f"u{number}": "p" for number in range(20)})

    async def main() -> None:
        auth = BasicAuthenticator(Htpasswd(path), size=10)
        for number in range(20):
            assert await auth.authenticate(header(f"u{number}", "p"), "1.1.1.1")
        assert len(auth._known) == 10
        assert auth.authenticate_cached(header("u19", "p")) == "u19"
        assert auth.authenticate_cached(header("u0", "p")) is None
        auth.close()

    asyncio.run(main())


def test_no_password_is_kept_in_memory(run: Run) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        right = header("ann", "pa")
        await auth.authenticate(right)
        assert right not in repr((auth._known, auth._flights)).encode()
        assert all(len(key) == 16 for key in auth._known)

    run(main)


def test_a_changed_password_counts_at_once_when_the_file_is_reloaded(
    run: Run, path: Path, file: Counting
) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        await auth.authenticate(header("ann", "pa"))
        await auth.authenticate(header("bob", "pb"))
        lines = {**file.users, "ann": hashed("new")}
        rewrite(path, "".join(f"{user}:{digest}\n" for user, digest in lines.items()))
        auth.reload()
        await settled(auth)
        assert auth.authenticate_cached(header("ann", "pa")) is None
        assert await auth.authenticate(header("ann", "pa")) is None
        assert await auth.authenticate(header("ann", "new")) == "ann"
        assert auth.authenticate_cached(header("bob", "pb")) == "bob", "his line did not change"

    run(main)


def test_a_removed_user_is_out_within_seconds_without_any_signal(
    run: Run, path: Path, clock: Clock
) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        right = header("ann", "pa")
        await auth.authenticate(right)
        write(path, bob="pb")
        clock.now += 2.1
        auth.authenticate_cached(right)  # the look happens beside it, so it may still say yes
        await settled(auth)
        assert auth.authenticate_cached(right) is None
        assert await auth.authenticate(right) is None

    run(main)


def test_a_user_who_was_added_can_log_in_with_the_next_request(run: Run, path: Path) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        write(path, ann="pa", carl="pc")
        assert await auth.authenticate(header("carl", "pc")) == "carl"

    run(main)


def test_a_broken_file_cuts_nobody_off(run: Run, path: Path, clock: Clock) -> None:
    async def main(auth: BasicAuthenticator) -> None:
        await auth.authenticate(header("ann", "pa"))
        rewrite(path, "garbage")
        auth.reload()
        await settled(auth)
        assert auth.authenticate_cached(header("ann", "pa")) == "ann"
        assert await auth.authenticate(header("bob", "pb")) == "bob"
        rewrite(path, None)
        clock.now += 4000
        assert await auth.authenticate(header("ann", "pa")) == "ann"

    run(main)


def test_a_verification_that_a_reload_overtook_is_not_remembered(path: Path) -> None:
    class Slow(Htpasswd):
        started = threading.Event()
        finish = threading.Event()

        def verify(self, user: str, password: bytes) -> str | None:
            digest = super().verify(user, password)
            self.started.set()
            self.finish.wait(10)
            return digest

    async def main() -> None:
        file = Slow(path)
        auth = BasicAuthenticator(file)
        task = asyncio.create_task(auth.authenticate(header("ann", "pa")))
        await asyncio.to_thread(file.started.wait, 10)
        write(path, ann="changed")
        file.reload()
        file.finish.set()
        await task
        assert auth.authenticate_cached(header("ann", "pa")) is None
        auth.close()

    asyncio.run(main())


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


def test_logins_go_on_while_the_file_is_replaced_over_and_over(path: Path) -> None:
    digest = "{SHA}" + base64.b64encode(hashlib.sha1(b"pa").digest()).decode()
    path.write_text(f"ann:{digest}\n")
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            new = path.with_suffix(".tmp")
            new.write_text(f"u{number}:{digest}\nann:{digest}\n")
            os.replace(new, path)
            path.write_text(f"ann:{digest}\n" + "broken line\n" * (number % 2))

    async def main() -> None:
        auth = BasicAuthenticator(Htpasswd(path), lifetime=-1.0)
        thread = threading.Thread(target=replace)
        thread.start()
        try:
            for number in range(500):
                if number % 50 == 0:
                    auth.reload()
                assert await auth.authenticate(header("ann", "pa"), "1.1.1.1") == "ann"
        finally:
            stop.set()
            thread.join()
        auth.close()

    asyncio.run(main())
