"""How a check says that a promise is broken."""

from __future__ import annotations

from collections.abc import Callable


class Violation(AssertionError):
    """A backend broke a promise; the message says which and how."""


class NotOffered(Exception):
    """The place does not claim to do this, so there is nothing to check; the message says why."""


def require(condition: object, message: str) -> None:
    """Raise Violation with `message` unless `condition` holds."""
    if not condition:
        raise Violation(message)


def expect(
    errors: type[BaseException] | tuple[type[BaseException], ...],
    call: Callable[[], object],
    what: str,
) -> None:
    """Raise Violation unless `call` raises one of `errors`."""
    wanted = errors if isinstance(errors, tuple) else (errors,)
    names = " or ".join(error.__name__ for error in wanted)
    try:
        call()
    except wanted:
        return
    except Exception as error:
        raise Violation(f"{what}: {type(error).__name__} ({error}) instead of {names}") from error
    raise Violation(f"{what}: went through instead of raising {names}")
