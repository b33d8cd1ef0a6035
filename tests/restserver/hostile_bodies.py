"""Hostile uploads: bodies of doubtful length, lies about contents, and odd queries."""

from __future__ import annotations

from collections.abc import Iterator

from tests.restserver.hostile_attack import Attack, Ending, only, request
from tests.restserver.hostile_paths import GOOD_ID, INTRUDER, INTRUDER_ID
from tests.restserver.hostile_site import SMUGGLED_ID, TYPES

SENTINEL_PATH = b"/good/data/" + GOOD_ID
FRAMED = b"/framed/data/" + INTRUDER_ID
STOWAWAY = request(b"GET", b"/good/data/" + SMUGGLED_ID.encode())
"""Hidden behind requests of doubtful length; its answer must never be seen."""

BAD_REQUEST = only(400)
END = b"\r\n0\r\n\r\n"
"""What ends a chunk and the body."""


def framing() -> Iterator[Attack]:
    """Bodies of doubtful length, each with a stowaway behind it: refuse, or be unambiguous."""
    refused = only(400, 411, 413, 501)
    length = b"Content-Length: %d" % len(INTRUDER)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(INTRUDER), INTRUDER)
    chunked = b"Transfer-Encoding: chunked"
    doubtful: dict[str, tuple[list[bytes], bytes]] = {
        "length and chunked": ([length, chunked], chunks),
        "chunked and length": ([chunked, length], chunks),
        "length 0 and chunked": ([b"Content-Length: 0", chunked], chunks),
        "two lengths": ([length, b"Content-Length: 3"], INTRUDER),
        "two lengths, the other first": ([b"Content-Length: 3", length], INTRUDER),
        "a list of lengths": ([b"Content-Length: 32, 3"], INTRUDER),
        "negative length": ([b"Content-Length: -1"], INTRUDER),
        "signed length": ([b"Content-Length: +32"], INTRUDER),
        "hexadecimal length": ([b"Content-Length: 0x20"], INTRUDER),
        "length with a fraction": ([b"Content-Length: 32.0"], INTRUDER),
        "length in exponents": ([b"Content-Length: 3e1"], INTRUDER),
        "length with a blank": ([b"Content-Length: 3 2"], INTRUDER),
        "length with an underscore": ([b"Content-Length: 3_2"], INTRUDER),
        "length in full-width digits": (["Content-Length: \uff13\uff12".encode()], INTRUDER),
        "length in words": ([b"Content-Length: all"], INTRUDER),
        "empty length": ([b"Content-Length: "], INTRUDER),
        "length 2^64": ([b"Content-Length: 18446744073709551616"], INTRUDER),
        "length 2^64+32": ([b"Content-Length: 18446744073709551648"], INTRUDER),
        "length of a hundred digits": ([b"Content-Length: " + b"9" * 100], INTRUDER),
        "blank before the colon": ([b"Content-Length : 32"], INTRUDER),
        "tab before the colon": ([b"Transfer-Encoding\t: chunked"], chunks),
        "folded length": ([b"Content-Length:", b" 32"], INTRUDER),
        "folded chunked": ([b"Transfer-Encoding:", b" chunked"], chunks),
        "identity": ([b"Transfer-Encoding: identity"], INTRUDER),
        "unknown coding": ([b"Transfer-Encoding: xchunked"], chunks),
        "chunked twice": ([chunked, chunked], chunks),
        "chunked, chunked": ([b"Transfer-Encoding: chunked, chunked"], chunks),
        "chunked, identity": ([b"Transfer-Encoding: chunked, identity"], chunks),
        "chunked, then a coding": ([b"Transfer-Encoding: chunked, gzip"], chunks),
        "coding, then chunked": ([b"Transfer-Encoding: gzip, chunked"], chunks),
        "chunked in quotes": ([b'Transfer-Encoding: "chunked"'], chunks),
        "chunked with a parameter": ([b"Transfer-Encoding: chunked;q=1"], chunks),
        "chunked with a vertical tab": ([b"Transfer-Encoding: \x0bchunked"], chunks),
        "chunked with NUL": ([b"Transfer-Encoding: chunked\0"], chunks),
        "chunked with a high byte": ([b"Transfer-Encoding: \xffchunked"], chunks),
        "empty coding": ([b"Transfer-Encoding: "], chunks),
        "bare line feed hides chunked": ([b"X: y\nTransfer-Encoding: chunked", length], chunks),
        "bare return hides a length": ([b"X: y\rContent-Length: 3", length], INTRUDER),
        "chunk size with a sign": ([chunked], b"+20\r\n" + INTRUDER + END),
        "chunk size negative": ([chunked], b"-1\r\n" + INTRUDER + END),
        "chunk size with 0x": ([chunked], b"0x20\r\n" + INTRUDER + END),
        "chunk size no number": ([chunked], b"xyz\r\n" + INTRUDER + END),
        "chunk size empty": ([chunked], b"\r\n" + INTRUDER + END),
        "chunk size with an underscore": ([chunked], b"2_0\r\n" + INTRUDER + END),
        "chunk size overflows": ([chunked], b"1" + b"0" * 16 + b"\r\n" + INTRUDER + END),
        "chunk size wraps to 32": ([chunked], b"10000000000000020\r\n" + INTRUDER + END),
        "chunk longer than it said": ([chunked], b"3\r\n" + INTRUDER + END),
        "chunk without its line end": ([chunked], b"20\r\n" + INTRUDER + b"0\r\n\r\n"),
        "chunk size with a bare return": ([chunked], b"20\r" + INTRUDER + END),
    }  # fmt: skip
    for name, (headers, body) in doubtful.items():
        payload = request(b"POST", FRAMED, headers) + body + STOWAWAY
        yield Attack(f"framing: {name}", payload, refused, may_be_cut=True)
    for name, value in (
        ("2^40", b"1099511627776"),
        ("2^62", b"4611686018427387904"),
        ("2^63-1", b"9223372036854775807"),
    ):
        payload = request(b"POST", FRAMED, [b"Content-Length: " + value]) + INTRUDER
        yield Attack(
            f"declares {name}", payload, only(400, 413, 507), Ending.HALF_CLOSE, may_be_cut=True
        )


