"""The `backupgw` command: its exit status, whatever happens.

Next to nothing is imported up here, for Ctrl-C is quiet from `main` on, and not before.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended: 128 + SIGINT."""
PIPE_CLOSED = 141
"""As a shell reports a program whose reader went away: 128 + SIGPIPE."""
TERMINATED = 143
"""As a shell reports a program that SIGTERM ended, which tidies up first as after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `backupgw` and return its exit status.

    Args:
        arguments: without the program's name; default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    serves = _serves(words)
    try:
        from .signals import Heard

        with Heard(hangup=serves) as heard:
            status = _run(words)
            heard.take_effect()
            return status
    except KeyboardInterrupt as interrupt:
        if serves:
            return 0  # asked to stop, it has stopped
        return INTERRUPTED if type(interrupt) is KeyboardInterrupt else TERMINATED


def _serves(words: list[str]) -> bool:
    """Whether a command line says `serve`, or `rest serve` and the like."""
    named = []
    rest = iter(words)
    for word in rest:
        if word == "--config":
            next(rest, None)
        elif not word.startswith("-"):
            named.append(word)
    return named[:1] == ["serve"] or named[1:2] == ["serve"]


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
