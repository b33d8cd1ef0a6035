"""Tokens on an event loop: quick for those who are known, and over when they are revoked."""

import asyncio
import base64
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime.auth import Throttled
from backupgw.runtime.authorisation import Action, Authoriser, Principal, Scope, Target
from backupgw.runtime.database import sqlite_url
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings_tokens import KeySettings, TokenSettings
from backupgw.runtime.tokens import DatabaseTokens, Token, TokenAuthenticator, TokenStoreError, mint
from backupgw.runtime.tokens.authenticator import is_token
from backupgw.runtime.tokens.signed import Claims, SignedTokens, load_key

NOW = 1_800_000_000.0
SCOPE = Scope.parse(["append"], ["repository:default/ann"])


def basic_header(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


class Clock:
    """Both clocks: they go together."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return NOW + self.now


class Store(DatabaseTokens):
    """Counts lookups, and breaks when told."""

    looked_up = 0
    broken = False

    def find(self, token_id: str) -> Token | None:
        self.looked_up += 1
        return super().find(token_id)

    def generation(self) -> int:
        if self.broken:
            raise TokenStoreError("the disk is gone")
        return super().generation()


class Site:
    """An authenticator with its store, and another process's view of the same file."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = Store.at(sqlite_url(folder / "state.sqlite3"))
        self.elsewhere = DatabaseTokens.at(sqlite_url(folder / "state.sqlite3"))
        key = load_key(KeySettings(id="h", algorithm="HS256", secret=Secret("s" * 40)))
        self.signed = SignedTokens([key], TokenSettings(), self.store)
        self.tokens = TokenAuthenticator(
            self.store, self.signed, clock=self.clock.monotonic, wall=self.clock.wall
        )

    def add(self, expires: float | None = None) -> tuple[str, Token]:
        text, token = mint("ann", SCOPE, now=NOW, expires=expires)
        self.elsewhere.add(token)
        return text, token

    async def settle(self) -> None:
        """Wait until what was handed to threads is done: until all three meet, idle."""
        meeting = threading.Barrier(3)
        loop, executor = asyncio.get_running_loop(), self.tokens._executor
        await asyncio.gather(*(loop.run_in_executor(executor, meeting.wait, 30) for _ in range(3)))


def play(folder: Path, act: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        site = Site(folder)
        try:
            await act(site)
        finally:
            await site.tokens.close()
            site.store.close()
            site.elsewhere.close()

    asyncio.run(run())


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


def test_a_token_is_looked_up_once_and_then_known(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, token = site.add()
        header = bearer(text)
        assert site.tokens.authenticate_cached(header) is None
        who = await site.tokens.authenticate(header, "10.0.0.1")
        assert who == Principal("ann", SCOPE, token.id)
        for _ in range(5):
            assert site.tokens.authenticate_cached(header) == who
        assert site.store.looked_up == 1
        assert Authoriser().allows(who, Action.ADD, Target.repository("default", "ann"))
        assert not Authoriser().allows(who, Action.ADD, Target.repository("default", "bob"))

    play(tmp_path, act)


def test_restic_sends_it_as_its_users_password(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, token = site.add()
        for header in (basic_header("ann", text), b"bEaReR   " + text.encode() + b" "):
            assert is_token(header)
            who = await site.tokens.authenticate(header)
            assert who is not None
            assert who.token == token.id
        assert await site.tokens.authenticate(basic_header("bob", text)) is None

    play(tmp_path, act)


def test_what_is_no_token_is_left_to_passwords() -> None:
    for header in (None, b"", b"Basic Og==", basic_header("ann", "password"), b"Digest x"):
        assert not is_token(header)


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t.swapcase(), lambda t: t + "="])
def test_a_wrong_token_is_nobodys_and_only_its_id_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[str], str]
) -> None:
    async def act(site: Site) -> None:
        text, _ = site.add()
        assert await site.tokens.authenticate(bearer(text), "10.0.0.1") is not None
        assert await site.tokens.authenticate(bearer(spoil(text)), "10.0.0.1") is None
        assert text.split("_", 2)[2][:20] not in caplog.text
        assert text.split("_", 2)[2].swapcase()[:20] not in caplog.text
        assert "token refused from 10.0.0.1" in caplog.text

    with caplog.at_level(logging.DEBUG):
        play(tmp_path, act)


