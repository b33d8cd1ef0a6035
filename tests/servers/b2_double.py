"""A double of Backblaze B2, written from its public documents, for the real SDK over HTTP.

https://www.backblaze.com/apidocs/introduction-to-the-b2-native-api

    with B2Double() as double:                    # a `double.Double`: faults, delays, calls
        backend = from_url(..., realm=double.url, key_id=KEY_ID, application_key=KEY)

Values are kept in memory.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from .double import Double, Message, Receive, Scope, Send, whole_body

KEY_ID = "0021a2b3c4d5e6f0000000001"
KEY = "K002testsecretapplicationkey01234"
ACCOUNT = "1a2b3c4d5e6f"
ALL = (
    "listBuckets", "writeBuckets", "deleteBuckets", "listFiles", "readFiles", "shareFiles",
    "writeFiles", "deleteFiles", "listKeys", "writeKeys", "deleteKeys",
)  # fmt: skip
LEAST_PART = 5_000_000
MOST_LISTED = 10_000


class Refused(Exception):
    """An error as B2 tells it."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code


@dataclass
class Version:
    """A version of a file, or a marker that hides it."""

    id: str
    name: str
    action: str
    at: int
    data: bytes = b""
    sha1: str = "none"


@dataclass
class Large:
    """A large file that is not finished."""

    id: str
    bucket: str
    name: str
    at: int
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Bucket:
    """Files by name, newest version first, and by id; and their names in order."""

    id: str
    name: str
    files: dict[str, list[Version]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    versions: dict[str, Version] = field(default_factory=dict)

    def names_from(self, first: str) -> Iterator[str]:
        """Yield the names in order, from one on."""
        for at in range(bisect.bisect_left(self.names, first), len(self.names)):
            yield self.names[at]

    def add(self, version: Version) -> None:
        if version.name not in self.files:
            self.files[version.name] = []
            bisect.insort(self.names, version.name)
        self.files[version.name].insert(0, version)
        self.versions[version.id] = version

    def drop(self, version: Version) -> None:
        versions = self.files[version.name]
        versions.remove(version)
        del self.versions[version.id]
        if not versions:
            del self.files[version.name]
            del self.names[bisect.bisect_left(self.names, version.name)]


class B2Service:
    """The application, with its switches.

    Attributes:
        url: where it is reached; set once its port is known.
        capabilities, only_bucket, prefix: what the application key is restricted to.
        storage_cap: bytes that all files may have; None for no cap.
        revoked: the key is not accepted any more, and what it was given has ended.
        least_part: bytes of a part; less than B2's where a test has no room.
    """

    def __init__(self) -> None:
        self.url = ""
        self.capabilities: tuple[str, ...] = ALL
        self.only_bucket: str | None = None
        self.prefix: str | None = None
        self.storage_cap: int | None = None
        self.revoked = False
        self.least_part = LEAST_PART
        self.buckets: dict[str, Bucket] = {}
        self.unfinished: dict[str, Large] = {}
        self.authorized = 0
        self._ids = itertools.count(1)
        self._tokens: set[str] = set()
        self._upload_tokens: dict[str, str] = {}
        self._clock = 0

    # -- what tests do

    def expire(self) -> None:
        """End every token, as a day does."""
        self._tokens.clear()
        self._upload_tokens.clear()

    def versions(self, bucket: str, name: str) -> list[str]:
        """The actions of a file's versions, newest first."""
        found = next(each for each in self.buckets.values() if each.name == bucket)
        return [version.action for version in found.files.get(name, [])]

    # -- HTTP

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            status, answer, extra = self._route(scope, headers, body)
        except Refused as error:
            status, extra = error.status, {}
            told = {"status": error.status, "code": error.code, "message": error.message}
            answer = json.dumps(told).encode()
        if scope["method"] == "HEAD" and status >= 400:
            answer = b""
        await _answer(send, status, answer, extra, head=scope["method"] == "HEAD")

    def _route(
        self, scope: Scope, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        path = scope["raw_path"].decode()
        if path.startswith("/file/"):
            self._check(headers)
            _, _, bucket, name = path.split("/", 3)
            return self._download(self._newest(self._named(bucket), _plain(name)), headers)
        _, _, version, call = path.split("/", 3)
        if version != "v4":
            raise Refused(400, "bad_request", f"Invalid version: {version}")
        if call.startswith("b2_upload_file/"):
            return 200, _json(self._upload_file(call.partition("/")[2], headers, body)), {}
        if call.startswith("b2_upload_part/"):
            return 200, _json(self._upload_part(call.partition("/")[2], headers, body)), {}
        if call == "b2_authorize_account":
            return 200, _json(self._authorize(headers)), {}
        self._check(headers)
        if call == "b2_download_file_by_id":
            wanted = unquote(scope["query_string"].decode().partition("fileId=")[2])
            return self._download(self._by_id(wanted)[1], headers)
        method: Callable[[dict[str, Any]], Any] | None = getattr(self, f"_{call}", None)
        if method is None:
            raise Refused(404, "not_found", call)
        return 200, _json(method(json.loads(body or b"{}"))), {}

    def _authorize(self, headers: dict[str, str]) -> dict[str, Any]:
        expected = base64.b64encode(f"{KEY_ID}:{KEY}".encode()).decode()
        if headers.get("authorization") != f"Basic {expected}" or self.revoked:
            raise Refused(401, "bad_auth_token" if self.revoked else "unauthorized", "Invalid key")
        token = f"4_token_{secrets.token_hex(12)}"
        self._tokens.add(token)
        self.authorized += 1
        buckets = None
        if self.only_bucket is not None:
            buckets = [
                {"id": each.id, "name": each.name}
                for each in self.buckets.values()
                if each.name == self.only_bucket
            ]
        return {
            "accountId": ACCOUNT,
            "authorizationToken": token,
            "applicationKeyExpirationTimestamp": None,
            "apiInfo": {
                "storageApi": {
                    "apiUrl": self.url,
                    "downloadUrl": self.url,
                    "s3ApiUrl": self.url,
                    "recommendedPartSize": 100_000_000,
                    "absoluteMinimumPartSize": LEAST_PART,
                    "infoType": "storageApi",
                    "allowed": {
                        "capabilities": [*self.capabilities],
                        "buckets": buckets,
                        "namePrefix": self.prefix,
                    },
                }
            },
        }

    def _check(self, headers: dict[str, str]) -> None:
        if self.revoked or headers.get("authorization") not in self._tokens:
            raise Refused(401, "expired_auth_token", "Authorization token has expired")

    def _allow(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise Refused(401, "unauthorized", "unauthorized")

    def _named(self, name: str) -> Bucket:
        for bucket in self.buckets.values():
            if bucket.name == name:
                return bucket
        raise Refused(404, "not_found", f"Bucket does not exist: {name}")

    def _bucket(self, asked: dict[str, Any]) -> Bucket:
        bucket = self.buckets.get(asked["bucketId"])
        if bucket is None:
            raise Refused(400, "bad_bucket_id", "Bucket does not exist")
        if self.only_bucket not in (None, bucket.name):
            raise Refused(401, "unauthorized", "unauthorized")
        return bucket

    def _newest(self, bucket: Bucket, name: str) -> Version:
        versions = bucket.files.get(name)
        if not versions or versions[0].action != "upload":
            raise Refused(404, "not_found", f"File with such name does not exist: {name}")
        return versions[0]

    def _by_id(self, file_id: str) -> tuple[Bucket, Version]:
        for bucket in self.buckets.values():
            if (version := bucket.versions.get(file_id)) is not None:
                return bucket, version
        raise Refused(404, "not_found", "file not present")

    def _download(
        self, version: Version, headers: dict[str, str]
    ) -> tuple[int, bytes, dict[str, str]]:
        self._allow("readFiles")
        told = {
            "x-bz-file-id": version.id,
            "x-bz-file-name": quote(version.name),
            "x-bz-content-sha1": version.sha1,
            "x-bz-upload-timestamp": str(version.at),
            "content-type": "application/octet-stream",
            "accept-ranges": "bytes",
        }
        data = version.data
        if "range" not in headers:
            return 200, data, told
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) if last else len(data), len(data) - 1)
        if start >= len(data):
            raise Refused(416, "range_not_satisfiable", "The Range is not satisfiable")
        told["content-range"] = f"bytes {start}-{end}/{len(data)}"
        return 206, data[start : end + 1], told

    def _stamp(self) -> int:
        self._clock = max(self._clock + 1, int(time.time() * 1000))
        return self._clock

    def _store(self, bucket: Bucket, name: str, data: bytes, sha1: str) -> dict[str, Any]:
        if self.prefix and not name.startswith(self.prefix):
            raise Refused(401, "unauthorized", "unauthorized")
        version = Version(self._new_id(), name, "upload", self._stamp(), data, sha1)
        bucket.add(version)
        return self._told(bucket, version)

    def _new_id(self) -> str:
        return f"4_z{next(self._ids):020}"

    def _told(self, bucket: Bucket, version: Version) -> dict[str, Any]:
        return {
            "accountId": ACCOUNT,
            "action": version.action,
            "bucketId": bucket.id,
            "contentLength": len(version.data),
            "contentSha1": version.sha1,
            "contentMd5": None,
            "contentType": "application/octet-stream",
            "fileId": version.id,
            "fileInfo": {},
            "fileName": version.name,
            "uploadTimestamp": version.at,
        }

    def _room(self, size: int) -> None:
        if self.storage_cap is None:
            return
        used = sum(
            len(version.data)
            for bucket in self.buckets.values()
            for versions in bucket.files.values()
            for version in versions
        ) + sum(len(part) for large in self.unfinished.values() for part in large.parts.values())
        if used + size > self.storage_cap:
            raise Refused(403, "storage_cap_exceeded", "Cannot upload files, storage cap exceeded.")

    # -- uploads

    def _upload_file(self, where: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        bucket = self.buckets[self._upload_token(where, headers)]
        self._allow("writeFiles")
        _same(headers, body)
        self._room(len(body))
        return self._store(bucket, _plain(headers["x-bz-file-name"]), body, _sha1(body))

    def _upload_part(self, where: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        large = self._unfinished(self._upload_token(where, headers))
        _same(headers, body)
        self._room(len(body))
        large.parts[int(headers["x-bz-part-number"])] = body
        return {
            "fileId": large.id,
            "partNumber": int(headers["x-bz-part-number"]),
            "contentLength": len(body),
            "contentSha1": _sha1(body),
        }

    def _upload_token(self, where: str, headers: dict[str, str]) -> str:
        target = self._upload_tokens.get(headers.get("authorization", ""))
        if target is None or target != where or self.revoked:
            raise Refused(401, "expired_auth_token", "Authorization token has expired")
        return target

    def _upload_url(self, call: str, target: str) -> dict[str, Any]:
        token = f"4_upload_{secrets.token_hex(12)}"
        self._upload_tokens[token] = target
        return {
            "bucketId": target,
            "fileId": target,
            "uploadUrl": f"{self.url}/b2api/v4/{call}/{target}",
            "authorizationToken": token,
        }

    def _b2_get_upload_url(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        return self._upload_url("b2_upload_file", self._bucket(asked).id)

    def _b2_get_upload_part_url(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        return self._upload_url("b2_upload_part", self._unfinished(asked["fileId"]).id)

    def _unfinished(self, file_id: str) -> Large:
        if file_id not in self.unfinished:
            raise Refused(400, "bad_request", f"No active upload for: {file_id}")
        return self.unfinished[file_id]

    def _b2_list_parts(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        large = self._unfinished(asked["fileId"])
        start, most = asked.get("startPartNumber") or 1, asked.get("maxPartCount") or 1000
        numbers = sorted(number for number in large.parts if number >= start)
        return {
            "parts": [
                {"fileId": large.id, "partNumber": number, "uploadTimestamp": large.at,
                 "contentLength": len(large.parts[number]),
                 "contentSha1": _sha1(large.parts[number])}
                for number in numbers[:most]
            ],
            "nextPartNumber": numbers[most] if len(numbers) > most else None,
        }  # fmt: skip

    def _b2_start_large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        bucket = self._bucket(asked)
        large = Large(self._new_id(), bucket.id, asked["fileName"], self._stamp())
        self.unfinished[large.id] = large
        return {"fileId": large.id, "fileName": large.name, "uploadTimestamp": large.at}

    def _b2_finish_large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        large = self._unfinished(asked["fileId"])
        wanted = asked["partSha1Array"]
        parts = [large.parts.get(number) for number in range(1, len(wanted) + 1)]
        for number, (part, sha1) in enumerate(zip(parts, wanted, strict=True), 1):
            if part is None:
                raise Refused(400, "missing_part", f"{number}")
            if _sha1(part) != sha1:
                raise Refused(400, "part_sha1_mismatch", f"{number}")
            if number < len(wanted) and len(part) < self.least_part:
                raise Refused(400, "bad_request", f"part number {number} is too small")
        if len(wanted) != len(large.parts) or not wanted:
            raise Refused(400, "bad_request", "the number of parts differs")
        del self.unfinished[large.id]
        bucket = self.buckets[large.bucket]
        data = b"".join(part for part in parts if part is not None)
        version = Version(large.id, large.name, "upload", self._stamp(), data)
        bucket.add(version)
        return self._told(bucket, version)

    def _b2_cancel_large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        large = self._unfinished(asked["fileId"])
        del self.unfinished[large.id]
        return {"fileId": large.id, "fileName": large.name, "accountId": ACCOUNT,
                "bucketId": large.bucket}  # fmt: skip

    def _b2_copy_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        bucket, source = self._by_id(asked["sourceFileId"])
        self._room(len(source.data))
        return self._store(bucket, asked["fileName"], source.data, source.sha1)

    def _b2_copy_part(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        _, source = self._by_id(asked["sourceFileId"])
        large = self._unfinished(asked["largeFileId"])
        first, last = map(int, asked["range"].removeprefix("bytes=").split("-"))
        part = source.data[first : last + 1]
        self._room(len(part))
        large.parts[asked["partNumber"]] = part
        return {"fileId": large.id, "partNumber": asked["partNumber"], "contentSha1": _sha1(part)}

    # -- looking and removing

    def _b2_list_buckets(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("listBuckets")
        if self.only_bucket is not None and asked.get("bucketName") != self.only_bucket:
            raise Refused(401, "unauthorized", "unauthorized")
        wanted = asked.get("bucketName")
        return {
            "buckets": [
                {"accountId": ACCOUNT, "bucketId": each.id, "bucketName": each.name,
                 "bucketType": "allPrivate", "lifecycleRules": [], "revision": 1}
                for each in self.buckets.values()
                if wanted in (None, each.name)
            ]
        }  # fmt: skip

    def _b2_create_bucket(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeBuckets")
        name = asked["bucketName"]
        if any(each.name == name for each in self.buckets.values()):
            raise Refused(400, "duplicate_bucket_name", "Bucket name is already in use.")
        bucket = Bucket(f"e{next(self._ids):023}", name)
        self.buckets[bucket.id] = bucket
        return {"bucketId": bucket.id, "bucketName": name, "accountId": ACCOUNT}

    def _b2_delete_bucket(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("deleteBuckets")
        bucket = self._bucket(asked)
        if bucket.names:
            raise Refused(400, "cannot_delete_non_empty_bucket")
        del self.buckets[bucket.id]
        return {"bucketId": bucket.id, "bucketName": bucket.name, "accountId": ACCOUNT}

    def _b2_list_file_names(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("listFiles")
        bucket = self._bucket(asked)
        prefix, start = asked.get("prefix") or "", asked.get("startFileName") or ""
        most = min(asked.get("maxFileCount") or 100, MOST_LISTED)
        files: list[dict[str, Any]] = []
        for name in bucket.names_from(max(prefix, start)):
            if not name.startswith(prefix):
                break
            if bucket.files[name][0].action != "upload":
                continue
            if len(files) == most:
                return {"files": files, "nextFileName": name}
            files.append(self._told(bucket, bucket.files[name][0]))
        return {"files": files, "nextFileName": None}

    def _b2_list_file_versions(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("listFiles")
        bucket = self._bucket(asked)
        prefix, start = asked.get("prefix") or "", asked.get("startFileName") or ""
        start_id = asked.get("startFileId")
        most = min(asked.get("maxFileCount") or 100, MOST_LISTED)
        files: list[dict[str, Any]] = []
        for name in bucket.names_from(max(prefix, start)):
            if not name.startswith(prefix):
                break
            for version in bucket.files[name]:
                if start_id is not None and name == start and version.id != start_id:
                    continue
                start_id = None
                if len(files) == most:
                    return {"files": files, "nextFileName": name, "nextFileId": version.id}
                files.append(self._told(bucket, version))
        return {"files": files, "nextFileName": None, "nextFileId": None}

    def _b2_list_unfinished_large_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("listFiles")
        bucket = self._bucket(asked)
        prefix = asked.get("namePrefix") or ""
        return {
            "files": [
                {"fileId": each.id, "fileName": each.name, "uploadTimestamp": each.at,
                 "accountId": ACCOUNT, "bucketId": each.bucket, "action": "start"}
                for each in self.unfinished.values()
                if each.bucket == bucket.id and each.name.startswith(prefix)
            ],
            "nextFileId": None,
        }  # fmt: skip

    def _b2_get_file_info(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("readFiles")
        if asked["fileId"] in self.unfinished:
            large = self.unfinished[asked["fileId"]]
            return {"fileId": large.id, "fileName": large.name, "action": "start"}
        return self._told(*self._by_id(asked["fileId"]))

    def _b2_hide_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("writeFiles")
        bucket = self._bucket(asked)
        versions = bucket.files.get(asked["fileName"])
        if not versions:
            raise Refused(400, "no_such_file", f"File not present: {asked['fileName']}")
        if versions[0].action == "hide":
            raise Refused(400, "already_hidden", f"File already hidden: {asked['fileName']}")
        marker = Version(self._new_id(), asked["fileName"], "hide", self._stamp())
        bucket.add(marker)
        return self._told(bucket, marker)

    def _b2_delete_file_version(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._allow("deleteFiles")
        for bucket in self.buckets.values():
            for version in bucket.files.get(asked["fileName"], []):
                if version.id == asked["fileId"]:
                    bucket.drop(version)
                    return {"fileId": version.id, "fileName": version.name}
        raise Refused(400, "file_not_present", "File not present")


def _plain(name: str) -> str:
    return unquote(name.replace("+", " "))


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _same(headers: dict[str, str], body: bytes) -> None:
    if len(body) != int(headers["content-length"]):
        raise Refused(400, "bad_request", "body is shorter than its length")
    if _sha1(body) != headers["x-bz-content-sha1"]:
        raise Refused(400, "bad_request", "Sha1 did not match data received")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


async def _answer(
    send: Send, status: int, body: bytes, extra: dict[str, str], *, head: bool
) -> None:
    headers = {"content-type": "application/json", **extra, "content-length": str(len(body))}
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }
    await send(start)
    step = 1 << 16
    for at in range(0, 0 if head else len(body), step):
        await send({"type": "http.response.body", "body": body[at : at + step], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def error_answer(status: int) -> tuple[str, bytes]:
    """What a 429 or 503 of `Double` carries here."""
    code = {429: "too_many_requests", 503: "service_unavailable"}[status]
    told = {"status": status, "code": code, "message": "try again later"}
    return "application/json", json.dumps(told).encode()


class B2Double(Double):
    """The service on a port of loopback."""

    def __init__(self) -> None:
        self.service = B2Service()
        super().__init__(self.service)

    def start(self) -> None:
        super().start()
        self.service.url = self.url
