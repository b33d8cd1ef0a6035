"""The protocol as a table of raw requests: what rest-server 0.14 answers, and where we differ.

Each row is sent to a repository of its own, which holds what `STORED` says. `{repo}` in a target
stands for that repository.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.servers.wire import chunked

V1 = "application/vnd.x.restic.rest.v1"
V2 = "application/vnd.x.restic.rest.v2"

PLAIN = "plain"
APPEND_ONLY = "append-only"
PRIVATE = "private"
"""Private repositories with users alice (password secret) and bob; rows name their own target."""

TYPES = ("data", "index", "keys", "locks", "snapshots")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONFIG = b"the config of a repository\n"
CONTENT = {kind: kind.encode() * 25 for kind in TYPES}
EMPTY = sha(b"")
MISSING = sha(b"missing")
NEW = b"something new" * 9


def object_path(kind: str, content: bytes) -> str:
    name = sha(content)
    return f"data/{name[:2]}/{name}" if kind == "data" else f"{kind}/{name}"


STORED: dict[str, bytes] = {
    "config": CONFIG,
    object_path("data", b""): b"",
    **{object_path(kind, content): content for kind, content in CONTENT.items()},
}
"""The files of every row's repository before the request."""

BLOB = sha(CONTENT["data"])
SIZE = len(CONTENT["data"])


@dataclass(frozen=True)
class Difference:
    """Where ours answers otherwise on purpose."""

    statuses: tuple[int, ...]
    reason: str
    disk: bool = False
    """Whether what lies on disk afterwards differs too."""


@dataclass(frozen=True)
class Row:
    """One request and rest-server's answer to it."""

    name: str
    method: str
    target: str
    status: int
    headers: tuple[str, ...] = ()
    body: bytes | None = None
    mode: str = PLAIN
    ends_early: bool = False
    """The client stops sending after `body`, whatever it announced."""
    ours: Difference | None = None
    compare_body: bool = True


NO_REDIRECT = Difference((404,), "we answer 404 at once; a redirect of a POST would lose its body")
IDENTICAL = Difference(
    (200,), "an identical upload repeated after a lost answer succeeds (rest-server #196)"
)
SECOND_QUERY = Difference((400,), "contradicting values of `create` are refused")
NO_CONDITIONS = Difference((200,), "blobs never change: conditional requests are not answered")
RANGES = Difference((200, 416), "restic asks for one range at a time; several are not served")
STRICT_NUMBERS = Difference(
    (416,), "a sign before a number is malformed (RFC 9110, section 14.1.1)"
)
ASCII_TARGET = Difference(
    (400,), "a request target is ASCII (RFC 9112, section 3.2); clients escape the rest", disk=True
)
NO_REPOSITORY = Difference(
    (200, 404), "a config without its repository is no internal error", disk=True
)


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


ALICE = basic("alice", "secret")
BOB = basic("bob", "builder")


def rows() -> Iterator[Row]:
    """Every row, each with another name."""
    for kind in TYPES:
        yield from _one_type(kind)
    yield from _config()
    yield from _repository()
    yield from _ranges()
    yield from _names()
    yield from _bodies()
    yield from _append_only()
    yield from _private()


