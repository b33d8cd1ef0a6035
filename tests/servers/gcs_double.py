"""Google Cloud Storage's JSON API as a client of objects needs it, from its documentation.

    with GcsDouble() as double:                  # a `double.Double`: faults, delays, calls
        double.service.account(double.url)        # what the real library signs in with

Kept are the rules that clients stand on: each value has a generation of its own; a condition on it
is checked when a value comes and when an upload ends; a checksum that does not fit is refused;
a page of a list has what it was asked for; an older generation cannot be read once it was replaced.
(https://cloud.google.com/storage/docs/json_api/v1)
"""

from __future__ import annotations

import base64
import bisect
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

import google_crc32c

from .double import Double
from .google_double import (
    GoogleService,
    Refused,
    Reply,
    Request,
    Session,
    answer,
    parts_of,
    ranged,
)

MOST_NAME = 1024
MOST_RESULTS = 1000
MOST_IN_A_BATCH = 100


@dataclass
class Object:
    """A live object."""

    name: str
    data: bytes
    generation: int
    updated: float
    metadata: dict[str, str]
    storage_class: str

    @property
    def crc32c(self) -> str:
        return crc32c(self.data)


class Bucket:
    """Objects by their names, which are kept in order."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.names: list[bytes] = []

    def put(self, made: Object) -> None:
        if made.name not in self.objects:
            bisect.insort(self.names, made.name.encode())
        self.objects[made.name] = made

    def remove(self, name: str) -> None:
        del self.objects[name]
        del self.names[bisect.bisect_left(self.names, name.encode())]


class Service(GoogleService):
    """See the module.

    Attributes:
        denied: methods of the API that the key may not use, as "objects.delete".
        rewritten: bytes that one call of rewrite copies; None for all.
        damages: how many uploads come damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buckets: dict[str, Bucket] = {}
        self.denied: set[str] = set()
        self.rewritten: int | None = None
        self.damages = 0
        self._generation = time.time_ns() // 1000
        self._rewrites = 0

    def route(self, request: Request) -> Reply:
        path = request.path
        if path == "/batch/storage/v1":
            return self._batch(request)
        if path == "/storage/v1/b":
            return self._make_bucket(request)
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", path)
        if found is None:
            raise Refused(404, "notFound", "Not Found")
        face, bucket, name = found[1], self._bucket(unquote(found[2])), found[3]
        if face == "/upload":
            return self._upload(request, bucket)
        if name is None:
            return self._list(request, bucket)
        if (rewrite := re.fullmatch(r"([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", name)) is not None:
            source, other, target = map(unquote, rewrite.groups())
            return self._rewrite(request, bucket, source, self._bucket(other), target)
        return self._object(request, bucket, unquote(name))

    def _allow(self, method: str) -> None:
        if method in self.denied:
            raise Refused(
                403, "forbidden", f"gateway@the-project does not have storage.{method} access"
            )

    # -- buckets

    def _bucket(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def _make_bucket(self, request: Request) -> Reply:
        name = str(json.loads(request.body)["name"])
        if not request.query.get("project"):
            raise Refused(400, "required", "Required parameter: project")
        self._allow("buckets.create")
        if name in self.buckets:
            raise Refused(
                409, "conflict", "Your previous request to create the named bucket succeeded and "
                "you already own it."
            )  # fmt: skip
        self.buckets[name] = Bucket()
        return answer({"kind": "storage#bucket", "name": name})

    # -- objects

    def _list(self, request: Request, bucket: Bucket) -> Reply:
        self._allow("objects.list")
        query = request.query
        prefix = query.get("prefix", "").encode()
        delimiter = query.get("delimiter", "").encode()
        most = min(int(query.get("maxResults", MOST_RESULTS)), MOST_RESULTS)
        after = base64.urlsafe_b64decode(query.get("pageToken", ""))
        at = bisect.bisect_right(bucket.names, after) if after else 0
        at = max(at, bisect.bisect_left(bucket.names, prefix))
        fields = re.search(r"items\(([^)]*)\)", query.get("fields", ""))
        wanted = fields[1].split(",") if fields else []
        items: list[dict[str, object]] = []
        prefixes: list[str] = []
        last = b""
        while at < len(bucket.names) and bucket.names[at].startswith(prefix):
            if len(items) + len(prefixes) == most:
                break
            name = bucket.names[at]
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                folder = name[: cut + len(delimiter)]
                prefixes.append(folder.decode())
                last = folder + b"\xff"  # no UTF-8 has this byte, so all beneath comes before it
                at = bisect.bisect_left(bucket.names, last)
            else:
                there = describe(bucket.objects[name.decode()])
                items.append({key: there[key] for key in there if key in wanted or not wanted})
                last = name
                at += 1
        told: dict[str, object] = {"kind": "storage#objects"}
        if items:
            told["items"] = items
        if prefixes:
            told["prefixes"] = prefixes
        if at < len(bucket.names) and bucket.names[at].startswith(prefix):
            told["nextPageToken"] = base64.urlsafe_b64encode(last).decode()
        return answer(told)

    def _object(self, request: Request, bucket: Bucket, name: str) -> Reply:
        match request.method:
            case "GET":
                self._allow("objects.get")
                there = self._there(bucket, name, request.query.get("generation"))
                if request.query.get("alt") != "media":
                    return answer(describe(there))
                return _download(request, there)
            case "DELETE":
                self._allow("objects.delete")
                self._there(bucket, name)
                _require_generation(bucket, name, request.query)
                bucket.remove(name)
                return Reply(204)
        raise Refused(405, "methodNotAllowed")

    def _there(self, bucket: Bucket, name: str, generation: str | None = None) -> Object:
        there = bucket.objects.get(name)
        if there is None or (generation is not None and int(generation) != there.generation):
            raise Refused(404, "notFound", f"No such object: {name}")
        return there

    def _rewrite(
        self, request: Request, bucket: Bucket, source: str, other: Bucket, target: str
    ) -> Reply:
        self._allow("objects.create")
        there = self._there(bucket, source)
        _require_generation(bucket, source, request.query, "ifSourceGenerationMatch")
        _require_generation(other, target, request.query)
        done = int(request.query.get("rewriteToken", "0").partition("-")[0])
        done = min(len(there.data), done + (self.rewritten or len(there.data)))
        told: dict[str, object] = {
            "kind": "storage#rewriteResponse",
            "objectSize": str(len(there.data)),
            "totalBytesRewritten": str(done),
            "done": done == len(there.data),
        }
        if done < len(there.data):
            self._rewrites += 1
            return answer(told | {"rewriteToken": f"{done}-{self._rewrites}"})
        about = json.loads(request.body or b"{}")
        made = self._make(
            other,
            target,
            there.data,
            about.get("metadata") or there.metadata,
            about.get("storageClass") or there.storage_class,
        )
        return answer(told | {"resource": describe(made)})

    # -- uploads

    def _upload(self, request: Request, bucket: Bucket) -> Reply:
        self._allow("objects.create")
        if request.query.get("uploadType") == "resumable":
            resource = json.loads(request.body or b"{}")
            resource["name"] = request.query.get("name") or resource["name"]
            resource["bucket"] = unquote(request.path.split("/")[5])
            _require_generation(bucket, _checked(resource["name"]), request.query)
            return self.begin_session(request, resource)
        resource, data = parts_of(request)
        return answer(
            describe(self._store(bucket, resource, self._maybe_damaged(data), request.query))
        )

    def finish(self, session: Session, request: Request) -> dict[str, object]:
        resource = dict(session.resource)
        bucket = self._bucket(str(resource["bucket"]))
        told = re.search(r"crc32c=([^,\s]+)", request.headers.get("x-goog-hash", ""))
        if told is not None:
            resource["crc32c"] = told[1]
        data = self._maybe_damaged(bytes(session.data))
        return describe(self._store(bucket, resource, data, session.query))

    def _maybe_damaged(self, data: bytes) -> bytes:
        if self.damages and data:
            self.damages -= 1
            return bytes([data[0] ^ 1]) + data[1:]
        return data

    def _store(
        self, bucket: Bucket, resource: Mapping[str, object], data: bytes, query: Mapping[str, str]
    ) -> Object:
        name = _checked(str(query.get("name") or resource["name"]))
        _require_generation(bucket, name, query)
        told = resource.get("crc32c")
        if told is not None and told != crc32c(data):
            raise Refused(
                400, "invalid", f'Provided CRC32C "{told}" doesn\'t match calculated CRC32C '
                f'"{crc32c(data)}".'
            )  # fmt: skip
        metadata = resource.get("metadata") or {}
        assert isinstance(metadata, dict)
        return self._make(
            bucket, name, data, metadata, str(resource.get("storageClass") or "STANDARD")
        )

    def _make(
        self, bucket: Bucket, name: str, data: bytes, metadata: dict[str, str], storage_class: str
    ) -> Object:
        self._generation += 1
        made = Object(_checked(name), data, self._generation, time.time(), metadata, storage_class)
        bucket.put(made)
        return made

    # -- many at once

    def _batch(self, request: Request) -> Reply:
        found = re.search(r'boundary="?([^";]+)"?', request.headers["content-type"])
        assert found is not None
        calls = request.body.replace(b"\r\n", b"\n").split(f"--{found[1]}".encode())[1:-1]
        if len(calls) > MOST_IN_A_BATCH:
            raise Refused(400, "badRequest", "too many calls in a batch")
        answers = []
        for call in calls:
            line = re.search(rb"^(GET|DELETE|POST|PATCH) (\S+) HTTP/1.1$", call, re.MULTILINE)
            assert line is not None
            target = re.sub(r"^https?://[^/]+", "", line[2].decode())
            path, _, query = target.partition("?")
            values = {name: each[0] for name, each in parse_qs(query).items()}
            inner = Request(line[1].decode(), path, values, request.headers, b"", request.base)
            try:
                reply = self.route(inner)
            except Refused as refusal:
                reply = refusal.reply
            answers.append(
                b"--batch_of_answers\r\nContent-Type: application/http\r\n\r\n"
                b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % (reply.status, len(reply.body)) + reply.body + b"\r\n"
            )  # fmt: skip
        body = b"".join(answers) + b"--batch_of_answers--"
        return Reply(200, {"content-type": "multipart/mixed; boundary=batch_of_answers"}, body)


class GcsDouble(Double):
    """The service on a port of loopback."""

    def __init__(self) -> None:
        self.service = Service()
        super().__init__(self.service)

    @property
    def options(self) -> dict[str, str]:
        """What a place on it, or a provider, signs in with."""
        return {
            "endpoint": self.url,
            "service_account": self.service.account(self.url),
        }


def crc32c(data: bytes) -> str:
    """Return a CRC-32C as Google writes it."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def describe(there: Object) -> dict[str, object]:
    """Return an object's resource."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(there.updated))
    stamp += f".{int(there.updated % 1 * 1000):03}Z"
    told: dict[str, object] = {
        "kind": "storage#object",
        "name": there.name,
        "generation": str(there.generation),
        "metageneration": "1",
        "size": str(len(there.data)),
        "crc32c": there.crc32c,
        "storageClass": there.storage_class,
        "timeCreated": stamp,
        "updated": stamp,
    }
    return told | ({"metadata": there.metadata} if there.metadata else {})


def _download(request: Request, there: Object) -> Reply:
    status, data, headers = ranged(there.data, request.headers.get("range"))
    headers |= {
        "content-type": "application/octet-stream",
        "x-goog-generation": str(there.generation),
        "x-goog-stored-content-length": str(len(there.data)),
        "x-goog-hash": f"crc32c={there.crc32c}",
    }
    return Reply(status, headers, data)


def _require_generation(
    bucket: Bucket, name: str, query: Mapping[str, str], condition: str = "ifGenerationMatch"
) -> None:
    wanted = query.get(condition)
    there = bucket.objects.get(name)
    if wanted is not None and int(wanted) != (there.generation if there else 0):
        raise Refused(
            412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
        )


def _checked(name: str) -> str:
    if not name or len(name.encode()) > MOST_NAME or "\r" in name or "\n" in name:
        raise Refused(400, "invalid", f"Invalid object name: {name[:60]!a}")
    if name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise Refused(400, "invalid", f"Invalid object name: {name[:60]!a}")
    return name
