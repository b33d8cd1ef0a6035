"""The corpus: more than 500 distinct hostile requests, the same ones on every run.

Paths come from hostile_paths, uploads from hostile_bodies; here are methods, ranges, headers,
protocols and logins.
What an answer may be follows rest-server 0.14 and, where that is silent, RFC 9110 and 9112.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from tests.restserver import hostile_bodies, hostile_paths
from tests.restserver.hostile_attack import Attack, Ending, only, request
from tests.restserver.hostile_bodies import BAD_REQUEST, FRAMED, SENTINEL_PATH
from tests.restserver.hostile_paths import INTRUDER

RANGES = """
    bytes=0-0 bytes=0-0,2-3 bytes=-1 bytes=-0 bytes=-999999 bytes=5-2 bytes=0- bytes=68-
    bytes=999- bytes=1-99999999999999999999 bytes=99999999999999999999-
    bytes=-99999999999999999999 bytes=9223372036854775807- bytes=9223372036854775808-
    bytes=18446744073709551615- bytes=18446744073709551616- bytes=0-9223372036854775807
    bytes=0-18446744073709551616 bytes=--1 bytes=-- bytes=- bytes= bytes bytes=a-b bytes=0x0-0x5
    bytes=0-5-9 bytes=+0-+5 bytes=0-5, bytes=,0-5 bytes=,,, bytes=0-5;x bytes=1e3- bytes=1.5-2
    bytes=_1-2 bytes=1_0-20 items=0-5 octets=0-5 BYTES=0-5 Bytes=0-5 bytes:0-5 bytes=0:5 none
    seconds=1-2 0-5 =0-5 bytes=*-5 bytes=5-* bytes=0\u20135 bytes=\u0660-\u0665
    bytes=\uff10-\uff15 bytes=0-5% bytes=%30-%35 bytes=NaN- bytes=inf- bytes=-inf
    bytes=0-5bytes=0-5 bytes==0-5 bytes=0--5
"""

VERSIONS = """
    HTTP/0.9 HTTP/1.2 HTTP/2 HTTP/2.0 HTTP/3.0 HTTP/9.9 HTTP/1 HTTP/1. HTTP/.1 HTTP/1.1.1
    HTTP/11 HTTP/01.1 HTTP/1.01 HTTP/-1.1 HTTP/1.1x http/1.1 Http/1.1 HTTPS/1.1 ICY RTSP/1.0 SIP/2.0
