"""A double of Pelican's Panel: what it asks of a node, and what it takes from one.

Written from the Panel's routes (api-remote.php, its BackupRemoteUploadController and
BackupStatusController, DaemonBackupRepository and InitiateBackupService):

- It creates a backup inside a transaction: the row can be seen by the node's own calls only after
  the node has answered, and is gone if the node refused.
- It takes an answer other than 2xx for the node's only if its User-Agent is Wings'; else the node
  counts as away. A 404 to a delete is fine.
- It gives a node 15 seconds to answer, 5 to connect.
- A backup is reported once; a success needs checksum, type and size. Parts are put together by it,
  in the bucket that it alone has the keys of.

The node's side is real HTTP, and so is what it sends (`httpx` in the test's process).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import jwt

from .double import Double, Receive, Scope, Send, whole_body

if TYPE_CHECKING:
    from .s3 import S3Server

TOKEN_ID = "w0Jq7M2nV4xT8yZa"
TOKEN = "JUvDzJ0Yqk3cB5TnGm8LrWq2HsXa9EfPdKo4iVbMlZt1NyQuRg7wSpCxAe6OhIjF"
TIMEOUT = httpx.Timeout(15.0, connect=5.0)
WAIT = 120.0
"""Seconds that a test waits for a report, on a loaded machine."""


class NodeUnreachable(Exception):
    """The node did not answer as Wings does: the Panel shows "could not connect"."""


class NodeRefused(Exception):
    """The node answered with an error of its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass
class Server:
    """A server of the node."""

    uuid: str
    settings: dict[str, Any] = field(default_factory=dict)
    process_configuration: dict[str, Any] = field(default_factory=dict)


@dataclass
class Backup:
    """A row of the Panel's table.

    Attributes:
        early: answers of 404 left to be given though the row is there (a transaction that takes
            longer than its call).
        hidden: the transaction is not over.
        completed: seconds since 1970 of the report; None: pending.
        reports: what was reported, in order, refused reports too.
    """

    uuid: str
    server: str
    adapter: str
    ignore: str = ""
    node: str = TOKEN_ID
    early: int = 0
    hidden: bool = True
    completed: float | None = None
    successful: bool = False
    checksum: str = ""
    size: int = 0
    upload_id: str | None = None
    restoring: bool = False
    reports: list[dict[str, Any]] = field(default_factory=list)
    restores: list[bool] = field(default_factory=list)


