"""One request and its answer, as the operations see them."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from backupgw.runtime.http.exchange import ANSWER_AT_ONCE
from backupgw.runtime.http.incoming import Incoming

from ..problems import MEDIA_TYPE, Problem

Headers = list[tuple[bytes, bytes]]

LARGEST_JSON = 1 << 20
"""Bytes of a request's JSON."""
JSON = (b"content-type", b"application/json")
_JSON_TYPE = re.compile(rb"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE)


class Exchange(Incoming):
    """One request and its answer.

    Args:
        common: headers of every answer, refusals included.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, common: Headers) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.common = common
        self.status = 0
        """Of the answer, once it has begun."""
        self.folder: str | None = None
        """The id of the folder that it is about, for the log."""

    @property
    def method(self) -> str:
        """The request's, in capitals."""
        method: str = self.scope["method"]
        return method

    @property
    def started(self) -> bool:
        """Whether the answer has begun."""
        return self.status != 0

    # -- the request's body

    def too_large(self, text: str) -> Problem:
        """Return the refusal of a body that is too large."""
        return Problem(413, "too-large", text)

    async def json(self) -> Any:
        """Return the request's JSON, an empty object where the body is empty.

        Raises:
            Problem: it is too large, is none, or is announced as something else.
        """
        body = await self.whole_body(LARGEST_JSON)
        if not body:
            return {}
        kind = self.header(b"content-type")
        if kind is not None and not _JSON_TYPE.match(kind):
            raise Problem(
                415,
                "media-type",
                "the body must be JSON, and say so: send Content-Type: application/json",
            )
        try:
            return json.loads(body, parse_constant=_no_constant, parse_float=_number)
        except (ValueError, RecursionError):
            raise Problem(400, "malformed", "the body is not valid JSON") from None

    # -- the answer

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self.status = status
        headers = [*headers, *self.common]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def send_body(self, body: bytes | bytearray | memoryview, *, more: bool) -> None:
        """Send a piece of its body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole answer, with its length unless the status has no body."""
        if status >= 200 and status not in (204, 304):
            headers = [(b"content-length", b"%d" % len(body)), *headers]
        if self.method == "HEAD":
            body = b""
        at_once = self.scope.get(ANSWER_AT_ONCE)
        if at_once is None or self.method == "HEAD":
            await self.start(status, headers)
            await self.send_body(body, more=False)
            return
        self.status = status
        at_once(status, [*headers, *self.common], body)

    async def answer_model(
        self, status: int, model: BaseModel | None, headers: Headers | None = None
    ) -> None:
        """Send a model as JSON, or nothing."""
        if model is None:
            await self.answer(status, headers or [])
        else:
            body = model.model_dump_json(by_alias=True).encode()
            await self.answer(status, [JSON, *(headers or [])], body)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem; an answer under way can only be broken off.

        Raises:
            Problem: the answer had begun.
        """
        if self.started:
            raise problem
        body = problem.document().model_dump_json().encode()
        await self.answer(problem.status, [(b"content-type", MEDIA_TYPE), *problem.headers], body)


def _number(text: str) -> float | int:
    """JSON does not tell 5 from 5.0 (JSON Schema 2020-12, core, 4.2.3)."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