def test_a_token_that_another_process_revokes_is_soon_refused(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, token = site.add()
        assert await site.tokens.authenticate(bearer(text)) is not None
        site.elsewhere.revoke(token.id, NOW)
        site.clock.now += 2.5
        site.tokens.authenticate_cached(bearer(text))  # may be too early, and looks
        await site.settle()
        assert site.tokens.authenticate_cached(bearer(text)) is None
        assert await site.tokens.authenticate(bearer(text)) is None

    play(tmp_path, act)


def test_after_ten_silent_seconds_nothing_is_taken_from_memory(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, token = site.add()
        assert await site.tokens.authenticate(bearer(text)) is not None
        site.elsewhere.revoke(token.id, NOW)
        site.clock.now += 10
        assert site.tokens.authenticate_cached(bearer(text)) is None
        assert await site.tokens.authenticate(bearer(text)) is None

    play(tmp_path, act)


def test_a_look_that_is_quick_prolongs_nothing_for_whom_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(site: Site) -> None:
        text, token = site.add()
        assert await site.tokens.authenticate(bearer(text)) is not None
        site.elsewhere.revoke(token.id, NOW)
        site.clock.now += 10
        # The thread is done before its starter goes on.
        with monkeypatch.context() as patched:
            patched.setattr(site.tokens._executor, "submit", lambda call: call())
            assert site.tokens.authenticate_cached(bearer(text)) is None

    play(tmp_path, act)


def test_a_token_ends_on_time_though_it_is_remembered(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, _ = site.add(expires=NOW + 5)
        assert await site.tokens.authenticate(bearer(text)) is not None
        site.clock.now = 4.9
        assert site.tokens.authenticate_cached(bearer(text)) is not None
        site.clock.now = 5
        assert site.tokens.authenticate_cached(bearer(text)) is None
        assert await site.tokens.authenticate(bearer(text)) is None

    play(tmp_path, act)


def test_without_its_store_nobody_is_let_in_for_longer_than_ten_seconds(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, _ = site.add()
        assert await site.tokens.authenticate(bearer(text)) is not None
        site.store.broken = True
        site.clock.now = 9
        assert site.tokens.authenticate_cached(bearer(text)) is not None
        await site.settle()
        site.clock.now = 10
        assert site.tokens.authenticate_cached(bearer(text)) is None
        with pytest.raises(TokenStoreError):
            await site.tokens.authenticate(bearer(text))
        site.store.broken = False
        assert await site.tokens.authenticate(bearer(text)) is not None

    play(tmp_path, act)


def test_last_use_reaches_the_store(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        text, token = site.add()
        await site.tokens.authenticate(bearer(text))
        site.clock.now = 61
        await site.tokens.authenticate(bearer(text))
        await site.settle()
        found = site.elsewhere.find(token.id)
        assert found is not None
        assert found.used == NOW + 61

    play(tmp_path, act)
    site = DatabaseTokens.at(sqlite_url(tmp_path / "state.sqlite3"))
    assert [token.used for token in site.tokens()] == [NOW + 61]
    site.close()


def test_signed_tokens_are_taken_and_those_for_once_are_not(tmp_path: Path) -> None:
    async def act(site: Site) -> None:
        def issue(**options: Any) -> bytes:
            return bearer(
                site.signed.issue(
                    "ann", ["append"], ["repository:default/ann"], lifetime=5, now=NOW, **options
                )
            )

        header = issue()
        who = await site.tokens.authenticate(header)
        assert who is not None
        assert (who.user, who.scope) == ("ann", SCOPE)
        assert site.tokens.authenticate_cached(header) == who
        site.clock.now = 5
        assert site.tokens.authenticate_cached(header) is None
        assert await site.tokens.authenticate(issue(once=True)) is None

    play(tmp_path, act)


def test_a_token_looked_up_while_its_key_is_taken_away_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(site: Site) -> None:
        key = load_key(KeySettings(id="i", algorithm="HS256", secret=Secret("t" * 40)))
        header = bearer(
            site.signed.issue("ann", ["append"], ["repository:default/ann"], lifetime=60, now=NOW)
        )
        verify = site.signed.verify

        def exchanged_behind_it(text: str, *, now: float) -> Claims:
            claims = verify(text, now=now)
            site.tokens.take_signed(SignedTokens([key], TokenSettings(), site.store))
            return claims

        monkeypatch.setattr(site.signed, "verify", exchanged_behind_it)
        await site.tokens.authenticate(header)
        assert site.tokens.authenticate_cached(header) is None
        assert await site.tokens.authenticate(header) is None

    play(tmp_path, act)


def test_one_address_that_asks_for_too_much_is_told_to_wait_and_others_are_served(
    tmp_path: Path,
) -> None:
    async def act(site: Site) -> None:
        wrong = [bearer(f"bgw_{number:012x}_{'A' * 43}") for number in range(200)]
        text, _ = site.add()
        known, _ = site.add()
        assert await site.tokens.authenticate(bearer(known), "10.6.6.6") is not None
        site.clock.now += 10  # it must be looked up again
        flood = asyncio.gather(
            *(site.tokens.authenticate(header, "10.6.6.6") for header in wrong),
            return_exceptions=True,
        )
        await asyncio.sleep(0)  # all of them stand in line
        assert await site.tokens.authenticate(bearer(known), "10.6.6.6") is not None
        assert await site.tokens.authenticate(bearer(text), "10.0.0.1") is not None
        answers = await flood
        assert any(isinstance(answer, Throttled) for answer in answers)
        assert all(answer is None or isinstance(answer, Throttled) for answer in answers)

    play(tmp_path, act)