class _Refusal(Exception):
    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class Panel(Double):
    """The Panel of one node. A context manager.

    Args:
        s3: where archives of the adapter `s3` go; needs `bucket` to be there.
        part_size: bytes of a part; S3 takes no less than 5 MiB but for the last.

    Attributes:
        node: address of the node.
        servers, backups: the tables, by uuid.
        resets: how often the node said that it has started.
    """

    def __init__(
        self, *, s3: S3Server | None = None, bucket: str = "panel", part_size: int = 5 << 20
    ) -> None:
        super().__init__(self._answer_request)
        self.node = ""
        self.servers: dict[str, Server] = {}
        self.backups: dict[str, Backup] = {}
        self.resets = 0
        self.page_size = 50
        self.s3 = s3
        self.bucket = bucket
        self.part_size = part_size
        self._changed = threading.Condition()

    # -- what people do in the Panel

    def add_server(self, server: str | None = None, **settings: Any) -> str:
        """Install a server on the node; return its uuid."""
        found = server or str(uuid.uuid4())
        self.servers[found] = Server(found, {"uuid": found, **settings}, {"stop": {}})
        return found

    def create_backup(
        self,
        server: str,
        *,
        adapter: str = "restic",
        ignore: str = "",
        early: int = 0,
        backup: str | None = None,
    ) -> Backup:
        """Press "Create backup".

        Raises:
            NodeRefused, NodeUnreachable: and the row is gone again.
        """
        row = Backup(backup or str(uuid.uuid4()), server, adapter, ignore, early=early)
        self.backups[row.uuid] = row
        try:
            self._call(
                "POST",
                f"/api/servers/{server}/backup",
                {"adapter": adapter, "uuid": row.uuid, "ignore": ignore},
            )
        except Exception:
            del self.backups[row.uuid]
            raise
        with self._changed:
            row.hidden = False
            self._changed.notify_all()
        return row

    def restore_backup(
        self,
        row: Backup,
        *,
        server: str | None = None,
        truncate: bool = False,
        download_url: str | None = None,
        **more: Any,
    ) -> None:
        """Press "Restore". Raises NodeRefused, NodeUnreachable."""
        if row.adapter == "s3" and download_url is None:
            download_url = self._signed_download(row)
        with self._changed:
            row.restoring = True
        body = {"adapter": row.adapter, "truncate_directory": truncate, **more}
        body["download_url"] = download_url
        try:
            path = f"/api/servers/{server or row.server}/backup/{row.uuid}/restore"
            self._call("POST", path, body)
        except Exception:
            with self._changed:
                row.restoring = False
            raise

    def delete_backup(self, row: Backup) -> None:
        """Press "Delete": without a body, and a 404 is as good. Raises as `create_backup`.

        A backup that is not complete is gone from the Panel whatever the node says
        (DeleteBackupService).
        """
        try:
            self._call("DELETE", f"/api/servers/{row.server}/backup/{row.uuid}")
        except NodeRefused as refused:
            if refused.status != 404 and row.successful:
                raise
        self.backups.pop(row.uuid, None)

    def download_url(self, row: Backup, **claims: Any) -> str:
        """Press "Download": an address on the node, good once, for five minutes."""
        now = int(time.time())
        payload = {
            "iss": self.url,
            "aud": [self.node],
            "jti": hashlib.sha256(f"1{row.server}".encode()).hexdigest()[:32],
            "iat": now,
            "nbf": now - 300,
            "exp": now + 300,
            "scope": "backup-download",
            "backup_uuid": row.uuid,
            "server_uuid": row.server,
            "unique_id": uuid.uuid4().hex[:16],
            **claims,
        }
        token = jwt.encode(payload, TOKEN, "HS256")
        return f"{self.node}/download/backup?token={token}"

    def wait_for_backup(self, row: Backup, timeout: float = WAIT) -> bool:
        """Return whether a backup was reported successful.

        Raises:
            TimeoutError: it is pending after `timeout` seconds.
        """
        self._wait(lambda: row.completed is not None, f"backup {row.uuid} is pending", timeout)
        return row.successful

    def wait_for_restore(self, row: Backup, count: int = 1, timeout: float = WAIT) -> bool:
        """Return whether the restore of that number was reported successful. Raises as above."""
        self._wait(lambda: len(row.restores) >= count, "the restore is pending", timeout)
        return row.restores[count - 1]

    @property
    def pending(self) -> list[Backup]:
        """Backups that nobody has reported."""
        return [row for row in self.backups.values() if row.completed is None]

    def _wait(self, done: Callable[[], bool], what: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(done, timeout):
                raise TimeoutError(f"{what} after {timeout:g} seconds")

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {TOKEN}", "accept": "application/json"}
        try:
            with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
                answer = client.request(method, self.node + path, headers=headers, json=body)
        except httpx.HTTPError as error:
            raise NodeUnreachable(str(error)) from error
        if answer.is_success:
            return answer
        agent = answer.headers.get("user-agent", "")
        if not agent.startswith("Pelican Wings/v") or not agent.endswith(f"(id:{TOKEN_ID})"):
            raise NodeUnreachable(f"{answer.status_code} from somebody who is not Wings: {agent!r}")
        raise NodeRefused(answer.status_code, answer.text)

    # -- what the node asks

    async def _answer_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if "json" not in headers.get("accept", ""):
                # Laravel sends browsers away; a node that asks like one learns nothing.
                raise _Refusal(302, "Redirect", "it asked for a page")
            self._authenticate(headers.get("authorization"))
            status, answer = self._route(scope, body)
        except _Refusal as refusal:
            status = refusal.status
            detail = {"code": refusal.code, "status": str(status), "detail": str(refusal)}
            answer = {"errors": [detail]}
        content = b"" if answer is None else json.dumps(answer).encode()
        found = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        if status == 302:
            found.append((b"location", self.url.encode()))
        await send({"type": "http.response.start", "status": status, "headers": found})
        await send({"type": "http.response.body", "body": content})

    def _authenticate(self, given: str | None) -> None:
        if given is None:
            raise _Refusal(401, "HttpException", "Access to this endpoint must include a token.")
        kind, _, token = given.partition(" ")
        identity, dot, secret = token.partition(".")
        if kind != "Bearer" or not dot or not identity or not secret:
            raise _Refusal(400, "BadRequestHttpException", "The token is not of a valid format.")
        if (identity, secret) != (TOKEN_ID, TOKEN):
            raise _Refusal(403, "AccessDeniedHttpException", "You are not allowed to access this.")

    def _route(self, scope: Scope, body: bytes) -> tuple[int, Any]:
        parts = scope["path"].removeprefix("/api/remote/").split("/")
        query = parse_qs(scope["query_string"].decode())
        match (scope["method"], parts):
            case ("GET", ["servers"]):
                return 200, self._list(query)
            case ("POST", ["servers", "reset"]):
                with self._changed:
                    self.resets += 1
                    self._changed.notify_all()
                return 204, None
            case ("GET", ["servers", server]):
                return 200, self._described(self._installed(server))
            case ("GET", ["backups", backup]):
                return 200, self._begin_upload(self._backup(backup), query)
            case ("POST", ["backups", backup]):
                row = self._backup(backup)
                with self._changed:
                    self._report(row, _object(body))
                    self._changed.notify_all()
                return 204, None
            case ("POST", ["backups", backup, "restore"]):
                row = self._backup(backup)
                with self._changed:
                    self._report_restore(row, _object(body))
                    self._changed.notify_all()
                return 204, None
            case ("POST", ["activity"]):
                return 200, []
        raise _Refusal(404, "NotFoundHttpException", "The route could not be found.")

    def _list(self, query: Mapping[str, list[str]]) -> Any:
        page = int(query.get("page", ["0"])[0]) or 1
        size = int(query.get("per_page", [str(self.page_size)])[0])
        rows = sorted(self.servers.values(), key=lambda row: row.uuid)
        return {
            "data": [
                {"uuid": row.uuid, **self._described(row)}
                for row in rows[(page - 1) * size : page * size]
            ],
            "meta": {
                "current_page": page,
                "last_page": max(1, -(-len(rows) // size)),
                "per_page": size,
                "total": len(rows),
            },
        }

    def _described(self, row: Server) -> dict[str, Any]:
        return {
            "settings": row.settings,
            "process_configuration": row.process_configuration,
        }

    def _installed(self, server: str) -> Server:
        if server not in self.servers:
            raise _Refusal(404, "NotFoundHttpException", "The server does not exist.")
        return self.servers[server]

    def _backup(self, backup: str) -> Backup:
        row = self.backups.get(backup)
        if row is None or row.hidden:
            raise _Refusal(404, "NotFoundHttpException", "The backup does not exist.")
        if row.early > 0:
            row.early -= 1
            raise _Refusal(404, "NotFoundHttpException", "The backup does not exist.")
        if row.node != TOKEN_ID:
            raise _Refusal(403, "HttpForbiddenException", "The node cannot access that backup.")
        return row

    def _report(self, row: Backup, body: dict[str, Any]) -> None:
        row.reports.append(body)
        successful = body.get("successful")
        if not isinstance(successful, bool):
            raise _invalid("The successful field must be true or false.")
        if successful:
            for name, kinds in (("checksum", str), ("checksum_type", str), ("size", (int, float))):
                if not isinstance(body.get(name), kinds) or body[name] == "":
                    raise _invalid(f"The {name} field is required when successful is true.")
        parts = body.get("parts")
        if parts is not None:
            if not isinstance(parts, list):
                raise _invalid("The parts field must be an array.")
            for part in parts:
                if not isinstance(part, dict) or not part.get("etag"):
                    raise _invalid("The parts.0.etag field is required.")
                if not isinstance(part.get("part_number"), int):
                    raise _invalid("The parts.0.part_number field is required.")
        if row.successful:
            raise _Refusal(
                400, "BadRequestHttpException", "Cannot update the status of a completed backup."
            )
        if row.adapter == "s3":
            self._end_upload(row, parts if successful else None, successful=successful)
        row.successful = successful
        row.checksum = f"{body['checksum_type']}:{body['checksum']}" if successful else ""
        row.size = int(body["size"]) if successful else 0
        row.completed = time.time()

    def _report_restore(self, row: Backup, body: dict[str, Any]) -> None:
        if not isinstance(body.get("successful"), bool):
            raise _invalid("The successful field is required.")
        row.restoring = False
        row.restores.append(body["successful"])

    # -- the bucket

    def _begin_upload(self, row: Backup, query: Mapping[str, list[str]]) -> Any:
        size = int(query.get("size", ["0"])[0] or 0)
        if size <= 0:
            raise _Refusal(400, "BadRequestHttpException", 'A non-empty "size" is needed.')
        if row.completed is not None:
            raise _Refusal(409, "ConflictHttpException", "This backup is already complete.")
        if row.adapter != "s3" or self.s3 is None:
            raise _Refusal(400, "BadRequestHttpException", "The adapter must be S3 compatible.")
        client = self.s3.client()
        key = self.key(row)
        begun = client.create_multipart_upload(
            Bucket=self.bucket, Key=key, ContentType="application/x-gzip"
        )
        row.upload_id = begun["UploadId"]
        urls = [
            client.generate_presigned_url(
                "upload_part",
                Params={
                    "Bucket": self.bucket,
                    "Key": key,
                    "UploadId": row.upload_id,
                    "PartNumber": number,
                },
                ExpiresIn=3600,
            )
            for number in range(1, -(-size // self.part_size) + 1)
        ]
        return {"parts": urls, "part_size": self.part_size}

    def _end_upload(self, row: Backup, parts: Any, *, successful: bool) -> None:
        assert self.s3 is not None
        if row.upload_id is None:
            if successful:
                raise _Refusal(500, "DisplayException", "There is no upload in parts.")
            return
        client = self.s3.client()
        key = self.key(row)
        if not successful:
            client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=row.upload_id)
            return
        client.complete_multipart_upload(
            Bucket=self.bucket,
            Key=key,
            UploadId=row.upload_id,
            MultipartUpload={
                "Parts": [
                    {"ETag": part["etag"], "PartNumber": part["part_number"]}
                    for part in parts or []
                ]
            },
        )

    def key(self, row: Backup) -> str:
        """Where a backup lies in the bucket."""
        return f"{row.server}/{row.uuid}.tar.gz"

    def _signed_download(self, row: Backup) -> str:
        assert self.s3 is not None
        return self.s3.client().generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": self.key(row)}, ExpiresIn=300
        )


def _invalid(detail: str) -> _Refusal:
    return _Refusal(422, "ValidationException", detail)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