def _one_type(kind: str) -> Iterator[Row]:
    content = CONTENT[kind]
    folder = f"/{{repo}}/{kind}/"
    stored = folder + sha(content)
    missing = folder + MISSING
    new = folder + sha(NEW)
    yield Row(f"{kind}-get", "GET", stored, 200)
    yield Row(f"{kind}-head", "HEAD", stored, 200)
    yield Row(f"{kind}-get-from-0", "GET", stored, 206, ("Range: bytes=0-",))
    yield Row(f"{kind}-get-missing", "GET", missing, 404)
    yield Row(f"{kind}-head-missing", "HEAD", missing, 404)
    yield Row(f"{kind}-delete", "DELETE", stored, 200)
    yield Row(f"{kind}-delete-missing", "DELETE", missing, 200)
    yield Row(f"{kind}-post", "POST", new, 200, body=NEW)
    yield Row(f"{kind}-post-octets", "POST", new, 200, ("Content-Type: a/b",), NEW)
    yield Row(f"{kind}-post-same", "POST", stored, 403, body=content, ours=IDENTICAL)
    yield Row(f"{kind}-post-other", "POST", stored, 403, body=content[::-1])
    yield Row(f"{kind}-post-longer", "POST", stored, 403, body=content + b"x")
    yield Row(f"{kind}-post-wrong-hash", "POST", new, 400, body=NEW + b"x")
    yield Row(f"{kind}-post-nothing", "POST", new, 400, body=b"")
    length = ("Content-Length: 500",)
    yield Row(f"{kind}-post-short", "POST", new, 400, length, NEW, ends_early=True)
    yield Row(f"{kind}-put", "PUT", new, 405, body=NEW)
    yield Row(f"{kind}-patch", "PATCH", stored, 405, body=b"")
    yield Row(f"{kind}-options", "OPTIONS", stored, 405)
    yield Row(f"{kind}-list", "GET", folder, 200)
    yield Row(f"{kind}-list-v1", "GET", folder, 200, (f"Accept: {V1}",))
    yield Row(f"{kind}-list-v2", "GET", folder, 200, (f"Accept: {V2}",))
    yield Row(f"{kind}-list-any", "GET", folder, 200, ("Accept: */*",))
    yield Row(f"{kind}-list-nowhere", "GET", f"/{{repo}}/none/{kind}/", 404, (f"Accept: {V2}",))
    yield Row(f"{kind}-list-head", "HEAD", folder, 405)
    yield Row(f"{kind}-list-post", "POST", folder, 405, body=b"x")
    yield Row(f"{kind}-list-delete", "DELETE", folder, 405)
    yield Row(f"{kind}-list-bare", "GET", folder.rstrip("/"), 404)


def _config() -> Iterator[Row]:
    config = "/{repo}/config"
    fresh = "/{repo}/fresh/config"
    yield Row("config-get", "GET", config, 200)
    yield Row("config-head", "HEAD", config, 200)
    yield Row("config-range-ignored", "GET", config, 200, ("Range: bytes=2-5",))
    yield Row("config-bad-range-ignored", "GET", config, 200, ("Range: nonsense",))
    yield Row("config-post-existing", "POST", config, 403, body=b"other")
    yield Row("config-post-same", "POST", config, 403, body=CONFIG)
    yield Row("config-delete", "DELETE", config, 200)
    yield Row("config-put", "PUT", config, 405, body=b"x")
    yield Row("config-options", "OPTIONS", config, 405)
    yield Row("config-get-missing", "GET", fresh, 404)
    yield Row("config-head-missing", "HEAD", fresh, 404)
    yield Row("config-delete-missing", "DELETE", fresh, 200)
    yield Row("config-slash", "GET", config + "/", 404)
    yield Row("config-below", "GET", config + "/" + BLOB, 404)
    yield Row("config-no-repository", "POST", fresh, 500, body=b"x", ours=NO_REPOSITORY)
    yield Row("config-post", "POST", "/{repo}/made/config", 200, body=b"new")
    yield Row("config-post-empty", "POST", "/{repo}/made/config", 200, body=b"")
    yield Row(
        "config-post-chunked",
        "POST",
        "/{repo}/made/config",
        200,
        ("Transfer-Encoding: chunked",),
        chunked(b"ne", b"w"),
    )


