"""Why a service was not reached, or what answers in its place, in words for a person.

Libraries tell it in wrappings of their own, or not at all.
"""

from __future__ import annotations

import html
import http.client
import json
import re
import ssl

_PAGE = re.compile(r"<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1|h2)\b[^>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_MOST_CALLED = 100
"""Characters of a page's name that are told."""
_BEGINNING = 1000
"""Characters within which a page says that it is one."""


def reason_of(error: BaseException) -> str:
    """Return what lies below an error that a library raised for want of a connection: what the
    system, the name service or TLS said; else the error's kind."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        if said := _said(each):
            return said
        # requests and urllib3 carry it among their arguments or as a reason, botocore by name.
        carried = getattr(each, "kwargs", None)
        waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        waiting += carried.values() if isinstance(carried, dict) else ()
    return type(error).__name__


def authority_hint(error: BaseException) -> str:
    """Return what to do about a certificate that is not trusted, "" about anything else."""
    untrusted = "certificate" in reason_of(error)
    return "; set `cacert` to the file of the authority that signed it" if untrusted else ""


def in_a_line(said: str) -> str:
    """Return what an answer says, on one line: of a web page what it is called."""
    if not _PAGE.search(said[:_BEGINNING]):
        return " ".join(said.split())
    called = _TITLE.search(said)
    if called is None:
        return "a web page answers"
    name = " ".join(html.unescape(_TAG.sub(" ", called[2])).split())[:_MOST_CALLED]
    return f"a web page answers, {name!r}"


def _said(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "it speaks no TLS there; is it an address with http://?"
        case ssl.SSLError():
            return f"TLS failed: {(error.reason or 'unknown').replace('_', ' ').lower()}"
        case http.client.RemoteDisconnected():
            return "it closed the connection without an answer"
        case http.client.BadStatusLine():
            return "what it answers is no HTTP"
        case json.JSONDecodeError():
            return "what it answers is no JSON"
        case OSError() if error.errno is not None and error.strerror:
            return error.strerror
        case TimeoutError():
            return "no answer in time"
    return ""
