"""One restic, run to its end: its words as messages, its end as an exception, stale locks removed.

Which commands there are is the affair of `commands.py`. All of this blocks; a `StopSignal` ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import confinement, messages
from .arguments import NO_LIMITS, Limits, Option
from .bridge import Bridge, bridge
from .child import GRACE, Ended, run_child
from .errors import RepositoryLocked, ResticFailed, ResticStopped, ResticUnusable, from_exit
from .messages import ItemError, Message
from .program import ResticProgram
from .repository import Repository
from .stopping import StopSignal

log = logging.getLogger(__name__)

_MOST_OUTPUT = 1 << 30
"""Bytes of an answer that is kept whole."""


@dataclass(frozen=True)
class Ran:
    """What a command that did not fail left behind.

    Attributes:
        status: restic's exit status: 0, or 3 where a backup is incomplete.
        output: what it answered where that was to be kept.
    """

    status: int
    output: bytes = b""
    errors: tuple[ItemError, ...] = ()
    error_count: int = 0
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Call:
    """A command with what it gets; see `Runner.run`."""

    command: str
    flags: Sequence[Option]
    operands: Sequence[str]
    on_message: Callable[[Message], None] | None
    keep: bool
    tolerated: Sequence[int]
    descriptors: Sequence[int]
    stop: StopSignal | None
    time_limit: float | None
    on_piece: Callable[[bytes], None] | None
    confined_to: Sequence[int] | None

    @property
    def what(self) -> str:
        return f"restic {self.command}"


@dataclass(frozen=True)
class Runner:
    """A restic program that works on a repository. For any thread.

    Attributes:
        cache: folder of restic's cache; None: it keeps none.
        environ: ours, of which a few harmless variables are handed on.
        lock_wait: seconds that a command waits for a repository that another has locked (0.16 and
            newer; an older restic fails at once).
        grace: seconds between the word to stop and SIGKILL.
    """

    program: ResticProgram
    repository: Repository
    cache: Path | None = None
    limits: Limits = NO_LIMITS
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    lock_wait: float = 0.0
    grace: float = GRACE

    def run(
        self,
        command: str,
        flags: Sequence[Option] = (),
        operands: Sequence[str] = (),
        *,
        on_message: Callable[[Message], None] | None = None,
        keep: bool = False,
        tolerated: Sequence[int] = (),
        descriptors: Sequence[int] = (),
        stop: StopSignal | None = None,
        time_limit: float | None = None,
        waiting: bool = True,
        on_piece: Callable[[bytes], None] | None = None,
        confined_to: Sequence[int] | None = None,
    ) -> Ran:
        """Run a command with --json.

        A repository that is locked by a restic that is no more is unlocked, once.

        Args:
            flags: options; operands are behind a `--` and may look like anything.
            on_message: given each message. What it raises ends restic.
            keep: the answer as it is.
            tolerated: exit statuses that are no failure, besides 0.
            descriptors: further ones that restic inherits.
            time_limit: seconds after which it is stopped.
            waiting: for a lock, as `lock_wait` says.
            on_piece: given the answer as it comes; it is neither messages nor kept then.
            confined_to: descriptors of the only folders that it may read from, beside what it needs
                for itself (`confinement.py`); None: it may read whatever we may.

        Raises:
            ResticError: of the kind that its exit status and words stand for.
        """
        call = _Call(
            command, flags, operands, on_message, keep, tolerated, descriptors, stop, time_limit,
            on_piece, confined_to,
        )  # fmt: skip
        try:
            return self._run(call, 0.0)
        except RepositoryLocked as locked:
            if not waiting or (stop is not None and stop.is_set):
                raise
            log.info("%s; stale locks are removed, then it is tried again", locked)
        self.unlock(stop=stop)
        return self._run(call, self.lock_wait)

    def _run(self, call: _Call, lock_wait: float) -> Ran:
        transcript = messages.Transcript()
        output = bytearray()

        def take_output(line: bytes) -> None:
            message = messages.message(line)
            if message is not None:
                self._note(message, transcript, call.on_message)
            if call.keep:
                output.extend(line + b"\n")
                if len(output) > _MOST_OUTPUT:
                    raise ResticFailed(f"{call.what} answers more than {_MOST_OUTPUT} bytes")
            elif message is None:
                transcript.say(self._text(line))

        def take_error(line: bytes) -> None:
            message = messages.message(line)
            if message is None:
                transcript.say(self._text(line))
            else:
                self._note(message, transcript, call.on_message)

        ending = signal.SIGTERM if self.program.ends_on_sigterm else signal.SIGINT
        outside = Bridge()
        try:
            with contextlib.ExitStack() as stack:
                variables, inherited = stack.enter_context(
                    self.repository.handed_over(self.environ)
                )
                if self.cache is not None:
                    variables["RESTIC_CACHE_DIR"] = str(self.cache)
                confined = ""
                inherited += call.descriptors
                if call.confined_to is not None:
                    inherited += call.confined_to
                    outside = stack.enter_context(bridge(self.repository, variables, inherited))
                    inherited += outside.descriptors
                    confined = self._confined(call.confined_to, outside, variables, stack)
                arguments = self._arguments(call, outside.options, lock_wait)
                log.debug("restic %s on %s", " ".join(arguments), self.repository.shown)
                ended = run_child(
                    [self.program.path, *arguments],
                    environment=variables,
                    descriptors=inherited,
                    on_output=take_output,
                    on_error=take_error,
                    stop=call.stop,
                    ending=ending,
                    grace=self.grace,
                    time_limit=call.time_limit,
                    on_piece=call.on_piece,
                    confined=confined,
                )
        except OSError as error:
            raise ResticUnusable(f"{self.program.path} cannot be run: {error.strerror}") from error
        for line in outside.said.splitlines():
            transcript.say(self._text(line.encode()))
        self._judge(ended, transcript, call.what, call.tolerated)
        return Ran(
            ended.status,
            bytes(output),
            tuple(transcript.errors),
            transcript.error_count,
            tuple(transcript.said),
        )

    def _confined(
        self,
        folders: Sequence[int],
        outside: Bridge,
        variables: dict[str, str],
        stack: contextlib.ExitStack,
    ) -> str:
        """Return the rules for a restic that reads `folders`; its temporary files get a place."""
        if self.cache is None:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="backupgw-restic-"))
        else:
            temporary = str(self.cache / "temporary")
            os.makedirs(temporary, mode=0o700, exist_ok=True)
        variables["TMPDIR"] = temporary
        writable = [temporary]
        if self.cache is not None:
            writable.append(str(self.cache))
        if self.repository.folder is not None:
            writable.append(self.repository.folder)
        return confinement.as_text(
            confinement.rules(
                [self.program.path, *outside.programs],
                folders,
                writable=writable,
                environment=variables,
                readable=[] if self.repository.ca_file is None else [self.repository.ca_file],
            ),
            outside.moved,
        )

    def _arguments(self, call: _Call, options: Sequence[str], lock_wait: float) -> list[str]:
        arguments = [
            call.command,
            "--json",
            *options,
            *self.repository.options(),
            *self.limits.options(),
        ]
        if self.cache is None:
            arguments.append("--no-cache")
        if lock_wait > 0 and self.program.waits_for_locks:
            arguments.append(f"--retry-lock={lock_wait:.0f}s")
        arguments += [
            each if isinstance(each, str) else f"{each[0]}={each[1]}" for each in call.flags
        ]
        if call.operands:
            arguments += ["--", *call.operands]
        for argument in arguments:
            if "\0" in argument:
                raise ValueError("an argument for restic holds a NUL")
        return arguments

    def _note(
        self,
        message: Message,
        transcript: messages.Transcript,
        on_message: Callable[[Message], None] | None,
    ) -> None:
        if isinstance(message, ItemError):
            message = ItemError(
                message.item, self.repository.scrub(message.message), message.during
            )
            transcript.add_error(message)
        elif isinstance(message, messages.ExitError):
            transcript.say(self.repository.scrub(message.message))
        if on_message is not None:
            on_message(message)

    def _text(self, line: bytes) -> str:
        # restic begins lines anew by control sequences of terminals.
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", line.decode(errors="replace"))
        return self.repository.scrub(text)

    def _judge(
        self,
        ended: Ended,
        transcript: messages.Transcript,
        what: str,
        tolerated: Sequence[int],
    ) -> None:
        if ended.timed_out:
            raise ResticFailed(f"{what} took too long, and was stopped", exit_status=ended.status)
        if ended.status == 0 or ended.status in tolerated:
            return
        if ended.stopped:
            how = "and had to be killed" if ended.killed else "as asked"
            raise ResticStopped(f"{what} was stopped, {how}", exit_status=ended.status)
        said = list(transcript.said)
        if transcript.errors:
            first = transcript.errors[0]
            said.insert(0, f"{first.item}: {first.message}")
        raise from_exit(ended.status, said, what=what)

    def unlock(self, *, stop: StopSignal | None = None) -> None:
        """Remove the locks that restic itself finds stale: of a process of this machine that has
        ended, or not renewed for 30 minutes. Never those of others that live."""
        self.run("unlock", stop=stop, waiting=False)
