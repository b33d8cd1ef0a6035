"""What a borgstore server's answers say: yes, or which of the kernel's errors."""

from __future__ import annotations

import html
import json
import re
from http import HTTPStatus as Http

from ..names import InvalidName
from ..registry import redact_url
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    NameTooLong,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
    ReadRangeError,
)
from .rest_incoming import DRAIN, Answer
from .unreached import in_a_line

YES = frozenset({int(Http.OK), int(Http.PARTIAL_CONTENT)})

_RETRYABLE = frozenset({408, 425, 429, 502, 503, 504})

_PAGE = re.compile(r"<p>Message: (.*?)\.?</p>", re.DOTALL)
"""What borgstore's server says, in the page that http.server makes of an error."""

_NAME = "name "
"""How borgstore's server begins when it refuses a name (`validate_name` of 0.7)."""


class ServerFailed(BackendError):
    """The server answered 500: something went wrong in it that it has no other answer for."""


def expect_ok(
    server: str, answer: Answer, what: str, *, gone_is_done: bool = False, keep: bool = False
) -> None:
    """Let an answer pass that says yes; else raise what it means.

    Args:
        server: its name in messages.
        what: was asked about.
        gone_is_done: an answer to a repeated request may say that there is nothing (left) to do.
        keep: leave the answer's body to be read.
    """
    if not (gone_is_done and answer.repeated and answer.status == Http.NOT_FOUND):
        refuse(server, answer, what)
    if not keep:
        answer.release()


def refuse(server: str, answer: Answer, what: str) -> None:
    """Raise what an answer other than yes means: InvalidName where it blames the name, ValueError
    where it blames anything else of the request."""
    status = answer.status
    if status in YES:
        return
    said = _words(answer)
    match status:
        case Http.NOT_FOUND:
            raise ObjectNotFound(what)
        case Http.GONE:
            raise BackendDoesNotExist(f"{server} has no store")
        case Http.CONFLICT:
            raise BackendAlreadyExists(f"{server} has a store already")
        case Http.PRECONDITION_FAILED:
            raise BackendError(f"{server}: {said}")
        case Http.UNAUTHORIZED:
            raise PermissionDenied(f"{server}: unknown user or wrong password")
        case Http.FORBIDDEN:
            raise PermissionDenied(f"{what or server}: {said or 'the server does not permit it'}")
        case Http.INSUFFICIENT_STORAGE:
            raise QuotaExceeded(f"{what}: {said}")
        case Http.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise ReadRangeError(f"{what}: {said}")
        case Http.BAD_REQUEST if said.startswith(f"{_NAME}is too long"):
            raise NameTooLong(f"{server}: {said}")
        case Http.BAD_REQUEST if said.startswith(_NAME):
            raise InvalidName(f"{server}: {said}")
        case Http.BAD_REQUEST:
            raise ValueError(f"{what}: {said}")
        case Http.INTERNAL_SERVER_ERROR:
            raise ServerFailed(f"{server}: {what}: {status} {said}")
        case Http.NOT_ACCEPTABLE:
            raise BackendError(f"{server} is no borgstore server: {said}")
    wait = answer.header("Retry-After")
    raise BackendError(
        f"{server}: {what}: {status} {said}",
        retryable=status in _RETRYABLE,
        retry_after=float(wait) if wait is not None and wait.isdigit() else None,
    )


def refuse_stranger(server: str, answer: Answer, mark: str) -> None:
    """Raise BackendError where whatever else listens there has answered HEAD for the store itself:
    the login to a network, a web server, a TLS port that is asked without TLS.

    Args:
        server: its name in messages.
        mark: the header that a borgstore server's good answers have.
    """
    status = answer.status
    if answer.header(mark) is not None or (
        status not in YES and status != Http.BAD_REQUEST and not 300 <= status < 400
    ):
        return
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    came = "a web page" if kind == "text/html" else kind or "an answer of no type"
    hint = ""
    if 300 <= status < 400 and (there := answer.header("Location")):
        came = f"a redirection to {redact_url(there)}"
    elif status == Http.BAD_REQUEST and server.startswith("http://"):
        hint = "; is it an address with https://?"
    answer.release()
    raise BackendError(
        f"{server} is no borgstore server: it answers with {came} (status {status}){hint}"
    )


def _words(answer: Answer) -> str:
    said = answer.text()
    page = _PAGE.search(said)
    return html.unescape(page[1]) if page else in_a_line(said)


def content_range(header: str | None) -> tuple[int, int] | None:
    """Return (first byte, size of the item) of a Content-Range, None where it says neither."""
    match = re.match(r"bytes (\d+)-\d+/(\d+)\Z", header or "")
    return (int(match[1]), int(match[2])) if match else None


def json_of(answer: Answer, what: str) -> object:
    """Return the JSON that an answer holds. Raises BackendError."""
    try:
        return json.loads(answer.read_all(DRAIN))
    except ValueError as error:
        raise BackendError(f"{what}: the server's answer is no JSON") from error


def number(header: str | None) -> int:
    """Return a header's number, 0 where it is none."""
    return int(header) if header is not None and header.isdigit() else 0


def seconds(header: str | None) -> float:
    """Return a header's seconds, 0 where they are none."""
    try:
        return float(header or 0)
    except ValueError:
        return 0
