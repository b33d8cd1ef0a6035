"""A value on its way into a place that takes it in one request or in parts.

Bounded memory: a writer holds the part that is being filled, and those under way. It may always
hold one part; what is above that comes from the pool that all writers of the backend share, and
where the pool has none the writer waits for a part of its own to arrive. A buffer grows with what
comes, so a slow client holds little, whatever is set aside for it.

A part goes out when a byte beyond it has come. So the last part, or the whole value where it is no
larger than one, goes out in `commit`, after hash and size were found right; some places take the
beginning of a whole value before, which is nothing without its end.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from ..layers.retry_schedule import Schedule
from . import resumable_sha256
from .base import CHUNK, Writer
from .errors import BackendError, ObjectNotFound, UnsupportedOperation
from .part_checkpoints import NOTHING_KEPT, Checkpoint
from .part_memory import empty
from .part_transfers import Attempts, Part, PartPool, PartTarget, ResumableTarget, SentPart
from .plan import Plan

_log = logging.getLogger(__name__)

_FIRST_BUFFER = 64 << 10
_GROWTH = 4
"""A buffer becomes so many times larger, until it grows by steps."""
_STEPS = 5
"""Steps in which the buffer of a large part grows. With steps of less than an eighth, Python would
set room aside beyond what is asked for."""
_ZEROS = bytes(CHUNK)

_WORTH_AHEAD = 256 << 10
"""Bytes of a value from which it pays to send its beginning while the rest comes."""

_GIVING_UP = Schedule(attempts=3, deadline=5.0)
"""For requests that clear away: what is left is found by `reap`."""


class PartWriter(Writer):
    """Sends a value in parts, several at a time.

    Args:
        pool: of the backend.
        target: where this value goes.
        plan: what `open_writer` was told.
    """

    def __init__(self, pool: PartPool, target: PartTarget, plan: Plan) -> None:
        self._pool = pool
        self._target = target
        self._plan = plan
        self._attempts = Attempts(pool.schedule, plan.name)
        self._digest = resumable_sha256.new() if plan.expected_hash is not None else None
        self._state: str | None = None
        self._early: Future[str] | None = None
        """The state that the upload will have, where it was begun before its first part is full."""
        self._kept: str | None = None
        self._offset = 0
        """Where in the value the buffer begins."""
        self._buffer = bytearray()
        self._filled = 0
        self._number = 1
        """Of the part in the buffer."""
        self._part_size = target.part_size(1)
        self._ahead = False
        """Whether the target is told of each byte of a whole value as it comes."""
        self._committing = False
        self._marked = False
        self._ended = False

        self._changed = threading.Condition()
        # What follows changes under it.
        self._sent: dict[int, SentPart] = {}
        self._under_way = 0
        self._flying = 0
        """Bytes of the parts under way."""
        self._held = 0
        """Bytes of them and of the buffer."""
        self._claim = 0
        self._extra = 0
        """What the pool has lent: for one part, and for more."""
        self._error: BaseException | None = None
        self._abandoning = False

    @classmethod
    def resume(cls, pool: PartPool, target: ResumableTarget, checkpoint: Checkpoint) -> PartWriter:
        """Carry a write on.

        Raises:
            ObjectNotFound: the place has nothing of it, or not all of it any more.
            ValueError: the token was changed.
        """
        plan = checkpoint.plan
        writer = cls(pool, target, plan)
        writer._marked = True
        sent = writer._attempts.result(lambda: target.sent(checkpoint.state))
        there = {part.number: part for part in sent}
        if any(there.get(part.number) != part for part in checkpoint.parts):
            raise ObjectNotFound(f"parts of {plan.name} are gone, so it has to be sent anew")
        tail, parts = b"", [*checkpoint.parts]
        if checkpoint.kept == NOTHING_KEPT:
            # After a mark more may have arrived than it knows of.
            while (more := there.get(len(parts) + 1)) is not None:
                if more.size != target.part_size(more.number):
                    break
                parts.append(more)
        else:
            tail = writer._attempts.result(lambda: target.kept(checkpoint.kept))
        if checkpoint.digest is not None:
            writer._digest = resumable_sha256.ResumableSha256.from_state(checkpoint.digest)
        writer._state, writer._kept = checkpoint.state, checkpoint.kept or None
        writer._sent = {part.number: part for part in parts}
        writer._number = len(parts) + 1
        writer._part_size = max(target.part_size(writer._number), len(tail))
        writer._offset = sum(part.size for part in parts)
        writer._take(len(tail))
        writer._buffer, writer._filled = bytearray(tail), len(tail)
        return writer

    @property
    def offset(self) -> int:
        return self._offset + self._filled

    # -- filling

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._require_open()
        if self._committing:
            raise BackendError(f"{self._plan.name}: commit was called")
        view = memoryview(data).cast("B")
        self._plan.check_room(self.offset + len(view))
        while view:
            if self._filled == self._part_size:
                self._send_full()
            if self._filled == len(self._buffer):
                self._grow()
            start, end = self._filled, min(self._filled + len(view), len(self._buffer))
            with memoryview(self._buffer) as buffer:
                buffer[start:end] = view[: end - start]
            if self._digest is not None:
                self._digest.update(self._buffer, start, end)
            self._filled = end
            view = view[end - start :]
            if self._ahead:
                self._target.send_ahead(self._buffer, end)

    def _grow(self) -> None:
        room = len(self._buffer)
        wanted = max(room * _GROWTH, _FIRST_BUFFER) if room < CHUNK else room + self._step
        most = self._part_size
        if self._plan.size is not None:
            most = min(most, self._plan.size - self._offset)
        more = min(wanted, most) - room
        self._take(more)
        # Not `bytes(more)`: that much would be held twice.
        self._buffer += memoryview(_ZEROS)[:more] if more <= CHUNK else bytes(more)

    @property
    def _step(self) -> int:
        return max(self._part_size // _STEPS, CHUNK)

    def _take(self, size: int) -> None:
        """See that there is memory, waiting for parts of our own to arrive if need be."""
        most = self._target.parallel * self._part_size + self._step
        with self._changed:
            if not self._claim:
                self._claim_first()
            while True:
                self._raise_error()
                after = self._held + size
                more = after - self._claim - self._extra
                if more <= 0:
                    break
                if after <= most and self._pool.claim_more(more):
                    self._extra += more
                    break
                if not self._under_way:  # this part is larger than those before
                    self._pool.claim(more)
                    self._claim += more
                    break
                self._changed.wait()
            self._held += size

    def _claim_first(self) -> None:
        size = self._plan.size
        if size is not None and self._digest is not None and self._begins:
            most = self._target.whole_at_most
            if self._part_size < size <= most and self._pool.claim_more(size):
                self._part_size = self._claim = size
                self._ahead = True
                return
            self._ahead = _WORTH_AHEAD <= size <= self._part_size
        if size is not None and self._begins and self._part_size < size:
            self._begin_early()
        self._claim = self._part_size if size is None else min(size, self._part_size)
        self._pool.claim(self._claim)

    @property
    def _begins(self) -> bool:
        """Whether nothing of the value was sent or carried on."""
        return self._number == 1 and self._state is None

    def _give(self, size: int) -> None:
        """Let go of memory. Called with the condition held."""
        self._held -= size
        extra = max(self._held - self._claim, 0)
        self._pool.give(self._extra - extra)
        self._extra = extra
        if self._ended and not self._held:
            self._pool.give(self._claim)
            self._claim = 0

    # -- sending

    def _send_full(self) -> None:
        """Let the full buffer go its way, and begin an empty one."""
        self._begin()
        with self._changed:
            while self._under_way >= self._target.parallel and self._error is None:
                self._changed.wait()
            self._raise_error()
            self._under_way += 1
            self._flying += self._filled
        part = Part(self._number, self._offset, self._filled, last=False)
        work = partial(self._send_from_thread, part, self._buffer)
        try:
            self._pool.submit(work)
        except BackendError:
            with self._changed:
                self._under_way -= 1
                self._flying -= self._filled
            raise
        self._buffer, self._filled = bytearray(), 0
        self._offset += part.size
        self._number += 1
        self._part_size = self._target.part_size(self._number)

    def _begin_early(self) -> None:
        """Begin the upload while its first part comes, where the target wants that."""
        if not self._target.begins_early:
            return
        early: Future[str] = Future()

        def begin() -> None:
            if not early.set_running_or_notify_cancel():
                return
            try:
                early.set_result(self._attempts.result(self._target.begin))
            except BaseException as error:  # noqa: BLE001 - whoever needs the state raises it
                early.set_exception(error)

        self._pool.submit(begin)
        self._early = early

    def _begin(self) -> str:
        if self._state is None:
            early, self._early = self._early, None
            if early is None or early.cancel():  # no thread has come to it
                self._state = self._attempts.result(self._target.begin)
            else:
                self._state = early.result()
        return self._state

    def _send_from_thread(self, part: Part, buffer: bytearray) -> None:
        error: BaseException | None = None
        try:
            self._send(part, buffer)
        except BaseException as caught:  # noqa: BLE001 - the thread that writes raises it
            error = caught
            self._attempts.give_up()
        empty(buffer)
        with self._changed:
            self._under_way -= 1
            self._flying -= part.size
            self._give(part.size)
            if not self._ended:
                self._error = self._error or error
            error = None  # or it and this call would know each other, and what it came through stay
            self._changed.notify_all()
            abandon = self._abandoning and not self._under_way
        if abandon:
            self._abandon()

    def _send(self, part: Part, data: bytearray) -> None:
        state = self._begin()
        tag = self._attempts.result(lambda: self._target.put_part(state, part, data))
        with self._changed:
            self._sent[part.number] = SentPart(part.number, part.size, tag)

    def _arrived(self) -> None:
        """Wait for the parts under way. Raises what one of them failed for."""
        with self._changed:
            while self._under_way and self._error is None:
                self._changed.wait()
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # -- ending

    def check(self) -> None:
        self._require_open()
        self._plan.check_content(
            self.offset, None if self._digest is None else self._digest.hexdigest()
        )

    def commit(self) -> None:
        self.check()
        self._committing = True
        del self._buffer[self._filled :]
        if self._number == 1:
            self._commit_whole()
        else:
            self._commit_parts()
        self._ended = True
        self._let_go()
        self._clear(self._drop_kept)

    def _commit_whole(self) -> None:
        size = self._filled
        self._attempts.land(
            lambda: self._target.put_whole(self._buffer), lambda: self._target.landed(None, size)
        )
        self._clear(self._abandon_upload)

    def _commit_parts(self) -> None:
        state, size = self._begin(), self.offset
        if self._target.parallel == 1:
            self._arrived()
        if self._number not in self._sent:
            self._send(Part(self._number, self._offset, self._filled, last=True), self._buffer)
        self._arrived()
        parts = [self._sent[number] for number in range(1, self._number + 1)]
        try:
            self._attempts.land(
                lambda: self._target.complete(state, parts),
                lambda: self._target.landed(state, size),
            )
        except ObjectNotFound as error:
            raise BackendError(
                f"{self._plan.name}: the place has forgotten its parts", retryable=True
            ) from error

    def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._attempts.give_up()
        self._target.stop_sending()
        self._let_go()
        if self._early is not None and not self._early.cancel():
            self._early.add_done_callback(self._abandon_early)
        with self._changed:
            self._error = None  # who writes has it, and it knows the bytes that were written last
            self._abandoning = bool(self._under_way)
        if not self._abandoning:
            self._abandon()

    def _abandon(self) -> None:
        self._clear(self._abandon_upload)
        self._clear(self._drop_kept)

    def _abandon_upload(self, attempts: Attempts) -> None:
        if (state := self._state) is not None:
            attempts.result(lambda: self._target.abandon(state))

    def _abandon_early(self, early: Future[str]) -> None:
        if early.exception() is None:
            state = early.result()
            self._clear(lambda attempts: attempts.result(lambda: self._target.abandon(state)))

    def _drop_kept(self, attempts: Attempts) -> None:
        target, kept = self._target, self._kept
        if isinstance(target, ResumableTarget) and kept is not None:
            attempts.result(lambda: target.drop(kept))

    def _clear(self, step: Callable[[Attempts], None]) -> None:
        try:
            step(Attempts(_GIVING_UP, self._plan.name))
        except Exception as error:  # noqa: BLE001 - the value's fate is settled, whatever this is
            _log.warning("%s: left for reap: %s", self._plan.name, error)

    def checkpoint(self) -> str:
        self._require_open()
        target = self._target
        if not isinstance(target, ResumableTarget):
            raise UnsupportedOperation("this place keeps no checkpoints of writes")
        self._ahead = False
        target.stop_sending()
        digest = None if self._digest is None else self._digest.state()
        state = self._begin()
        self._arrived()
        del self._buffer[self._filled :]
        self._attempts.result(lambda: target.make_findable(state))
        kept = self._attempts.result(lambda: target.keep(self._buffer))
        self._clear(self._drop_kept)
        parts = [self._sent[number] for number in range(1, self._number)]
        self._ended = True
        self._let_go()
        return Checkpoint(self._plan, state, parts, kept, digest).token()

    def mark(self) -> str:
        self._require_open()
        target = self._target
        if not isinstance(target, ResumableTarget) or self._digest is not None:
            return super().mark()
        state = self._begin()
        self._attempts.result(lambda: target.make_findable(state))
        self._marked = True
        with self._changed:
            there = itertools.takewhile(self._sent.__contains__, range(1, self._number + 1))
            parts = [self._sent[number] for number in there]
        return Checkpoint(self._plan, state, parts, NOTHING_KEPT, None).token()

    def leave(self) -> None:
        if not self._marked:
            self.abort()
        if not self._ended:
            self._ended = True
            self._attempts.give_up()
            with self._changed:
                # Or one of them could arrive while somebody else sends the same again.
                while self._under_way:
                    self._changed.wait()
            self._let_go()

    def _require_open(self) -> None:
        if self._ended:
            raise BackendError(f"{self._plan.name}: the writer has ended")

    def _let_go(self) -> None:
        """Give back the memory of the buffer; that of parts under way comes back with them."""
        empty(self._buffer)
        with self._changed:
            self._give(self._held - self._flying)
