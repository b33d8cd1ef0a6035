"""What a checkpoint of a write in parts holds, and its token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..names import InvalidName, check_path
from .part_transfers import Attempts, PartPool, ResumableTarget, SentPart
from .plan import Plan

_VERSION = 1

NOTHING_KEPT = ""
"""Instead of what `ResumableTarget.keep` returns, where there was nothing to keep."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a write stands.

    Attributes:
        plan: its terms.
        state: what `PartTarget.begin` returned.
        parts: those that the place has, in order.
        kept: what `ResumableTarget.keep` returned for the bytes after them.
        digest: the state of the SHA-256 up to here, None where no hash is expected.
    """

    plan: Plan
    state: str
    parts: Sequence[SentPart]
    kept: str
    digest: str | None

    def token(self) -> str:
        """Return it as text, which holds no secret."""
        plan = self.plan
        return json.dumps(
            [
                _VERSION,
                [plan.name, plan.size, plan.if_absent, plan.expected_hash],
                self.state,
                [[part.number, part.size, part.tag] for part in self.parts],
                self.kept,
                self.digest,
            ]
        )


def read_token(token: str) -> Checkpoint:
    """Return the checkpoint of a token.

    Raises:
        ValueError: it is not one that `Checkpoint.token` returned.
    """
    try:
        match json.loads(token):
            case [
                1,
                [str(name), int() | None as size, bool(if_absent), str() | None as expected],
                str(state),
                [*sent],
                str(kept),
                str() | None as digest,
            ] if (expected is None) == (digest is None):
                plan = Plan(check_path(name), size, if_absent, expected)
                parts = [_sent_part(number, each) for number, each in enumerate(sent, 1)]
                return Checkpoint(plan, state, parts, kept, digest)
    except (ValueError, TypeError, InvalidName, RecursionError) as error:
        raise ValueError("not a token of a checkpoint") from error
    raise ValueError("not a token of a checkpoint")


def _sent_part(due: int, value: object) -> SentPart:
    match value:
        case [int(number), int(size), str(tag)] if number == due and size > 0:
            return SentPart(number, size, tag)
    raise ValueError("not a part")


def abandon(pool: PartPool, target: ResumableTarget, checkpoint: Checkpoint) -> None:
    """Give a checkpointed write up, with all that the place has of it; gone is fine."""
    attempts = Attempts(pool.schedule, checkpoint.plan.name)
    attempts.result(lambda: target.abandon(checkpoint.state))
    if checkpoint.kept != NOTHING_KEPT:
        attempts.result(lambda: target.drop(checkpoint.kept))
