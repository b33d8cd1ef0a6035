"""Plays an attack against a server and says what was wrong with what came back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.restserver.hostile_attack import Attack, Ending, request
from tests.restserver.hostile_paths import INTRUDER
from tests.restserver.hostile_site import CANARY, SENTINEL, SENTINEL_ID, SMUGGLED
from tests.restserver.hostile_wire import CutOff, Hangs, Malformed, Response, Wire

_CONTENT_RANGE = re.compile(rb"bytes (\d+)-(\d+)/(\d+)\Z")


@dataclass(frozen=True)
class Player:
    """Where the attacks go. `login` is a header line that the valid requests carry.

    A lenient player leaves out what is ours to promise and not rest-server's: which statuses are
    right (it says 500 to a name of 256 bytes), and that nothing of doubtful length is ever taken.
    """

    address: tuple[str, int]
    strict: bool = True
    login: tuple[bytes, ...] = ()

    def play_all(
        self, attacks: Iterable[Attack], instead: frozenset[int] | None = None
    ) -> list[str]:
        """Play them one after the other; the problems, each with its attack's name.

        `instead` replaces the statuses that each attack allows.
        """
        problems = []
        for attack in attacks:
            try:
                problem = self._play(attack, instead or attack.allowed)
            except (Malformed, Hangs) as error:
                problem = repr(error)
            if problem:
                problems.append(f"{attack.name}: {problem}")
        return problems

    def _play(self, attack: Attack, allowed: frozenset[int]) -> str | None:
        with Wire(self.address) as wire:
            wire.send(attack.payload)
            if attack.ending is Ending.RESET:
                wire.reset()
                return None
            if attack.ending is Ending.HALF_CLOSE:
                wire.finish_sending()
            problem = self._judge(wire, attack, allowed)
            if CANARY in wire.received:
                return "the canary's contents came back"
            if self.strict and SMUGGLED in wire.received:
                return "the stowaway was answered"
            return problem

    def _judge(self, wire: Wire, attack: Attack, allowed: frozenset[int]) -> str | None:
        try:
            answer = wire.response(to_head=attack.to_head)
        except CutOff:
            if attack.may_be_cut:
                return None
            raise
        if answer is None:
            # Who closes its half first may find that the server closes the other one at once.
            answerless = attack.may_be_cut or attack.ending is Ending.HALF_CLOSE
            return None if answerless else "closed without an answer"
        if self.strict and answer.status not in allowed:
            return f"{answer.status} {answer.body[:80]!r} is none of {sorted(allowed)}"
        if self.strict and answer.status >= 500 and answer.status not in (501, 505, 507):
            return f"{answer.status} {answer.body[:80]!r}"
        if answer.status == 206 and (problem := wrong_part(answer)):
            return problem
        if answer.closes or attack.ending is Ending.HALF_CLOSE:
            rest = wire.drain()
            return f"more than one answer: {rest[:100]!r}" if rest and self.strict else None
        return self._still_usable(wire)

    def _still_usable(self, wire: Wire) -> str | None:
        """A valid request gets its own answer, or the connection is closed."""
        wire.send(request(b"GET", b"/good/data/" + SENTINEL_ID.encode(), self.login))
        try:
            answer = wire.response()
        except CutOff:
            return "closed inside the answer to a valid request"
        if answer is None or not self.strict:
            return None
        if answer.status != 200 or answer.body != SENTINEL:
            return f"the next request got another's answer: {answer.status} {answer.body[:80]!r}"
        return None


def wrong_part(answer: Response) -> str | None:
    """What is wrong with a 206 over one of the two known contents, by its own Content-Range."""
    header = answer.headers.get(b"content-range", b"")
    matched = _CONTENT_RANGE.match(header)
    if not matched:
        kind = answer.headers.get(b"content-type", b"")
        return None if kind.startswith(b"multipart/byteranges") else f"Content-Range {header!r}"
    start, end, size = map(int, matched.groups())
    known = (SENTINEL, INTRUDER)
    if not any(size == len(c) and answer.body == c[start : end + 1] for c in known):
        return f"Content-Range {header!r} does not fit the {len(answer.body)} bytes"
    return None
