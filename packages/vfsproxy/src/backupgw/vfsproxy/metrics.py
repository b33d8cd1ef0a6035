"""Prometheus metrics of both APIs, under Backend.AI's names.

    backendai_api_request_count             method, endpoint, domain, operation, error_detail,
    backendai_api_request_duration_sec      status_code

`endpoint` is the route's template, never a path that a client made up, `domain` the group of
operations, `operation` what is done, `error_detail` a problem's code or nothing.
"""

from __future__ import annotations

import prometheus_client

from .api.exchange import Exchange
from .api.operation import Operation
from .problems import Problem

_LABELS = ("method", "endpoint", "domain", "operation", "error_detail", "status_code")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_requests = prometheus_client.Counter(
    "backendai_api_request_count", "API requests that ended.", _LABELS
)
_seconds = prometheus_client.Histogram(
    "backendai_api_request_duration_sec",
    "Seconds until a request ended.",
    _LABELS,
    buckets=_BUCKETS,
)


class RequestObserver:
    """Counts requests of one API; called on the event loop."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._known: dict[
            tuple[str, ...], tuple[prometheus_client.Counter, prometheus_client.Histogram]
        ] = {}

    def __call__(
        self,
        exchange: Exchange,
        operation: Operation | None,
        problem: Problem | None,
        seconds: float,
    ) -> None:
        """Count one."""
        method = exchange.method if exchange.method in _METHODS else "OTHER"
        labels = (
            method,
            operation.path if operation is not None else "",
            operation.tag if operation is not None else self._service,
            operation.name if operation is not None else "",
            problem.code if problem is not None else "",
            str(exchange.status or 499),
        )
        children = self._known.get(labels)
        if children is None:
            children = (_requests.labels(*labels), _seconds.labels(*labels))
            self._known[labels] = children
        children[0].inc()
        children[1].observe(seconds)
