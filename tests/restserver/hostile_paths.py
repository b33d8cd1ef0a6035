"""Hostile paths, made by combining ways to write `..`, ways to write `/`, and what they lead to.

They are also sent to servers that may fall for them: nothing that asks to write or to remove climbs
further than the test's own folder. Only reads ask for files of the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from tests.restserver.hostile_attack import REFUSED, Attack, only, request
from tests.restserver.hostile_site import OUTSIDE_BLOB, SENTINEL_ID, TYPES

INTRUDER = b"what the attacker wants to write"
INTRUDER_ID = hashlib.sha256(INTRUDER).hexdigest().encode()
OUTSIDE_ID = OUTSIDE_BLOB.encode()
GOOD_ID = SENTINEL_ID.encode()

DOTS: dict[str, bytes] = {
    "plain": b"..",
    "escaped": b"%2e%2e",
    "escaped upper case": b"%2E%2E",
    "escaped second": b".%2e",
    "escaped first": b"%2E.",
    "escaped twice": b"%252e%252e",
    "escaped thrice": b"%25252e%25252e",
    "escaped digits": b"%%32%65%%32%65",
    "overlong 2": b"%c0%ae%c0%ae",
    "overlong 3": b"%e0%80%ae%e0%80%ae",
    "overlong 4": b"%f0%80%80%ae%f0%80%80%ae",
    "overlong raw": b"\xc0\xae\xc0\xae",
    "IIS": b"%u002e%u002e",
    "full width": b"%ef%bc%8e%ef%bc%8e",
    "full width raw": "\uff0e\uff0e".encode(),
    "two-dot leader": b"%e2%80%a5",
    "one-dot leaders": b"%e2%80%a4%e2%80%a4",
    "NUL behind": b"..%00",
    "NUL before": b"%00..",
    "NUL between": b".%00.",
    "parameter": b"..;",
    "parameter with value": b"..;x=1",
    "blank behind": b"..%20",
    "blank before": b"%20..",
    "tab": b"..%09",
    "line feed": b"..%0a",
    "carriage return": b"..%0d",
    "three": b"...",
    "four": b"....",
    "one": b".",
    "nothing": b"",
    "backslash behind": b"..%5c",
    "soft hyphen": b".%c2%ad.",
    "zero-width joiner": b"..%e2%80%8d",
    "invalid UTF-8": b"..%ff",
    "surrogate": b"..%ed%a0%80",
    "colon": b"..:",
    "stream": b"..::$DATA",
    "tilde": b"~",
    "variable": b"$HOME",
}

SLASHES: dict[str, bytes] = {
    "slash": b"/",
    "escaped": b"%2f",
    "escaped upper case": b"%2F",
    "escaped twice": b"%252f",
    "backslash": b"\\",
    "escaped backslash": b"%5c",
    "overlong": b"%c0%af",
    "two": b"//",
    "with a dot": b"/./",
    "division slash": b"%e2%88%95",
}

READS = (
    b"/{up}canary",
    b"/{up}outside/config",
    b"/{up}outside/data/" + OUTSIDE_ID,
    b"/good/{up}{up}outside/data/" + OUTSIDE_ID,
    b"/good/data/{up}{up}{up}canary",
    b"/{up}store-beside/data/" + OUTSIDE_ID,
)
WRITES = (
    b"/{up}outside/data/" + INTRUDER_ID,
    b"/good/{up}{up}outside/keys/" + INTRUDER_ID,
    b"/good/data/{up}{up}{up}" + INTRUDER_ID,
    b"/{up}new/?create=true",
)
DELETES = (b"/{up}outside/data/" + OUTSIDE_ID, b"/{up}outside/config", b"/{up}canary")


def names_nothing(path: bytes) -> bool:
    """Whether no repository can have this path, by the protocol's own rules.

    Decoded exactly once and then split: an empty, `.` or `..` segment, NUL, bytes that are no
    UTF-8, a name that the kernel keeps for itself, or more than 255 bytes.
    """
    path = path.split(b"?")[0]
    decoded = unquote_to_bytes(path)
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return True
    if b"\0" in decoded:
        return True
    segments = decoded.split(b"/")[1:]
    if segments[-1] == b"":
        segments = segments[:-1]
    return any(
        segment in (b"", b".", b"..") or segment.startswith(b".backupgw") or len(segment) > 255
        for segment in segments
    )


def _climbs() -> Iterator[tuple[str, bytes]]:
    for dots_name, dots in DOTS.items():
        for slash_name, slash in SLASHES.items():
            yield f".. {dots_name}, / {slash_name}", dots + slash


def reads() -> Iterator[Attack]:
    """GET of what lies outside; each climb tries two of the targets, every target is tried."""
    for number, (name, up) in enumerate(_climbs()):
        for which in (number, number + 3):
            template = READS[which % len(READS)]
            path = template.replace(b"{up}", up)
            yield Attack(f"GET {path!r} ({name})", request(b"GET", path), REFUSED)


def writes() -> Iterator[Attack]:
    """POST to the outside; a path that is merely odd may be taken, as long as it stays inside."""
    for number, (name, up) in enumerate(_climbs()):
        path = WRITES[number % len(WRITES)].replace(b"{up}", up)
        body = b"" if path.endswith(b"create=true") else INTRUDER
        allowed = REFUSED if names_nothing(path) else REFUSED | only(200)
        payload = request(b"POST", path, body=body)
        yield Attack(f"POST {path!r} ({name})", payload, allowed)


def deletes() -> Iterator[Attack]:
    """DELETE of what lies outside; deleting what a valid path does not have is a success."""
    for number, (name, up) in enumerate(_climbs()):
        path = DELETES[number % len(DELETES)].replace(b"{up}", up)
        allowed = REFUSED if names_nothing(path) else REFUSED | only(200)
        yield Attack(f"DELETE {path!r} ({name})", request(b"DELETE", path), allowed)


def bad_ids() -> Iterator[Attack]:
    """Blobs whose names are no SHA-256 in lower case."""
    wrong = INTRUDER_ID
    ids = {
        "upper case": wrong.upper(),
        "one short": wrong[:-1],
        "one long": wrong + b"0",
        "no hex": wrong[:-1] + b"g",
        "line feed": wrong + b"%0a",
        "carriage return": wrong + b"%0d",
        "line feed in it": wrong[:32] + b"%0a" + wrong[33:],
        "NUL": wrong + b"%00",
        "NUL and more": wrong + b"%00.tmp",
        "blank": wrong + b"%20",
        "blank before": b"%20" + wrong,
        "plus": b"+" + wrong[1:],
        "minus": b"-" + wrong[1:],
        "prefix": b"0x" + wrong[2:],
        "underscore": wrong[:31] + b"_" + wrong[32:],
        "Arabic digits": b"%d9%a0" * 64,
        "full-width digits": b"%ef%bc%90" * 64,
        "full-width letter": wrong[:-1] + b"%ef%bd%81",
        "superscript": wrong[:-1] + b"%c2%b2",
        "dot": b".",
        "dots": b"..",
        "star": b"*",
        "question mark": wrong + b"%3f",
        "option": b"-rf",
        "shell": b"$(id)",
        "backtick": b"`id`",
        "suffix": wrong + b".tmp",
        "hidden": b"." + wrong,
        "folder": wrong[:2],
        "inner path": wrong[:2] + b"/" + wrong,
        "inner path escaped": wrong[:2] + b"%2f" + wrong,
        "trailing slash": wrong + b"/",
        "trailing slash escaped": wrong + b"%2f",
        "below": wrong + b"/x",
        "parameter": wrong + b";v=1",
        "reserved": b".backupgw",
        "reserved temporary": b".backupgw-tmp-" + wrong,
        "config": b"config",
        "data": b"data",
        "percent": wrong + b"%",
        "half an escape": wrong + b"%2",
        "no escape": wrong + b"%zz",
        "very long": wrong * 100,
        "invalid UTF-8": wrong[:-1] + b"%ff",
        "SQL": b"'%20OR%201=1--",
        "format": b"%25s%25n{0}",
    }
    for number, (name, blob) in enumerate(ids.items()):
        kind = TYPES[number % len(TYPES)].encode()
        for method in (b"GET", b"HEAD", b"POST", b"DELETE"):
            path = b"/good/" + kind + b"/" + blob
            body = INTRUDER if method == b"POST" else None
            yield Attack(f"{method!r} id: {name}", request(method, path, body=body), REFUSED)


def bad_names() -> Iterator[Attack]:
    """Repositories that cannot be: reserved names, types as folders, too deep, too long."""
    blob = b"data/" + INTRUDER_ID
    names = {
        "reserved": b".backupgw",
        "reserved temporary": b".backupgw-tmp",
        "reserved trash": b".backupgw-trash",
        "reserved escaped": b"%2ebackupgw",
        "reserved wholly escaped": b"".join(b"%%%02x" % c for c in b".backupgw"),
        "reserved below": b"ok/.backupgw",
        "reserved by %2f": b"ok%2f.backupgw",
        "data": b"data",
        "config": b"config",
        "locks": b"locks/x",
        "data escaped": b"%64ata",
        "keys below": b"ok/keys",
        "config below": b"ok/config",
        "three folders": b"a/b/c",
        "three folders escaped": b"a%2fb%2fc",
        "a hundred folders": b"/".join([b"a"] * 100),
        "256 bytes": b"n" * 256,
        "256 bytes in two-byte letters": b"%c3%a9" * 128,
        "4,000 bytes": b"n" * 4000,
        "two of 256": b"n" * 256 + b"/" + b"m" * 256,
        "60,000 bytes": b"n" * 60_000,
        "100,000 bytes": b"n" * 100_000,
        "escapes, 60,000 bytes": b"%2e" * 20_000,
        "thousands of climbs": b"a/../" * 5000 + b"../x",
        "thousands of slashes": b"/" * 5000 + b"x",
        "empty": b"",
        "empty before": b"/x",
        "empty between": b"x//y",
        "dot": b".",
        "dot below": b"x/.",
        "dot before": b"./x",
        "NUL": b"x%00y",
        "invalid UTF-8": b"%ff%fe",
        "half a character": b"%c3",
        "surrogate": b"%ed%a0%80",
        "beyond Unicode": b"%f4%90%80%80",
        "percent": b"%",
        "half an escape": b"x%4",
        "no escape": b"%gg",
        "IIS": b"%u0041",
    }
    for name, repo in names.items():
        cut = len(repo) > 50_000
        for method, rest, body in (
            (b"GET", blob, None),
            (b"POST", blob, INTRUDER),
            (b"POST", b"config", INTRUDER),
            (b"POST", b"?create=true", b""),
            (b"DELETE", b"config", None),
        ):
            path = b"/" + repo + b"/" + rest
            label = f"{method!r} {rest[:12]!r} in repository: {name}"
            yield Attack(label, request(method, path, body=body), REFUSED, may_be_cut=cut)


def odd_targets() -> Iterator[Attack]:
    """Request targets that are no plain path."""
    blob = b"/outside/data/" + OUTSIDE_ID
    targets = {
        "absolute, climbing": b"http://gateway/.." + blob,
        "absolute, escaped": b"http://gateway/%2e%2e" + blob,
        "absolute, another host": b"http://elsewhere.invalid/.." + blob,
        "absolute, with a login": b"http://a:b@gateway/.." + blob,
        "absolute, no path": b"http://gateway",
        "absolute, only a query": b"http://gateway?x=/../canary",
        "absolute, file": b"file:///../canary",
        "absolute, unknown scheme": b"gopher://gateway/..%2fcanary",
        "absolute, empty host": b"http:///../canary",
        "scheme-relative": b"//gateway/../canary",
        "authority": b"gateway:80",
        "star": b"*",
        "no slash": b"good/config",
        "no slash, climbing": b"../canary",
        "backslash": b"\\..\\canary",
        "drive": b"C:/canary",
        "UNC": b"\\\\host\\share",
        "query only": b"?path=../canary",
        "fragment only": b"#/../canary",
        "climb in the query": b"/good/nothing?x=/../../canary",
        "climb in the fragment": b"/nothing#/../../canary",
        "climb before a query": b"/../canary?x",
        "climb before a fragment": b"/../canary#x",
        "NUL": b"/good/config\0",
        "tab": b"/good/\tconfig",
        "vertical tab": b"/good/\x0bconfig",
        "delete": b"/good/config\x7f",
        "escape": b"/good/\x1b[31m",
        "high bytes": b"/\xff\xfe\xfd",
        "quotes": b"/\"'<>`{}|^",
        "empty": b"",
        "two blanks": b" /good/nothing",
        "blank in it": b"/good/con fig",
        "line feed": b"/good/x\n/y",
        "carriage return": b"/good/x\r/y",
    }
    allowed = REFUSED | only(421)
    for name, target in targets.items():
        for method in (b"GET", b"DELETE"):
            yield Attack(f"{method!r} target: {name}", request(method, target), allowed)
    for path in (b"etc/passwd", b"proc/self/environ", b"proc/self/root/etc/passwd"):
        for up in (b"", b"/", b"../" * 20, b"%2e%2e/" * 20, b"..%2f" * 20, b"..\\" * 20):
            target = b"/" + up + path
            yield Attack(f"GET target: {target!r}", request(b"GET", target), allowed)
