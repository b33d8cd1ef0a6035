"""The `backupgw` command: its exit status, whatever happens.

Next to nothing is imported up here, for Ctrl-C is quiet from `main` on, and not before.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended: 128 + SIGINT."""
PIPE_CLOSED = 141
"""As a shell reports a program whose reader went away: 128 + SIGPIPE."""
TERMINATED = 143
"""As a shell reports a program that SIGTERM ended, which tidies up first as after Ctrl-C."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `backupgw` and return its exit status.

    Args:
        arguments: without the program's name; default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    heard = False
    try:
        heard = _hear_sigterm()
        return _run(words)
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if heard:
            _leave_sigterm()


def _hear_sigterm() -> bool:
    """Have SIGTERM raise `Terminated`, unless it is heard already, or here is another thread."""
    import signal
    import threading

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        return False
    signal.signal(signal.SIGTERM, _terminated)
    return True


def _leave_sigterm() -> None:
    import signal

    if signal.getsignal(signal.SIGTERM) is _terminated:  # a command may have another use for it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _run(words: list[str]) -> int:
    try:
        from .command_line import run

        status = run(words)
        # Here, so that a reader that went away is noticed while it can be handled.
        sys.stdout.flush()
    except SystemExit as error:
        return _flush_after(error)
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last place where anything can be told
        if "--debug" in words:
            import traceback

            traceback.print_exc()
        return _tell(error)
    return status


def _flush_after(error: SystemExit) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    return error.code if isinstance(error.code, int) else int(bool(error.code))


def _drop_output() -> None:
    """Let the interpreter's own last flush succeed quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: Exception) -> int:
    # Imported here: nothing of the kernel is needed to print a help text.
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.names import InvalidName

    from .command import CommandError, Exit
    from .secrets import redact_url

    if isinstance(error, CommandError):
        text = str(error)
        status = error.status
    elif isinstance(error, BackendError | InvalidName):
        text = str(error) or type(error).__name__
        status = Exit.FAILED
    elif isinstance(error, EOFError):  # who was asked has ended the input, as by Ctrl-D
        text, status = "the input ended where an answer was wanted", Exit.FAILED
    elif isinstance(error, OSError):
        text = ": ".join(str(p) for p in (error.filename, error.strerror or error) if p is not None)
        status = Exit.FAILED
    else:
        text = (
            f"internal error: {type(error).__name__}: {error}\n"
            "this is a defect of backupgw; run again with --debug to see where, and report it"
        )
        status = Exit.FAILED
    prefix = "" if isinstance(error, CommandError) and error.located else "backupgw: "
    for line in redact_url(text).splitlines() or [type(error).__name__]:
        print(f"{prefix}{line}", file=sys.stderr)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