def bodies() -> Iterator[Attack]:
    """Uploads that lie about their contents or their length, and odd queries."""
    half = Ending.HALF_CLOSE
    for kind in TYPES:
        path = b"/lies/" + kind.encode() + b"/" + INTRUDER_ID
        wrong = request(b"POST", path, body=INTRUDER + b"!")
        yield Attack(f"wrong hash, {kind}", wrong, BAD_REQUEST)
        yield Attack(f"empty, {kind}", request(b"POST", path, body=b""), BAD_REQUEST)
        large = request(b"POST", path, body=b"x" * (3 << 20))
        yield Attack(f"wrong hash, 3 MiB, {kind}", large, BAD_REQUEST)
        chunk = request(b"POST", path, [b"Transfer-Encoding: chunked"])
        yield Attack(f"wrong hash in chunks, {kind}", chunk + b"1\r\n!\r\n0\r\n\r\n", BAD_REQUEST)
        yield Attack(f"no chunk, {kind}", chunk + b"0\r\n\r\n", BAD_REQUEST)
        short = request(b"POST", path, body=INTRUDER)[:-1]
        yield Attack(f"one byte short, {kind}", short, BAD_REQUEST, half)
        nothing = short[: -len(INTRUDER) + 1]
        yield Attack(f"no byte, {kind}", nothing, BAD_REQUEST, half)
        yield Attack(f"reset in the body, {kind}", short, BAD_REQUEST, Ending.RESET)
        unended = chunk + b"20\r\n" + INTRUDER + b"\r\n"
        yield Attack(f"no last chunk, {kind}", unended, BAD_REQUEST, half)
        yield Attack(f"reset in chunks, {kind}", unended, BAD_REQUEST, Ending.RESET)
        existing = request(b"POST", path.replace(INTRUDER_ID, GOOD_ID).replace(b"lies", b"good"))
        yield Attack(f"no body at all, {kind}", existing, only(400, 403, 411))
    refused = only(403, 404, 405)
    for size in (1, 64 << 10, 1 << 20, 8 << 20):
        payload = request(b"POST", b"/good/config", body=b"x" * size)
        yield Attack(f"config again, {size} bytes", payload, refused)
        payload = request(b"POST", b"/good/data/../x", body=b"x" * size)
        yield Attack(f"refused path, {size} bytes", payload, refused)
        payload = request(b"POST", SENTINEL_PATH, body=b"x" * size)
        yield Attack(f"another content, {size} bytes", payload, only(400, 403))
    far = request(b"POST", b"/good/config", body=bytes(48 << 20))
    yield Attack("config again, 48 MiB", far, refused, may_be_cut=True)
    for query in (
        b"create=false", b"create=", b"create", b"create=TRUE", b"create=1", b"create=true%00",
        b"create=true&create=false", b"create=%74rue%20", b"=true", b"", b"&&&&", b"create=true;x",
        b"path=../../canary", b"create=" + b"t" * 5000, b"%zz=1", b"create=%ff", b"a=b&" * 1000,
    ):  # fmt: skip
        payload = request(b"POST", b"/lies/?" + query, body=b"")
        # Of several values the first counts, as with rest-server.
        allowed = only(200, 400) if query.startswith(b"create=true&") else only(400, 404, 405)
        yield Attack(f"create by {query[:30]!r}", payload, allowed)
    for huge in (b"%x" % (1 << 63), b"f" * 15, b"fffffffff"):
        payload = request(b"POST", FRAMED, [b"Transfer-Encoding: chunked"])
        payload += huge + b"\r\n" + INTRUDER
        name = f"a chunk of 0x{huge.decode()}"
        yield Attack(name, payload, only(400, 413, 507), half, may_be_cut=True)
