"""HTTP Basic on an event loop: fast for those who are known, fair to those who are not."""

import asyncio
import base64
import hashlib
import os
import threading
from pathlib import Path

import pytest
from tests.runtime.auth.auth_site import Clock, Counting, Run, hashed, header, settled, write

from backupgw.runtime.auth import BasicAuthenticator, Credential, Htpasswd, parse_basic


def rewrite(path: Path, text: str | None) -> None:
    """Change the file in place, or take it away."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


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


def test_a_user_who_was_added_during_a_look_can_log_in_with_the_next_request(path: Path) -> None:
    read, go_on = threading.Event(), threading.Event()

    class Slow(Htpasswd):
        """A file of which a look, once it has read, goes on when somebody waits for it."""

        def _read(self) -> tuple[str, tuple[int, ...] | None]:
            found = super()._read()
            if hasattr(self, "users") and not read.is_set():
                read.set()
                go_on.wait(10)
            return found

    class Lock:
        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.release = self._lock.release

        def acquire(self, *, blocking: bool = True, timeout: float = 0) -> bool:
            if self._lock.acquire(blocking=False):
                return True
            go_on.set()
            return blocking and self._lock.acquire(timeout=timeout)

    async def main() -> None:
        file, clock = Slow(path), Clock()
        vars(file)["_lock"] = Lock()
        auth = BasicAuthenticator(file, clock=clock)
        await auth.authenticate(header("ann", "pa"))
        write(path, ann="other")
        clock.now += 2.1
        auth.authenticate_cached(header("ann", "pa"))
        assert await asyncio.to_thread(read.wait, 10)
        write(path, ann="pa", carl="pc")
        assert await auth.authenticate(header("carl", "pc")) == "carl"
        auth.close()

    asyncio.run(main())


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
            thread.join(60)
        auth.close()

    asyncio.run(main())
