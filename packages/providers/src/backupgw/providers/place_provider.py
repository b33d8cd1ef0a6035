"""A provider on a place of the kernel: what all nine have in common.

A provider maps its fields onto a `PlacePlan`: the place's URL, the backend's options. From the
standard fields come the layers around it, and everything else:

    encrypt · throttle · retry · the backend

Nothing is asked of the place before the first call, and it stays open until `close` or until
nobody has the provider any more.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import (
    BackendError,
    ObjectNotFound,
    UnsupportedOperation,
)
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.layers.stack import LayerSpec
from backupgw.kvstore.names import InvalidName, check_path
from backupgw.kvstore.registry import open_place
from backupgw.kvstore.walking import walk

from .base import BaseProvider, ProgressCallback
from .calls import Calls, CostClasses
from .fields import ConfigInvalid, unknown_fields
from .opening import Opening
from .transfers import Transfers, file_error

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, at most, unless `retry_delay` is more."""


@dataclass(frozen=True, slots=True)
class PlacePlan:
    """Where a provider's files lie, as the kernel says it.

    Attributes:
        url: of the place; holds no secret.
        options: of the backend, secrets among them.
        repeats: whether the backend itself repeats what fails for a moment, and was told how often
            and how long; otherwise a layer does.
        repeats_writes: whether it does so with the parts of an upload; otherwise the upload is
            begun anew.
        part_size: bytes up to which a file goes by one request; None where there are no parts.
    """

    url: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    repeats: bool = False
    repeats_writes: bool = False
    part_size: int | None = None


