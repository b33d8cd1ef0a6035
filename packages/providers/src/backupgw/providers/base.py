"""What a provider is: the interface of the HOMESERVER backup system's guide.

Five calls on a place for whole files. Three of them answer True or False, as the guide has it, and
what made them fail is in `last_error`; none of ours answers True before the place has acknowledged
everything. `list_files` raises, so that "nothing there" and "could not look" differ.

A provider written by the guide needs nothing from here but `BaseProvider`:

    from backupgw.providers.base import BaseProvider

    class NewProvider(BaseProvider):
        ...
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from .fields import STANDARD, Field, checked

ProgressCallback = Callable[[int, int], Any]
"""Called with bytes that are done and bytes in all, from the thread that made the call."""


class BaseProvider(ABC):
    """A place where whole files are kept under a name.

    Args:
        config: the fields of STANDARD, and the provider's own.

    Attributes:
        name: the class's name without "Provider", in lower case. What a registry calls it may
            differ: `aws_s3` is AWSS3Provider, whose name is `awss3`.
        config: as it was given.
        logger: `backupgw.providers.NAME`.
        last_error: why the last call answered False; None after one that answered True.
        max_retries: how often something is tried, the first time included.
        retry_delay: seconds until the second attempt, doubled for each one after it.
        timeout: seconds.
        max_bandwidth: bytes per second, a timetable, or None.
        upload_chunk_size: bytes.
        connection_pool_size: connections.
        encryption_enabled: whether files are to be encrypted.

    Raises:
        ConfigInvalid: a field has no possible value, or is missing.
    """

    concurrent: ClassVar[bool] = False
    """Whether several threads may use one object at a time."""
    fields: ClassVar[tuple[Field, ...]] = ()
    """Fields beside those of STANDARD; one of the same name replaces it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config: dict[str, Any] = dict(config)
        self.name = type(self).__name__.removesuffix("Provider").lower()
        self.logger = logging.getLogger(f"backupgw.providers.{self.name}")
        self.last_error: BaseException | None = None
        self.values = checked(self.all_fields(), self.config)
        """Every field's value, checked, defaults included."""
        self.max_retries: int = self.values["max_retries"]
        self.retry_delay: float = self.values["retry_delay"]
        self.timeout: float = self.values["timeout"]
        self.max_bandwidth: Any = self.values["max_bandwidth"]
        self.upload_chunk_size: int = self.values["upload_chunk_size"]
        self.connection_pool_size: int = self.values["connection_pool_size"]
        self.encryption_enabled: bool = self.values["encryption_enabled"]

    @classmethod
    def all_fields(cls) -> tuple[Field, ...]:
        """Return the provider's fields, those of STANDARD first."""
        own = {field.name: field for field in cls.fields}
        kept = [own.pop(field.name, field) for field in STANDARD]
        return (*kept, *own.values())

    @abstractmethod
    def upload(
        self,
        file_path: Path,
        remote_name: str,
        progress_callback: ProgressCallback | None = None,
    ) -> bool:
        """Store a file under a name, replacing what is there.

        Returns:
            True when the place has acknowledged all of it; False when nothing was stored, with
            the reason in `last_error`.
        """

    @abstractmethod
    def download(
        self,
        remote_name: str,
        local_path: Path,
        progress_callback: ProgressCallback | None = None,
    ) -> bool:
        """Fetch a file, replacing what is at `local_path`.

        Returns:
            True when the file is there, whole; False when `local_path` is as it was, with the
            reason in `last_error`.
        """

    @abstractmethod
    def list_files(self, prefix: str = "", max_files: int = 1000) -> list[dict[str, Any]]:
        """Return what is there whose name starts with `prefix`: name, size (bytes), mtime (seconds
        since the epoch, None where the place does not tell).

        Raises:
            Exception: it could not be found out. Ours raise BackendErrors.
        """

    @abstractmethod
    def delete(self, remote_name: str) -> bool:
        """Remove a file. False, with the reason in `last_error`, when it was not there, too."""

    @abstractmethod
    def test_connection(self) -> bool:
        """Whether the place answers, lets us in, and has the container."""

    def close(self) -> None:  # noqa: B027 - a provider may have nothing to let go of
        """Let go of connections. Not needed by who keeps a provider to the end of the program."""