"""


def methods() -> Iterator[Attack]:
    """Methods that the protocol does not have, and bytes that are no method."""
    known = b"PUT PATCH OPTIONS TRACE PROPFIND MKCOL COPY MOVE LOCK UNLOCK SEARCH PURGE LINK REPORT"
    unknown = [b"get", b"Get", b"FOO", b"DEBUG", b"BREW", b"GET\0", b"G=T", b"G\tT", b"M" * 10_000]
    for path in (b"/good/", b"/good/config", b"/good/data/", SENTINEL_PATH):
        for method in known.split():
            yield Attack(
                f"{method!r} {path!r}", request(method, path, body=b""), only(400, 404, 405, 501)
            )
        for method in (b"GET", b"DELETE", b"HEAD"):
            if path.endswith(b"/") and not (method == b"GET" and path.endswith(b"data/")):
                yield Attack(f"{method!r} {path!r}", request(method, path), only(404, 405))
    for method in unknown:
        payload = request(method, SENTINEL_PATH)
        yield Attack(f"method {method[:20]!r}", payload, only(400, 405, 431, 501))
    payload = request(b"CONNECT", b"gateway:443")
    yield Attack("CONNECT", payload, only(400, 404, 405, 501))
    yield Attack("no method", b" /good/config HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST)


def ranges() -> Iterator[Attack]:
    """Range headers: garbage, overflow, several, upside down."""
    values = RANGES.split()
    more = [
        "bytes= 0-5",
        "bytes=0 -5",
        "bytes=0- 5",
        "bytes =0-5",
        "bytes\t=0-5",
        "",
        " ",
        "bytes 0-5",
    ]
    floods = [
        ",".join(["0-0"] * 2000),
        ",".join(f"{n}-{n}" for n in range(5000)),
        ",".join(["0-"] * 1300),
        "0" * 5000 + "1-",
        "0-" + "9" * 30_000,
    ]
    values += more + [f"bytes={flood}" for flood in floods]
    allowed = only(200, 206, 400, 416, 431)
    for value in values:
        header = b"Range: " + value.encode()
        label = f"Range {value[:40]!r}"
        if len(value) > 40:
            label += f" ({len(value)})"
        for path in (SENTINEL_PATH, b"/good/config"):
            yield Attack(f"{label} {path[:8]!r}", request(b"GET", path, [header]), allowed)
    for number in (2, 100):
        headers = [b"Range: bytes=0-%d" % n for n in range(number)]
        yield Attack(f"{number} Range headers", request(b"GET", SENTINEL_PATH, headers), allowed)


def headers() -> Iterator[Attack]:
    """Header lines that are too many, too long, or none."""
    fine = only(200, 400, 431)
    bad: dict[str, list[bytes]] = {
        "1,000 headers": [b"X-%d: y" % n for n in range(1000)],
        "100,000 headers": [b"X-%d: y" % n for n in range(100_000)],
        "the same 5,000 times": [b"Accept: x"] * 5000,
        "no values, 20,000 times": [b"a:"] * 20_000,
        "one of 60,000 bytes": [b"X: " + b"y" * 60_000],
        "one of 70,000 bytes": [b"X: " + b"y" * 70_000],
        "one of 1 MiB": [b"X: " + b"y" * (1 << 20)],
        "one of 16 MiB": [b"X: " + b"y" * (1 << 24)],
        "a name of 100,000 bytes": [b"X" * 100_000 + b": y"],
        "a cookie of 200,000 bytes": [b"Cookie: " + b"a=b; " * 40_000],
        "no colon": [b"nonsense"],
        "no name": [b": y"],
        "blank name": [b" : y"],
        "blank in a name": [b"X Y: z"],
        "NUL in a name": [b"X\0Y: z"],
        "NUL in a value": [b"X: y\0z"],
        "high bytes in a name": [b"\xff\xfe: z"],
        "high bytes in a value": [b"X: \xff\xfe"],
        "control bytes in a value": [b"X: \x01\x02\x7f"],
        "folded": [b"X: y", b" z"],
        "folded first": [b" folded: y"],
        "bare return in a value": [b"X: y\rz"],
        "bare line feed": [b"X: y\nZ: w"],
        "two hosts": [b"Host: other"],
        "host is a path": [b"Host: ../../canary"],
        "host has a port beyond": [b"Host: a:99999999"],
        "forwarded": [b"X-Forwarded-For: ../../canary", b"Forwarded: for=\"[::1\""],
        "rewritten path": [b"X-Original-URL: /../canary", b"X-Rewrite-URL: /../canary"],
        "overridden method": [b"X-HTTP-Method-Override: DELETE", b"X-Method: DELETE"],
        "names by underscore": [b"Content_Length: 5"],
        "connection names host": [b"Connection: host, close, keep-alive"],
        "connection is odd": [b"Connection: ,,,;;;\x01"],
        "if-range": [b"Range: bytes=0-1", b"If-Range: \"x\""],
        "conditions": [b"If-None-Match: *", b"If-Match: nothing", b"If-Modified-Since: never"],
        "accept is odd": [b"Accept: " + b"*/*;q=9," * 2000],
        "accepts codings": [b"Accept-Encoding: gzip, br, zstd;q=1, *;q=0"],
        "te": [b"TE: trailers, deflate;q=0.5"],
        "trailer": [b"Trailer: Content-Length"],
        "user agent forges a log line": [b"User-Agent: x\"\t- \x1b[2J 127.0.0.1 - admin"],
    }  # fmt: skip
    for name, lines in bad.items():
        allowed = fine
        if name == "conditions":
            allowed = fine | only(304, 412)
        if name == "if-range":
            allowed = fine | only(206)
        cut = sum(map(len, lines)) > 30_000
        for where, path in (("blob", SENTINEL_PATH), ("nothing", b"/nowhere/config")):
            answers = allowed if where == "blob" else allowed - {200} | {404}
            payload = request(b"GET", path, lines)
            yield Attack(f"header: {name}, {where}", payload, answers, may_be_cut=cut)


def protocols() -> Iterator[Attack]:
    """Other protocols on the port, other versions, and noise."""
    half = Ending.HALF_CLOSE
    for version in VERSIONS.split():
        payload = b"GET /nowhere/config %s\r\nHost: a\r\n\r\n" % version.encode()
        yield Attack(f"version {version}", payload, only(400, 404, 405, 426, 505))
    yield Attack("no version (0.9)", b"GET /good/config\r\n\r\n", BAD_REQUEST)
    yield Attack("no version, no more", b"GET /good/config\r\n", BAD_REQUEST, half)
    yield Attack("no host", b"GET /nowhere/config HTTP/1.1\r\n\r\n", only(400, 404))
    yield Attack("1.0, no host", b"GET /nowhere/config HTTP/1.0\r\n\r\n", only(400, 404))
    line_feeds = request(b"GET", b"/nowhere/config").replace(b"\r\n", b"\n")
    yield Attack("only line feeds", line_feeds, only(400, 404))
    returns = request(b"GET", b"/nowhere/config").replace(b"\r\n", b"\r")
    yield Attack("only returns", returns, BAD_REQUEST, half)
    empty_first = b"\r\n" * 5 + request(b"GET", b"/nowhere/config")
    yield Attack("empty lines first", empty_first, only(400, 404))
    yield Attack("100,000 empty lines", b"\r\n" * 100_000, only(400, 408, 431), half, True)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    yield Attack("HTTP/2 preface", preface, only(400, 404, 405, 505), half, True)
    hello = bytes.fromhex("16030100c8010000c40303") + random.Random(1).randbytes(32) + bytes(161)
    noise: dict[str, bytes] = {
        "TLS client hello": hello,
        "SSL 2 hello": bytes.fromhex("802e0100020015000000100100800200800300800400800500800600"),
        "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
        "SMTP": b"EHLO gateway\r\nMAIL FROM:<a@b>\r\n",
        "FTP": b"USER anonymous\r\n",
        "Redis": b"*1\r\n$4\r\nPING\r\n",
        "memcached": b"stats\r\n",
        "MQTT": bytes.fromhex("101000044d5154540402003c000474657374"),
        "RDP": bytes.fromhex("030000130ee000000000000100080003000000"),
        "SMB": bytes.fromhex("00000054ff534d4272000000001801280000000000000000"),
        "SOCKS 5": b"\x05\x01\x00",
        "JSON": b'{"method": "GET"}\r\n\r\n',
        "PROXY 1": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request(b"GET", b"/nowhere/config"),
        "PROXY 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + request(b"GET", b"/"),
        "NULs": bytes(10_000),
        "one NUL": b"\0",
        "0xff": b"\xff" * 10_000,
        "a MiB of letters": b"a" * (1 << 20),
        "a MiB of blanks": b" " * (1 << 20),
        "a MiB of a target": b"GET /" + b"a" * (1 << 20),
        "half a request line": b"GET /good/con",
        "half a header": b"GET /good/config HTTP/1.1\r\nHos",
        "headers without an end": b"GET /good/config HTTP/1.1\r\nHost: a\r\n",
        "nothing": b"",
    }  # fmt: skip
    answers = only(400, 404, 405, 408, 414, 431)
    for name, payload in noise.items():
        yield Attack(f"noise: {name}", payload, answers, half, may_be_cut=True)
    for seed in range(40):
        choose = random.Random(seed)
        payload = choose.randbytes(choose.choice((1, 7, 64, 1500, 70_000)))
        yield Attack(f"noise: random {seed}", payload, answers, half, may_be_cut=True)


def expectations() -> Iterator[Attack]:
    """Expect and Upgrade: everything that a backup client never sends."""
    for value in (
        b"100-continue",
        b"100-Continue",
        b"200-ok",
        b"100-continue, x",
        b"",
        b"x" * 5000,
    ):
        payload = request(b"POST", FRAMED, [b"Expect: " + value], INTRUDER)
        yield Attack(f"Expect {value[:20]!r}, stored", payload, only(200, 400, 417))
        payload = request(b"POST", b"/../x", [b"Expect: " + value], INTRUDER)
        yield Attack(f"Expect {value[:20]!r}, refused", payload, only(400, 404, 405, 417))
        payload = request(b"GET", SENTINEL_PATH, [b"Expect: " + value])
        yield Attack(f"Expect {value[:20]!r}, no body", payload, only(200, 400, 417))
    for value in (
        b"websocket",
        b"h2c",
        b"HTTP/2.0",
        b"TLS/1.0",
        b"IRC/6.9",
        b"",
        b"websocket, h2c",
    ):
        lines = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + value]
        lines += [b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"Sec-WebSocket-Version: 13"]
        lines += [b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        payload = request(b"GET", SENTINEL_PATH, lines)
        yield Attack(f"Upgrade {value!r}", payload, only(200, 400, 404, 426, 501))
        payload = request(b"POST", FRAMED, lines, INTRUDER)
        yield Attack(f"Upgrade {value!r} with a body", payload, only(200, 400, 404, 426, 501))


def logins() -> Iterator[Attack]:
    """Authorization headers that let nobody in."""
    values = [
        b"", b"Basic", b"Basic ", b"Basic Og==", b"basic Og==", b"Basic !!!!", b"Basic ====",
        b"Basic YQ==", b"Basic YTo=", b"Basic OmE=", b"Basic dXNlcg==", b"Basic Li4vLi4vOng=",
        b"Basic /////w==", b"Basic dXNlcjpwYXNz\0", b"Basic dXNlcjp3cm9uZw==", b"Basic \xff\xff",
        b"Basic " + b"QUFB" * 10_000, b"Bearer x", b"Bearer eyJhbGciOiJub25lIn0.e30.",
        b"Digest username=user",
        b"Negotiate TlRMTVNTUAABAAAA", b"NTLM x", b"user:right", b"Basic user:right", b"Basic AA==",
        b"Basic dXNlcjpyaWdodA", b"Basic  dXNlcjp3cm9uZw== ", b"Basic dXNl\tcjp3",
        b"AWS4-HMAC-SHA256 x",
    ]  # fmt: skip
    refused = only(400, 401, 429, 431)
    for value in values:
        for method, path in ((b"GET", b"/good/config"), (b"DELETE", SENTINEL_PATH)):
            payload = request(method, path, [b"Authorization: " + value])
            yield Attack(f"{method!r} login {value[:30]!r} ({len(value)})", payload, refused)
    two = [b"Authorization: Basic dXNlcjp3cm9uZw==", b"Authorization: Basic Og=="]
    yield Attack("two wrong logins", request(b"GET", b"/good/config", two), refused)
    others = [
        b"X-User: user",
        b"X-Forwarded-User: user",
        b"Remote-User: user",
        b"Cookie: user=user",
    ]
    yield Attack("login by other headers", request(b"GET", b"/good/config", others), refused)


Group = Callable[[], Iterable[Attack]]
GROUPS: dict[str, Group] = {
    "reads outside": hostile_paths.reads,
    "writes outside": hostile_paths.writes,
    "deletes outside": hostile_paths.deletes,
    "blob names": hostile_paths.bad_ids,
    "repository names": hostile_paths.bad_names,
    "request targets": hostile_paths.odd_targets,
    "methods": methods,
    "ranges": ranges,
    "framing": hostile_bodies.framing,
    "headers": headers,
    "protocols": protocols,
    "expectations": expectations,
    "bodies": hostile_bodies.bodies,
}
"""Everything that is sent to a gateway without authentication; `logins` is for one with it."""