def _repository() -> Iterator[Row]:
    chunked_header = ("Transfer-Encoding: chunked",)
    yield Row("create", "POST", "/{repo}/fresh/?create=true", 200, body=b"")
    yield Row(
        "create-as-restic-does",
        "POST",
        "/{repo}/fresh/?create=true",
        200,
        chunked_header,
        chunked(),
    )
    yield Row("create-no-body", "POST", "/{repo}/fresh/?create=true", 200)
    yield Row("create-with-a-body", "POST", "/{repo}/fresh/?create=true", 200, body=b"ignored")
    yield Row("create-existing", "POST", "/{repo}/?create=true", 200, body=b"")
    for number, value in enumerate(
        ("", "?create", "?create=", "?create=false", "?create=1", "?create=TRUE", "?Create=true")
    ):
        yield Row(f"create-bad-{number}", "POST", f"/{{repo}}/fresh/{value}", 400, body=b"")
    yield Row("create-true-escaped", "POST", "/{repo}/fresh/?create=%74rue", 200, body=b"")
    yield Row("create-and-more", "POST", "/{repo}/fresh/?x=y&create=true", 200, body=b"")
    yield Row(
        "create-twice",
        "POST",
        "/{repo}/fresh/?create=true&create=false",
        200,
        body=b"",
        ours=Difference((200, 400), SECOND_QUERY.reason, disk=True),
    )
    yield Row("create-bare", "POST", "/{repo}?create=true", 404, body=b"")
    yield Row("create-too-deep", "POST", "/{repo}/b/c/?create=true", 404, body=b"")
    yield Row("create-in-a-type", "POST", "/{repo}/data/?create=true", 405, body=b"")
    yield Row("create-as-a-type", "POST", "/{repo}/locks/x/?create=true", 404, body=b"")
    for method in ("GET", "DELETE", "PUT", "PATCH", "OPTIONS"):
        yield Row(f"repository-{method.lower()}", method, "/{repo}/", 405)
    yield Row("repository-head", "HEAD", "/{repo}/", 405)
    yield Row("root-get", "GET", "/", 405)
    yield Row("root-list-missing", "GET", "/data/", 404)
    yield Row("root-config-missing", "GET", "/config", 404)
    yield Row("unknown-type", "GET", "/{repo}/blobs/" + BLOB, 404)
    yield Row("metrics-off", "GET", "/metrics", 404)


def _ranges() -> Iterator[Row]:
    blob = "/{repo}/data/" + BLOB
    good = {
        "first": "0-0",
        "some": "3-17",
        "open": "40-",
        "last": f"{SIZE - 1}-",
        "suffix": "-7",
        "suffix-too-long": "-100000",
        "clamped": "90-100000",
        "whole": f"0-{SIZE - 1}",
        "zeros": "0003-0017",
    }
    for name, value in good.items():
        yield Row(f"range-{name}", "GET", blob, 206, (f"Range: bytes={value}",))
    bad = {
        "at-end": f"{SIZE}-",
        "past-end": "100000-100001",
        "backwards": "17-3",
        "nothing": "-",
        "letters": "a-b",
        "negative": "--3",
        "huge": "9" * 40 + "-",
        "one-number": "5",
    }
    for name, value in bad.items():
        yield Row(f"range-{name}", "GET", blob, 416, (f"Range: bytes={value}",))
    yield Row("range-blanks", "GET", blob, 206, ("Range: bytes= 3 - 17 ",))
    yield Row("range-plus", "GET", blob, 206, ("Range: bytes=+3-",), ours=STRICT_NUMBERS)
    yield Row("range-unit", "GET", blob, 416, ("Range: bites=0-3",))
    yield Row("range-no-unit", "GET", blob, 416, ("Range: 0-3",))
    yield Row("range-empty-header", "GET", blob, 200, ("Range:",))
    yield Row("range-empty-file", "GET", "/{repo}/data/" + EMPTY, 200, ("Range: bytes=0-",))
    yield Row("range-empty-file-5", "GET", "/{repo}/data/" + EMPTY, 200, ("Range: bytes=5-9",))
    yield Row("empty-file", "GET", "/{repo}/data/" + EMPTY, 200)
    yield Row("empty-file-head", "HEAD", "/{repo}/data/" + EMPTY, 200)
    yield Row("range-missing", "GET", "/{repo}/data/" + MISSING, 404, ("Range: bytes=0-3",))
    yield Row("range-head", "HEAD", blob, 200, ("Range: bytes=0-3",))
    yield Row(
        "range-two",
        "GET",
        blob,
        206,
        ("Range: bytes=0-3,6-9",),
        ours=RANGES,
        compare_body=False,
    )
    yield Row("gzip-accepted", "GET", blob, 200, ("Accept-Encoding: gzip",))
    yield Row("if-none-match", "GET", blob, 304, ("If-None-Match: *",), ours=NO_CONDITIONS)