class PlaceProvider(BaseProvider):
    """A provider on a place; what is left to each is `fields` and `plan`."""

    concurrent = True
    title: ClassVar[str]
    """What people call it."""
    scheme: ClassVar[str]
    """Of the kernel's backend."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Modules that must be installed."""
    extra: ClassVar[str] = ""
    """Of backupgw-kvstore, which brings them."""
    programs: ClassVar[Mapping[str, str]] = {}
    """Programs that must be there, and how to get each."""
    credentials: ClassVar[tuple[str, str]]
    """The fields that a user's name and a password stand for."""
    processes: ClassVar[bool] = False
    """Whether several processes move many small files faster than several threads do."""
    overlap: ClassVar[int] = 1
    """Small files that a connection takes at a time: those before wait for the server's disk."""
    costs: ClassVar[CostClasses | None] = None
    """What requests to the service cost; None where it does not count any."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._errors = threading.local()
        super().__init__(config)
        for key, message in unknown_fields(self.all_fields(), self.config).items():
            self.logger.warning("%s: %s", key, message)
        if self.encryption_enabled and not self.values["encryption_key"]:
            raise ConfigInvalid(
                "encryption_key",
                "is missing: encryption_enabled needs a passphrase, or a key of age-keygen",
            )
        self.calls = Calls()
        """Requests to the service so far; none are counted where `costs` is None."""
        self._plan = self.plan()
        self.transfers = Transfers(
            attempts=1 if self._plan.repeats_writes else self.max_retries,
            first_pause=self.retry_delay,
            part_size=self._plan.part_size,
            connections=self.connection_pool_size,
        )
        self.opening = Opening(self.passphrase, create_missing=self.values["create_container"])
        """Of the place; what commands do before it is open is done through it."""

    @property
    def last_error(self) -> BaseException | None:
        """Why the last call of this thread answered False."""
        return getattr(self._errors, "last", None)

    @last_error.setter
    def last_error(self, error: BaseException | None) -> None:
        self._errors.last = error

    # -- the place

    @classmethod
    def grant(
        cls,
        config: Mapping[str, Any],  # noqa: ARG003 - for those that need one
    ) -> tuple[str, dict[str, object]]:
        """Return the URL and the options by which `backends.grants` asks for a grant.

        Raises:
            UnsupportedOperation: providers of this kind need none.
            ConfigInvalid: a field that is needed for it is missing.
        """
        raise UnsupportedOperation(f"{cls.title} needs no grant by a web page")

    def repeating(self) -> dict[str, object]:
        """Return the options of a backend that repeats what fails itself."""
        return {
            "attempts": self.max_retries,
            "first_pause": self.retry_delay,
            "deadline": patience(self.max_retries, self.timeout),
        }

    @abstractmethod
    def plan(self) -> PlacePlan:
        """Map the values of the fields onto a place. Raises ConfigInvalid."""

    def layers(self) -> list[LayerSpec]:
        """Return the layers that the standard fields ask for, outermost first."""
        layers: list[LayerSpec] = []
        if self.encryption_enabled:
            kind = "key" if self.passphrase is None else "passphrase"
            secret = self.values["encryption_key"]
            # Readable, so that a file is found by its name, and opened by age itself.
            layers.append({"layer": "encrypt", kind: secret, "names": "readable"})
        if self.max_bandwidth is not None:
            rate = self.max_bandwidth
            layers.append({"layer": "throttle", "upload": rate, "download": rate})
        if not self._plan.repeats:
            longest = max(LONGEST_PAUSE, self.retry_delay)
            layers.append(
                {
                    "layer": "retry",
                    "attempts": self.max_retries,
                    "first_pause": self.retry_delay,
                    "longest_pause": longest,
                    "deadline": patience(self.max_retries, self.timeout),
                }
            )
        return layers

    def make_place(self) -> Backend:
        """Return the place with its layers, not open. Each call makes another one.

        Raises:
            ConfigInvalid: a field has no value that the place could have.
            BackendDoesNotExist: a library that it needs is not installed.
            BackendError: its backend does not take this.
        """
        plan = self._plan
        try:
            return open_place(
                plan.url, layers=self.layers(), context=None, around=None, **plan.options
            )
        except OptionInvalid as error:
            raise ConfigInvalid(error.option, error.message) from error

    @property
    def passphrase(self) -> str | None:
        """What opens the place's own key; None where nothing does."""
        key: str = self.values["encryption_key"]
        return key if self.encryption_enabled and not is_age_key(key) else None

    @property
    def opens_early(self) -> bool:
        """Whether other processes connect before they have the key: stretching a passphrase takes
        a while, by one processor. Not where requests are billed: the files may turn out to be few.
        """
        return self.costs is None and self.passphrase is not None

    def open(self) -> Backend:
        """Return the place, open; the same one for all calls.

        Raises:
            BackendDoesNotExist: there is no such container, and it is not to be made.
            BackendError: the place cannot be opened.
        """

        def creating() -> None:
            self.logger.info("%s does not exist and is made", self.where)

        return self.opening.open(self.make_place, creating)

    @property
    def where(self) -> str:
        """What messages call the place."""
        return f"{self.title}: {self.values['container']}"

    def close(self) -> None:
        """Let go of connections; the next call opens the place again."""
        self.opening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- the interface

    def upload(
        self,
        file_path: Path | str,
        remote_name: str,
        progress_callback: ProgressCallback | None = None,
    ) -> bool:
        return self._did(
            f"upload of {remote_name}",
            lambda: self.transfers.upload(
                self.open(), Path(file_path), check_path(remote_name), progress_callback
            ),
        )

    def download(
        self,
        remote_name: str,
        local_path: Path | str,
        progress_callback: ProgressCallback | None = None,
    ) -> bool:
        return self._did(
            f"download of {remote_name}",
            lambda: self.transfers.download(
                self.open(), check_path(remote_name), Path(local_path), progress_callback
            ),
        )

    def list_files(self, prefix: str = "", max_files: int = 1000) -> list[dict[str, Any]]:
        """Return at most `max_files` of the files, sorted by name. See `BaseProvider`.

        Raises:
            BackendError: the place cannot be listed.
        """
        self.last_error = None
        found: list[dict[str, Any]] = []
        try:
            for name, info in self.files(prefix):
                if len(found) >= max_files:
                    break
                found.append({"name": name, "size": info.size, "mtime": info.mtime or None})
        except BackendError as error:
            self.last_error = error
            raise
        return sorted(found, key=lambda each: str(each["name"]))

    def files(self, prefix: str = "") -> Iterator[tuple[str, ItemInfo]]:
        """Yield every file whose name starts with `prefix`, in the place's order, as it comes.

        Raises:
            BackendError: the place cannot be listed.
        """
        folder = prefix.rpartition("/")[0]
        try:
            for found in walk(self.open(), folder):
                if not found.info.directory and found.path.startswith(prefix):
                    yield found.path, found.info
        except ObjectNotFound:
            if folder == "":
                raise  # the place itself has gone

    def delete(self, remote_name: str) -> bool:
        return self._did(
            f"delete of {remote_name}", lambda: self.open().delete(check_path(remote_name))
        )

    def test_connection(self) -> bool:
        def look() -> None:
            # Opening proves what it can; one listing proves that reading is allowed.
            next(self.open().list(""), None)

        return self._did("test", look)

    def _did(self, what: str, work: Callable[[], object]) -> bool:
        """Do it; return whether it was done, with the reason in `last_error` if it was not."""
        self.last_error = None
        try:
            work()
        except (BackendError, InvalidName) as error:
            self._failed(what, error)
        except OSError as error:
            self._failed(what, file_error(error))
        return self.last_error is None

    def _failed(self, what: str, error: BackendError | InvalidName) -> None:
        self.last_error = error
        self.logger.error("%s failed: %s", what, str(error) or type(error).__name__)


def is_age_key(text: str) -> bool:
    """Whether it is a key of age-keygen, or a file of such a key, rather than a passphrase."""
    lines = [line.strip() for line in text.splitlines()]
    return any(line.upper().startswith("AGE-SECRET-KEY-1") for line in lines)


def patience(attempts: int, timeout: float) -> float:
    """Return the seconds within which every attempt finds its time."""
    return attempts * (timeout + LONGEST_PAUSE)


def folder_in(container: str, folder: str | None) -> str:
    """Return `container/folder`, or the container where there is no folder."""
    return "/".join(filter(None, (container.strip("/"), (folder or "").strip("/"))))


def place_of(provider: BaseProvider) -> Backend:
    """Return the place of a provider with its layers, not open; for what wants more than files.

    What is done through it is done under the same credentials, encryption, bandwidth and retries.

    Raises:
        BackendError: the provider is one of somebody else's, with no place behind it.
    """
    if isinstance(provider, PlaceProvider):
        return provider.make_place()
    raise BackendError(
        f"the provider {provider.name} keeps whole files only: it has no place of the kernel"
    )
