"""What the API consists of: operations, each with its route, its models and what does it.

    Operation("GET", "/v1/folders/{folder}", folders.inspect, "Tell about a folder",
              parameters=FolderParameters, answer=FolderDocument)

The models validate, and they are what the OpenAPI document is made of: what is documented is what
is checked. `{name}` stands for one segment of the path, `{name*}` for all that follow; the fields
of `parameters` that the path does not name come from the query.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from ..identity import Identity
from .exchange import Exchange, Headers

P = TypeVar("P", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)


class NoModel(BaseModel):
    """No parameters, or no body: anything is too much."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Call(Generic[P, B]):
    """A request on its way to what answers it.

    Attributes:
        who: asks; for operations that are open to all, nobody.
        parameters: from path and query, checked.
        body: checked; None for an operation that reads the body itself.
        exchange: the request, for headers and for those that read or answer by themselves.
    """

    who: Identity
    parameters: P
    body: B
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler returns that has more to say than its model.

    Attributes:
        status: None for the operation's usual one.
    """

    model: BaseModel | None = None
    status: int | None = None
    headers: Headers = field(default_factory=list)


Result = BaseModel | Answer | None
Handler = Callable[[Call[Any, Any]], Result] | Callable[[Call[Any, Any]], Awaitable[Result]]
"""A plain function is called on a thread; a coroutine function runs on the event loop and must not
block. One that has answered by itself returns None."""


class Auth(enum.Enum):
    """Who may call an operation at all."""

    KNOWN = "known"
    """Whoever has a good token, or is the manager."""
    OPEN = "open"
    """Anybody; a token in the query may say what is allowed."""


@dataclass(frozen=True)
class Media:
    """A body that is not JSON, for the OpenAPI document.

    Attributes:
        types: media types.
        description: what it is.
    """

    types: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        method: in capitals.
        path: the template; see the top of this module.
        handler: what does it.
        summary: one line for the document.
        parameters: model of path and query.
        body: model of the JSON body; None where there is none, or where the handler reads it.
        answer: model of the JSON answer; None where there is none.
        status: of success.
        also: statuses of other successes, with what they mean.
        problems: statuses of refusals besides those that every operation has.
        takes, gives: bodies that are not JSON.
        request_headers: names of headers that mean something, with a description each.
        response_headers: those of the answer.
        auth: who may call it.
        tag: groups operations in the document.
        raw: the handler reads the body and sends the answer itself.
        hidden: left out of the document: another spelling of what is in it.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    parameters: type[BaseModel] = NoModel
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    also: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[int, ...] = ()
    takes: Media | None = None
    gives: Media | None = None
    request_headers: Mapping[str, str] = field(default_factory=dict)
    response_headers: Mapping[str, str] = field(default_factory=dict)
    auth: Auth = Auth.KNOWN
    tag: str = "folders"
    raw: bool = False
    hidden: bool = False

    @cached_property
    def name(self) -> str:
        """Unique in the document, and the operation's name in metrics: `folders.inspect`."""
        function = getattr(self.handler, "__name__", "call")
        return f"{self.tag}.{function}"