def _names() -> Iterator[Row]:
    folder = "/{repo}/data/"
    bad = {
        "upper-case": BLOB.upper(),
        "short": BLOB[:-1],
        "long": BLOB + "0",
        "not-hex": "g" + BLOB[1:],
        "newline": BLOB + "%0A",
        "nul": BLOB + "%00",
        "below-prefix": f"{BLOB[:2]}/{BLOB}",
        "trailing-slash": BLOB + "/",
        "digits-elsewhere": "%D9%A1" + BLOB[2:],
        "two-dots-at-end": BLOB + "..",
        "backslash": "..%5Cconfig",
    }
    for name, value in bad.items():
        for method in ("GET", "DELETE"):
            yield Row(f"name-{name}-{method.lower()}", method, folder + value, 404)
        yield Row(f"name-{name}-post", "POST", folder + value, 404, body=NEW)
    good = {
        "escaped-letter": folder + f"%{ord(BLOB[0]):02x}" + BLOB[1:],
        "escaped-slash": "/{repo}%2Fdata%2F" + BLOB,
        "escaped-type": "/{repo}/%64ata/" + BLOB,
        "absolute-form": "http://localhost/{repo}/data/" + BLOB,
        "query-ignored": folder + BLOB + "?create=true",
    }
    for name, value in good.items():
        yield Row(f"name-{name}", "GET", value, 200)
    yield Row("name-decoded-once", "GET", "/{repo}%252Fdata/" + BLOB, 404)
    redirected = {
        "empty-segment": "/{repo}//data/" + BLOB,
        "dot": "/{repo}/./data/" + BLOB,
        "dots": "/{repo}/data/../config",
        "dots-above": "/../{repo}/config",
        "escaped-dots": "/{repo}/data/%2e%2e/config",
        "escaped-dots-and-slash": "/{repo}/data/..%2Fconfig",
    }
    for name, value in redirected.items():
        yield Row(f"name-{name}", "GET", value, 301, ours=NO_REDIRECT)
        yield Row(f"name-{name}-delete", "DELETE", value, 301, ours=NO_REDIRECT)
    yield Row(
        "repository-named-raw-utf-8", "POST", "/{repo}/Ünï/?create=true", 200, ours=ASCII_TARGET
    )
    for name in (
        "%C3%9Cn%C3%AF",
        "with%20blank",
        "%E6%97%A5%E6%9C%AC",
        "a;b",
        "a+b",
        "%25",
        "~x",
        "a:b@c",
    ):
        yield Row(f"repository-named-{name}", "POST", f"/{{repo}}/{name}/?create=true", 200)
    for name in (*TYPES, "config"):
        yield Row(f"repository-named-{name}", "POST", f"/{{repo}}/{name}/x/?create=true", 404)


