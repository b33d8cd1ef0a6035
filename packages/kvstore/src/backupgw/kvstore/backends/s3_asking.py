"""How a bucket is asked: the short way or the library's, what becomes of errors, and what objects
get with every request that writes one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from . import s3_direct
from .s3_client import connect
from .s3_direct import Direct
from .s3_errors import TRANSLATED, translate
from .s3_records import MARK
from .s3_settings import Settings
from .s3_told import NotDirect

if TYPE_CHECKING:
    from botocore.session import Session
    from types_boto3_s3 import S3Client

T = TypeVar("T")


class Asking:
    """One bucket, as it is asked. Safe for threads.

    Args:
        settings: where and how.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._made: tuple[S3Client, Session] | None = None
        self._short: Direct | None = None
        self._lock = threading.Lock()
        self._customer: dict[str, Any] = {}
        self._source_customer: dict[str, Any] = {}
        if (key := settings.sse_customer_key) is not None:
            self._customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
            self._source_customer = {
                "CopySourceSSECustomerAlgorithm": "AES256",
                "CopySourceSSECustomerKey": key,
            }

    @property
    def _client(self) -> S3Client:
        return self._connected[0]

    @property
    def _connected(self) -> tuple[S3Client, Session]:
        if self._made is None:
            self._made = connect(self._settings)
        return self._made

    def prepare_fork(self) -> None:
        """Make what asks; nothing is asked. Raises BackendError."""
        _ = self._connected

    def close(self) -> None:
        """Let go of the connections; the next request makes new ones."""
        with self._lock:
            short, self._short = self._short, None
        if short is not None:
            short.close()
        if self._made is not None:
            self._client.close()  # the client stays: it takes megabytes and a while to make

    def _directly(self, what: str, request: Callable[[Direct], T]) -> T:
        """Make a request the short way. Raises NotDirect where there is none."""
        try:
            with self._lock:
                if self._short is None:
                    client, session = self._connected
                    self._short = s3_direct.of_client(self._settings, session, client)
                short = self._short
            if short is None:
                raise NotDirect
            return request(short)
        except TRANSLATED as error:
            raise translate(error, what, self._settings.server) from error

    def _do(self, what: str, request: Callable[[S3Client], T]) -> T:
        try:
            return request(self._client)
        except TRANSLATED as error:
            raise translate(error, what, self._settings.server) from error

    # -- what objects get

    @property
    def _locks(self) -> bool:
        return self._settings.retention is not None

    def _kind(self, *, plain: bool, mark: str | None) -> dict[str, Any]:
        settings = self._settings
        kind: dict[str, Any] = {
            "Metadata": {} if mark is None else {MARK: mark},
            **self._customer,
        }
        if settings.sse is not None:
            kind["ServerSideEncryption"] = settings.sse
        if settings.sse_kms_key is not None:
            kind["SSEKMSKeyId"] = settings.sse_kms_key
        if plain:
            return kind
        if settings.storage_class is not None:
            kind["StorageClass"] = settings.storage_class
        if settings.retention is not None:
            kind["ObjectLockMode"] = settings.lock_mode
            kind["ObjectLockRetainUntilDate"] = self._retained_until(settings.retention)
        return kind

    def _written(self, *, plain: bool, mark: str | None, if_absent: bool) -> dict[str, str]:
        """Return what `_kind` says, as headers; without customer's keys and locks."""
        settings = self._settings
        headers = {
            f"x-amz-meta-{MARK}": mark,
            "x-amz-server-side-encryption": settings.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": settings.sse_kms_key,
            "x-amz-storage-class": None if plain else settings.storage_class,
            "if-none-match": "*" if if_absent else None,
        }
        return {name: value for name, value in headers.items() if value is not None}

    @staticmethod
    def _retained_until(retention: float) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=retention)
