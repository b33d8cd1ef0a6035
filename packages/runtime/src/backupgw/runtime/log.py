"""One pipeline for every log record: structlog's, the standard library's, uvicorn's.

Human lines on a terminal, one JSON object a line elsewhere. URLs lose user, password and query,
fields named like secrets lose their value, control characters cannot forge a line, exceptions
keep their traceback (without local variables: they hold secrets). `configure` is called by the
command and again in each worker process.

    log = get_logger(__name__)
    with request_context(request_id=new_request_id(), user=user):
        log.info("upload stored", repository=name, bytes=size)
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.stdlib import BoundLogger, ExtraAdder, LoggerFactory, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from .secrets import HIDDEN, Secret, names_secret, redact_url

if TYPE_CHECKING:
    from .loki import Loki

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "human", "json"]

_MAX_DEPTH = 6
_pushing: list[logging.Handler] = []
"""What sends records to a Loki, where anything does."""


class _StreamHandler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` finds and replaces the first one's."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        # A reader of our standard error that went away must not end or flood the server.
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def configure(
    level: Level = "info",
    format: Format = "auto",  # noqa: A002
    stream: TextIO | None = None,
    *,
    loki: Loki | None = None,
) -> logging.Handler:
    """Send every record of at least `level` to `stream` (default: standard error), and to a Loki.
    Return what sends them to the stream.

    May be called again; the last call counts. `auto` is human where the stream is a terminal.

    Raises:
        OSError: the certificates to trust for Loki cannot be read.
    """
    stream = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    human = format == "human" or (format == "auto" and stream.isatty())
    shared: list[Processor] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(
            fmt="%Y-%m-%d %H:%M:%S" if human else "iso", utc=not human
        ),
    ]

    def written(*last: Processor) -> ProcessorFormatter:
        return ProcessorFormatter(
            foreign_pre_chain=[*shared, ExtraAdder()],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                redact,
                *last,
            ],
        )

    handler = _StreamHandler(stream)
    handler.setFormatter(written(*((_escape_controls, _console(stream)) if human else (_json,))))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StreamHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    _push(loki, written(_json))
    root.setLevel(number)
    # uvicorn's loggers bring handlers of their own when its log_config is used.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(capture=True)
    # asyncio tells of each selector and slow callback at debug: nothing of the user's.
    logging.getLogger("asyncio").setLevel(max(number, logging.INFO))
    # Alembic greets each of its own parts when it is imported.
    logging.getLogger("alembic.runtime.plugins").setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    return handler


def _push(loki: Loki | None, formatter: logging.Formatter) -> None:
    """Send records to this Loki from now on, and to none that was there before."""
    root = logging.getLogger()
    while _pushing:
        old = _pushing.pop()
        root.removeHandler(old)
        old.close()
    if loki is not None:
        from .loki import LokiHandler  # late, with what it needs of the network

        handler = LokiHandler(loki)
        handler.setFormatter(formatter)
        root.addHandler(handler)
        _pushing.append(handler)


def get_logger(name: str) -> BoundLogger:
    """Return a logger that takes fields as keyword arguments.

    A logger fetched before `configure` follows it. A call below the configured level costs about
    two microseconds; a hot path keeps the result of `.bind()`, where it costs a tenth of one.
    """
    return cast(BoundLogger, structlog.get_logger(name))


def new_request_id() -> str:
    """Return 16 hexadecimal digits for a request that came without an id of its own."""
    return secrets.token_hex(8)


@contextmanager
def request_context(**fields: Any) -> Iterator[None]:
    """Add `fields`, such as request_id, to every record logged inside, on this task or thread."""
    with bound_contextvars(**fields):
        yield


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide secrets and the private parts of URLs in all fields; a structlog processor."""
    for key, value in event.items():
        event[key] = HIDDEN if names_secret(key) else _hidden(value, 0)
    return event


def _hidden(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_url(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Secret):
        return HIDDEN
    if depth < _MAX_DEPTH:
        if isinstance(value, MutableMapping):
            return {
                key: HIDDEN if names_secret(str(key)) else _hidden(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [_hidden(item, depth + 1) for item in value]
    return redact_url(repr(value) if not isinstance(value, os.PathLike | Exception) else str(value))


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS_BUT_LINES = {code: text for code, text in _CONTROLS.items() if chr(code) not in "\n\t"}


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            # A traceback has lines of its own; nothing else may start a new one.
            table = _CONTROLS_BUT_LINES if key in ("exception", "stack") else _CONTROLS
            event[key] = value.translate(table)
    return event


def _console(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
    )


_json = structlog.processors.JSONRenderer(ensure_ascii=False)