def _bodies() -> Iterator[Row]:
    new = "/{repo}/data/" + sha(NEW)
    coding = ("Transfer-Encoding: chunked",)
    yield Row("body-chunked", "POST", new, 200, coding, chunked(NEW[:5], NEW[5:]))
    yield Row("body-chunked-wrong", "POST", new, 400, coding, chunked(NEW, b"x"))
    yield Row("body-chunked-empty", "POST", new, 400, coding, chunked())
    cut = b"%x\r\n" % 500 + NEW
    yield Row("body-chunked-cut", "POST", new, 400, coding, cut, ends_early=True)
    yield Row("body-absent", "POST", new, 400)
    yield Row("body-empty-blob", "POST", "/{repo}/fresh/data/" + EMPTY, 200, body=b"")
    yield Row("body-no-repository", "POST", "/{repo}/fresh/data/" + sha(NEW), 200, body=NEW)
    yield Row("body-large", "POST", "/{repo}/data/" + sha(LARGE), 200, body=LARGE)
    yield Row("body-large-wrong", "POST", new, 400, body=LARGE)
    yield Row("body-with-get", "GET", "/{repo}/config", 200, body=b"ignored")
    yield Row("body-with-delete", "DELETE", "/{repo}/data/" + BLOB, 200, body=b"ignored")
    yield Row("body-encoded", "POST", new, 200, ("Content-Encoding: gzip",), NEW)


LARGE = bytes(range(256)) * 12_000
"""About 3 MB: more than any buffer between a socket and a file."""


def _append_only() -> Iterator[Row]:
    for kind in TYPES:
        folder = f"/{{repo}}/{kind}/"
        stored = folder + sha(CONTENT[kind])
        status = 200 if kind == "locks" else 403
        yield Row(f"append-{kind}-delete", "DELETE", stored, status, mode=APPEND_ONLY)
        yield Row(
            f"append-{kind}-delete-missing", "DELETE", folder + MISSING, status, mode=APPEND_ONLY
        )
        yield Row(f"append-{kind}-post", "POST", folder + sha(NEW), 200, body=NEW, mode=APPEND_ONLY)
        yield Row(f"append-{kind}-post-other", "POST", stored, 403, body=b"other", mode=APPEND_ONLY)
    yield Row("append-create", "POST", "/{repo}/fresh/?create=true", 200, mode=APPEND_ONLY)
    yield Row("append-create-again", "POST", "/{repo}/?create=true", 200, mode=APPEND_ONLY)
    yield Row("append-config-delete", "DELETE", "/{repo}/config", 403, mode=APPEND_ONLY)
    yield Row("append-config-post", "POST", "/{repo}/config", 403, body=b"x", mode=APPEND_ONLY)


def _private() -> Iterator[Row]:
    own = "/alice/{repo}/"
    for name, headers, target, status in (
        ("own", (ALICE,), own + "config", 200),
        ("own-list", (ALICE,), own + "data/", 200),
        ("other", (BOB,), own + "config", 401),
        ("nobody", (), own + "config", 401),
        ("empty-login", ("Authorization: Basic Og==",), own + "config", 401),
        ("wrong-password", (basic("alice", "wrong"),), own + "config", 401),
        ("unknown-user", (basic("carol", "secret"),), own + "config", 401),
        ("not-base64", ("Authorization: Basic !!!",), own + "config", 401),
        ("bearer", ("Authorization: Bearer secret",), own + "config", 401),
        ("no-colon", ("Authorization: Basic YWxpY2U=",), own + "config", 401),
        ("prefix", (ALICE,), "/alicetoo/config", 401),
        ("upper-case", (ALICE,), "/Alice/{repo}/config", 401),
        ("root", (ALICE,), "/config", 401),
        ("own-missing", (ALICE,), "/alice/none/config", 404),
        ("other-missing", (ALICE,), "/bob/none/config", 401),
    ):
        yield Row(f"private-{name}", "GET", target, status, tuple(headers), mode=PRIVATE)
    yield Row(
        "private-post-other",
        "POST",
        own + "data/" + sha(NEW),
        401,
        (BOB,),
        NEW,
        mode=PRIVATE,
    )
    yield Row("private-delete-other", "DELETE", own + "config", 401, (BOB,), mode=PRIVATE)
    yield Row("private-create", "POST", "/alice/new/?create=true", 200, (ALICE,), mode=PRIVATE)
    yield Row("private-create-other", "POST", "/alice/new2/?create=true", 401, (BOB,), mode=PRIVATE)
