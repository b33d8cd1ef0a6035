"""What a request's head says: its target, the length of its body, what the client expects.

Whatever could be read in two ways is refused.
"""

from __future__ import annotations

from typing import NoReturn

FRAMING_HEADERS = frozenset((b"content-length", b"transfer-encoding", b"expect", b"host"))


class Refused(Exception):
    """Raised in a parser's callback: the request is answered with `status` and `text`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def read_framing(headers: list[tuple[bytes, bytes]], version: str) -> tuple[int | None, bool]:
    """Return the body's length (None: chunked) and whether the client waits for a 100.

    Raises:
        Refused: there is no such length, or not one Host (RFC 9112, 3.2 and 6.1).
    """
    length: int | None = 0
    hosts = 0
    continue_wanted = False
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or version == "1.0":
                raise Refused(400, "The only Transfer-Encoding is chunked, in HTTP/1.1.")
            length = None
        elif value.lower() == b"100-continue":
            continue_wanted = version == "1.1"
        else:
            raise Refused(417, "The only expectation is 100-continue.")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refused(400, "An HTTP/1.1 request has one Host header.")
    return length, continue_wanted and length != 0


def split_target(target: bytes, method: str) -> tuple[bytes, bytes]:
    """Split a request target into the path, exactly as sent, and the query.

    Raises:
        Refused: the target has none of the forms of RFC 9112, 3.2.
    """
    if b"#" in target:
        raise Refused(400, "A request target has no fragment.")
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return path, query
    if target == b"*" and method == "OPTIONS":
        return target, b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https") or method == "CONNECT":
        _refuse_target()
    before_query, _, query = rest.partition(b"?")
    authority, slash, path = before_query.partition(b"/")
    if not authority:
        _refuse_target()
    return slash + path or b"/", query


def _refuse_target() -> NoReturn:
    raise Refused(400, "The request target is neither a path nor an http URL.")
