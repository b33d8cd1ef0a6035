"""A requests session whose calls to well-known hosts go to one given server instead."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter


class _Redirecting(HTTPAdapter):
    def __init__(self, endpoint: str, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self._endpoint = urlsplit(endpoint)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
        there = urlsplit(request.url or "")
        request.url = urlunsplit(
            (self._endpoint.scheme, self._endpoint.netloc, there.path, there.query, "")
        )
        return super().send(request, *args, **options)


def redirect(session: requests.Session, endpoint: str, connections: int) -> None:
    """Send what goes to any https:// host to `endpoint`, a URL without a path."""
    session.mount("https://", _Redirecting(endpoint, connections))
