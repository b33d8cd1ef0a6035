"""A corpus of hostile requests: nothing outside the root is read or written, and others go on.

`pytest tests/restserver/test_hostile.py --server rest-server` sends the same to the reference,
without the promises that are ours alone; it shows that the harness itself is sound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.restserver import hostile_corpus
from tests.restserver.hostile_attack import REFUSED, only, request
from tests.restserver.hostile_bodies import SENTINEL_PATH, STOWAWAY
from tests.restserver.hostile_corpus import GROUPS
from tests.restserver.hostile_paths import INTRUDER, INTRUDER_ID
from tests.restserver.hostile_play import Player
from tests.restserver.hostile_site import CANARY, SENTINEL, SMUGGLED, Site, WorkingClient
from tests.restserver.hostile_wire import Hangs, Malformed, Response, Wire
from tests.servers.gateway import Gateway
from tests.servers.rest_server import RestServer

TIMEOUT = 2
"""Seconds that the gateway waits for headers and for the next byte of a body in these tests."""

ENVIRONMENT = {
    "BACKUPGW_REST__HEADER_TIMEOUT": str(TIMEOUT),
    "BACKUPGW_REST__BODY_STALL_TIMEOUT": str(TIMEOUT),
}
USERS = {"user": "right"}
LOGIN = b"Authorization: Basic dXNlcjpyaWdodA=="


class Arena:
    """A site and the server on it."""

    def __init__(self, site: Site, server: RestServer) -> None:
        self.site = site
        self.server = server
        self.address = ("127.0.0.1", server.port)
        self.strict = isinstance(server, Gateway)
        login = () if server.users is None else (LOGIN,)
        self.player = Player(self.address, self.strict, login)
        self.login = b"".join(line + b"\r\n" for line in login)

    def check(self) -> None:
        """Nothing outside was touched, and the server never stopped running."""
        self.site.check_outside()
        assert self.server.process.running, self.server.process.output
        assert CANARY.decode() not in self.server.process.output


def run(
    folder: Path, server_class: type[RestServer], users: dict[str, str] | None
) -> Iterator[Arena]:
    site = Site(folder)
    with server_class(site.root, users=users, environment=ENVIRONMENT) as server:
        yield Arena(site, server)
    site.check_outside()


@pytest.fixture(scope="module")
def arena(
    tmp_path_factory: pytest.TempPathFactory, server_class: type[RestServer]
) -> Iterator[Arena]:
    yield from run(tmp_path_factory.mktemp("open"), server_class, None)


@pytest.fixture(scope="module")
def locked(
    tmp_path_factory: pytest.TempPathFactory, server_class: type[RestServer]
) -> Iterator[Arena]:
    yield from run(tmp_path_factory.mktemp("locked"), server_class, USERS)


def report(problems: list[str]) -> str:
    return f"{len(problems)} problems, of them:\n" + "\n".join(problems[:40])


def test_the_corpus_is_large_and_distinct() -> None:
    attacks = [attack for group in GROUPS.values() for attack in group()]
    assert len({attack.payload for attack in attacks}) >= 500
    assert len({attack.name for attack in attacks}) == len(attacks)


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_requests_do_no_harm(arena: Arena, group: str) -> None:
    attacks = list(GROUPS[group]())
    with WorkingClient(arena.address) as client:
        before = arena.site.inside()
        harmless = [attack for attack in attacks if attack.stores_nothing]
        problems = arena.player.play_all(harmless)
        after = arena.site.inside()
        problems += arena.player.play_all(a for a in attacks if not a.stores_nothing)
    assert not problems, report(problems)
    if arena.strict:
        assert after == before, f"refused requests changed the store: {after ^ before}"
    arena.check()
    client.check()


def test_without_a_password_the_whole_corpus_gets_nothing(locked: Arena) -> None:
    refused = REFUSED | only(401, 408, 411, 413, 417, 426, 501, 505)
    before = locked.site.inside()
    with WorkingClient(locked.address, locked.login) as client:
        problems = [
            problem
            for group in GROUPS.values()
            for problem in locked.player.play_all(group(), instead=refused)
        ]
    assert not problems, report(problems)
    assert locked.site.inside() == before
    locked.check()
    client.check()


def test_wrong_logins_get_nothing_and_the_right_one_goes_on(locked: Arena) -> None:
    before = locked.site.inside()
    with WorkingClient(locked.address, locked.login) as client:
        problems = locked.player.play_all(hostile_corpus.logins())
    assert not problems, report(problems)
    assert locked.site.inside() == before
    locked.check()
    client.check()


def refused_between_good(number: int) -> tuple[bytes, list[int]]:
    """Four requests in one piece, three of them refused, and the answers that they get."""
    payload = request(b"GET", SENTINEL_PATH)
    payload += request(b"POST", b"/good/config", body=INTRUDER * (1 + number * 100))
    payload += request(b"GET", b"/good/data/nothing")
    payload += request(b"POST", b"/lies/keys/" + INTRUDER_ID, body=b"wrong contents")
    return payload, [200, 403, 404, 400]


def test_pipelined_requests_are_answered_in_order_past_early_errors(arena: Arena) -> None:
    """Refused uploads between good requests: each request gets its own answer, none is lost."""
    with Wire(arena.address) as wire:
        for batch in range(20):
            pieces = [refused_between_good(number) for number in range(batch, batch + 3)]
            wire.send(b"".join(payload for payload, _ in pieces))
            for status in (status for _, statuses in pieces for status in statuses):
                answer = wire.response()
                assert answer is not None, f"closed in batch {batch}"
                assert answer.status == status, f"batch {batch}: {answer}"
                assert (answer.body == SENTINEL) == (status == 200)
        assert wire.quiet_for(0.2)
    arena.check()


def test_a_pipelined_flood_is_answered_in_order_until_an_announced_end(arena: Arena) -> None:
    """A server may stop after some of them, but it must say so and never mix answers up."""
    payload, statuses = refused_between_good(1)
    with WorkingClient(arena.address) as client, Wire(arena.address) as wire:
        wire.send(payload * 500)
        answers: list[Response] = []
        while len(answers) < 4 * 500 and (answer := wire.response()) is not None:
            answers.append(answer)
            if answer.closes:
                assert wire.drain() == b""
                break
        expected = (statuses * 500)[: len(answers)]
        got = [answer.status for answer in answers]
        if answers[-1].closes:
            # The last one may be the refusal of what came behind it.
            assert got[:-1] == expected[:-1]
        else:
            assert got == statuses * 500
    arena.check()
    client.check()


def test_200_slow_clients_beside_a_working_one(arena: Arena) -> None:
    """Headers and bodies at one byte a second: the first are cut off, the others are let be."""
    head = request(b"GET", SENTINEL_PATH, [b"X-Slow: " + b"y" * 100])
    upload = request(b"POST", b"/slow/data/" + INTRUDER_ID, body=INTRUDER * 100)
    body_starts = upload.index(b"\r\n\r\n") + 4
    before = arena.site.inside()
    headers = [Wire(arena.address) for _ in range(100)]
    bodies = [Wire(arena.address) for _ in range(100)]
    try:
        for wire in bodies:
            wire.send(upload[:body_starts])
        with WorkingClient(arena.address) as client:
            for second in range(2 * TIMEOUT + 1):
                for wire in headers:
                    if not wire.closed:
                        wire.send(head[second : second + 1])
                for wire in bodies:
                    wire.send(upload[body_starts + second :][:1])
                time.sleep(1)
            turns_beside_them = client.turns
            if arena.strict:
                for wire in headers:
                    wire.drain()  # raises Hangs where slow headers are waited for
                    assert b" 200 " not in wire.received
                assert all(wire.quiet_for(0) for wire in bodies), "a slow upload was cut off"
                for wire in bodies:  # they stop sending now
                    wire.drain()
                    assert b" 200 " not in wire.received
        assert turns_beside_them > 5, "the working client starved beside slow ones"
    finally:
        for wire in headers + bodies:
            wire.__exit__()
    client.check()
    arena.check()
    if arena.strict:
        left = {name for name in arena.site.inside() - before if INTRUDER_ID.decode() in name}
        assert not left, f"a broken upload left {left}"


BASES = (
    request(b"GET", SENTINEL_PATH, [b"Range: bytes=1-5", b"Accept: */*"]),
    request(b"POST", b"/fuzz/data/" + INTRUDER_ID, [b"Expect: 100-continue"], INTRUDER),
    request(b"POST", b"/fuzz/keys/" + INTRUDER_ID, [b"Transfer-Encoding: chunked"])
    + b"%x\r\n%s\r\n0\r\n\r\n" % (len(INTRUDER), INTRUDER),
    request(b"POST", b"/fuzz/%2e%2e/?create=true", body=b""),
    request(b"GET", b"/fuzz/data/", [b"Accept: application/vnd.x.restic.rest.v2"]),
    request(b"HEAD", b"/../outside/config", [b"Connection: keep-alive"]),
)
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"/", b"..", b"%", b"%00", b"%2f", b"?", b"#",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"-1", b"../",
    b"9" * 30, b"\xff",
    b"HTTP/1.0", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"Host: b\r\n",
)  # fmt: skip


@st.composite
def mutated(draw: Callable[[st.SearchStrategy[int]], int]) -> bytes:
    """A valid request in which up to six places were cut, doubled, replaced or added to."""
    data = bytearray(BASES[draw(st.integers(0, len(BASES) - 1))])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        match draw(st.integers(0, 4)):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = data[at : at + length] * 3
            case 2:
                data[at:at] = TOKENS[draw(st.integers(0, len(TOKENS) - 1))]
            case 3:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case _:
                data[at : at + length] = TOKENS[draw(st.integers(0, len(TOKENS) - 1))]
    return bytes(data)


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # the payloads are short: shrinking them would only take time
    suppress_health_check=list(HealthCheck),
)
@given(payload=mutated())
def test_mutated_requests_get_well_formed_answers(arena: Arena, payload: bytes) -> None:
    with Wire(arena.address) as wire:
        wire.send(payload)
        # Most are whole requests, others never will be: after a moment the sending half is closed.
        if wire.quiet_for(0.03):
            wire.finish_sending()
        try:
            while (
                answer := wire.response(to_head=payload.startswith(b"HEAD"), wait=5)
            ) is not None:
                unfit = arena.strict and answer.status >= 500 and answer.status not in (501, 505)
                assert not unfit, answer
                wire.finish_sending()
        except (Malformed, Hangs) as error:
            raise AssertionError(
                f"{error!r} after {payload!r}: {bytes(wire.received)!r}"
            ) from error
        assert CANARY not in wire.received
        assert SMUGGLED not in wire.received


def test_after_all_of_it_the_store_is_whole(arena: Arena) -> None:
    """The repository that nobody was allowed to change still holds what it held."""
    with Wire(arena.address) as wire:
        for payload, body in ((request(b"GET", SENTINEL_PATH), SENTINEL), (STOWAWAY, SMUGGLED)):
            wire.send(payload)
            answer = wire.response()
            assert answer is not None
            assert answer.body == body
    arena.check()
    status = arena.server.process.stop()
    assert status in (0, -15, 143), arena.server.process.output
