"""How Dropbox's HTTP API says no: each error's status, tags and summary, and the paths that it
does not take. (https://www.dropbox.com/developers/documentation/http/documentation#error-handling)
"""

from __future__ import annotations

import re


class Refused(Exception):
    """An answer other than success: a status and the error's object."""

    def __init__(self, status: int, error: object) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


def tagged(tag: str) -> dict[str, object]:
    """Return a variant without a value as JSON has it."""
    return {".tag": tag}


def checked(path: str, *, reason: bool = False) -> str:
    """Return a path. Raises Refused for what Dropbox does not take."""
    if not re.fullmatch(r"(/(.|[\r\n])*)+", path):
        raise write_error("path", "malformed_path", reason=reason)
    for segment in segments(path):
        bad = len(segment) > 255 or not segment or segment in (".", "..")
        if bad or "\\" in segment or "\x7f" in segment or segment != segment.rstrip(" "):
            raise write_error("path", "malformed_path", reason=reason)
        if segment.lower() in ("desktop.ini", "thumbs.db", ".dropbox", ".dropbox.attr"):
            raise write_error("path", "disallowed_name", reason=reason)
    return path


def segments(path: str) -> list[str]:
    """Return the names on the way of a path."""
    return path.split("/")[1:]


def route_error(*tags: str) -> Refused:
    """Return the error of a route: tags within each other."""
    error: dict[str, object] = {".tag": tags[-1]}
    for tag in reversed(tags[:-1]):
        error = {".tag": tag, tag: error}
    return Refused(409, {"error_summary": "/".join(tags) + "/", "error": error})


def not_authenticated(tag: str) -> Refused:
    """Return the refusal of a token."""
    return Refused(401, {"error_summary": f"{tag}/", "error": tagged(tag)})


def conflict(wrapped: str, what: str, *, reason: bool = False) -> Refused:
    """Return the error where something has the name."""
    return write_error(wrapped, "conflict", what, reason=reason)


def write_error(wrapped: str, *tags: str, reason: bool = False) -> Refused:
    """Return a WriteError; that of /upload comes as a reason beside the id of what was sent."""
    inner: dict[str, object] = {".tag": tags[-1]}
    for tag in reversed(tags[:-1]):
        inner = {".tag": tag, tag: inner}
    if reason:
        error: dict[str, object] = {".tag": wrapped, "reason": inner, "upload_session_id": "none"}
    else:
        error = {".tag": wrapped, wrapped: inner}
    return Refused(409, {"error_summary": "/".join((wrapped, *tags)) + "/", "error": error})
