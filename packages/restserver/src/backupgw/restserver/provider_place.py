"""A StorageProvider as a place: what was written for pyrestserver, served unchanged.

    [places.mine]
    url = "provider:mypackage.storage:MyProvider"
    account = "an argument of MyProvider, as all that is not below"

    entry point:  mine = "mypackage.storage:from_url",  where from_url returns ProviderPlace(…)

A provider moves whole values and need not be thread-safe: values have a largest size, and one call
runs at a time, unless told otherwise. It cannot say more than its interface does: moving, removing
folders and listing repositories are not among it, nor is when something was changed.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Any, NamedTuple, Protocol

from backupgw.kvstore.backends.adapted import LARGEST, ValueReader, WholeWriter
from backupgw.kvstore.backends.base import Backend, Capabilities, ItemInfo, Reader, Writer
from backupgw.kvstore.backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.layers import options
from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.names import InvalidName, check_folder, check_path

from .paths import TYPES

_Packs = dict[str, list[ItemInfo]]

WRITTEN = "provider:MODULE:CLASS"


class Provider(Protocol):
    """The methods that are used: `storage_provider.StorageProvider`'s, whosever class it is."""

    def config_exists(self, repo_path: str) -> tuple[bool, int]: ...
    def create_repository(self, repo_path: str) -> bool: ...
    def get_config(self, repo_path: str) -> bytes | None: ...
    def save_config(self, repo_path: str, data: bytes) -> bool: ...
    def list_blobs(self, repo_path: str, blob_type: str) -> list[dict[str, Any]] | None: ...
    def blob_exists(self, repo_path: str, blob_type: str, name: str) -> tuple[bool, int]: ...
    def get_blob(self, repo_path: str, blob_type: str, name: str) -> bytes | None: ...
    def save_blob(self, repo_path: str, blob_type: str, name: str, data: bytes) -> bool: ...
    def delete_blob(self, repo_path: str, blob_type: str, name: str) -> bool: ...
    def is_readonly(self) -> bool: ...


_METHODS = tuple(name for name in vars(Provider) if not name.startswith("_"))


def from_url(
    url: str, *, largest: object = LARGEST, at_once: object = 1, **arguments: Any
) -> ProviderPlace:
    """Make the place of `provider:MODULE:CLASS`.

    Args:
        largest: bytes of a value that is taken.
        at_once: calls that the provider gets at a time; more than one only if it is thread-safe.
        arguments: the class's, or function's.

    Raises:
        BackendURLInvalid: it is no such URL, the options or arguments cannot be, or what the class
            makes is no provider.
        BackendDoesNotExist: there is no such module or class, or it cannot be imported.
        BackendError: the class fails with these arguments.
    """
    try:
        most = options.size("largest", largest)
        calls = options.count("at_once", at_once, least=1)
    except OptionInvalid as error:
        raise BackendURLInvalid(f"provider: {error}") from error
    _, _, rest = url.partition(":")
    module, _, name = rest.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise BackendURLInvalid(f"a provider's URL is {WRITTEN}")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BackendDoesNotExist(f"{url}: cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:  # whatever a foreign module does
        raise BackendDoesNotExist(f"{url}: cannot be imported: {_told(error)}") from error
    try:
        inspect.signature(make).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise BackendURLInvalid(f"{url}: {error}") from error
    try:
        provider = make(**arguments)
    except BackendError:
        raise
    except Exception as error:  # whatever a foreign object raises
        raise BackendError(f"{url}: {_told(error)}") from error
    if missing := _missing(provider):
        raise BackendURLInvalid(f"{url}: is no StorageProvider: it has no {', '.join(missing)}")
    return ProviderPlace(provider, largest=most, at_once=calls)


def _missing(provider: object) -> list[str]:
    return [name for name in _METHODS if not callable(getattr(provider, name, None))]


def _told(error: BaseException) -> str:
    """Return what a foreign object raised, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


class _Name(NamedTuple):
    """A path in restic's layout. `kind` is "" for a repository's folder or above, "config", or a
    type; `blob` "" for a type's folder; `folder` the two digits of a folder of packs."""

    repo: str
    kind: str = ""
    blob: str = ""
    folder: str = ""


def _parsed(path: str) -> _Name:
    segments = path.split("/") if path else []
    for index, segment in enumerate(segments):
        if segment not in (*TYPES, "config"):
            continue
        repo, rest = "/".join(segments[:index]), segments[index + 1 :]
        match segment, rest:
            case "config", []:
                return _Name(repo, "config")
            case "data", [folder]:
                return _Name(repo, segment, folder=folder)
            case "data", [folder, blob] if blob.startswith(folder):
                return _Name(repo, segment, blob, folder)
            case kind, [] if kind != "config":
                return _Name(repo, kind)
            case kind, [blob] if kind != "config":
                return _Name(repo, kind, blob)
        raise UnsupportedOperation(f"{path}: a provider keeps restic's repositories only")
    return _Name(path)


class ProviderPlace(Backend):
    """A StorageProvider as a place.

    Args:
        provider: the object.
        largest: bytes of a value that is taken.
        at_once: calls that it gets at a time.

    Raises:
        TypeError: it is none.
    """

    def __init__(self, provider: Provider, *, largest: int = LARGEST, at_once: int = 1) -> None:
        if missing := _missing(provider):
            raise TypeError(
                f"a {type(provider).__name__} is no StorageProvider: it has no method "
                f"{', '.join(missing)}"
            )
        if at_once < 1 or largest < 0:
            raise ValueError(f"at_once={at_once}, largest={largest}")
        self.provider = provider
        self.largest = largest
        self.capabilities = Capabilities(concurrent=at_once > 1, streaming=False, shared=False)
        self._slots = threading.BoundedSemaphore(at_once)
        self._creating = threading.Lock()  # as near to atomic as such an object gets
        self._packs: dict[str, _Packs] = {}
        """What the last listing of a repository's packs has shown, by their folders: each is
        handed out once, for a provider can only list all of them."""
        self._opened = False

    def __repr__(self) -> str:
        return f"ProviderPlace({type(self.provider).__name__})"

    @contextmanager
    def _calling(self, what: str) -> Iterator[Provider]:
        if not self._opened:
            raise BackendMustBeOpen(f"{self!r} is not open")
        with self._slots:
            try:
                yield self.provider
            except (BackendError, InvalidName):
                raise
            except Exception as error:  # whatever a foreign object raises
                raise BackendError(f"{what}: {_told(error)}") from error

    # -- the place itself

    def create(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen(f"{self!r} is open")
        raise BackendAlreadyExists("a provider makes its storage itself")

    def destroy(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen(f"{self!r} is open")
        raise UnsupportedOperation("a provider cannot remove its storage")

    def open(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen(f"{self!r} is open")
        self._opened = True

    def close(self) -> None:
        if not self._opened:
            raise BackendMustBeOpen(f"{self!r} is not open")
        self._opened = False

    # -- folders

    def mkdir(self, name: str) -> None:
        self.mkdirs([name])

    def mkdirs(self, names: Iterable[str]) -> None:
        """Make the repositories that the folders belong to, each once, with all their folders."""
        repos = dict.fromkeys(_parsed(check_folder(name)).repo for name in names)
        for repo in repos:
            with self._calling(repo or "/") as provider:
                self._writable(provider)
                if not provider.create_repository(repo):
                    raise BackendError(f"{repo or '/'}: the provider has not made the repository")

    def rmdir(self, name: str) -> None:
        check_path(name)
        raise UnsupportedOperation(f"{name}: a provider removes no folders")

    def list(self, name: str) -> Iterator[ItemInfo]:
        at = _parsed(check_folder(name))
        if not at.kind:
            with self._calling(name):
                raise UnsupportedOperation("a provider cannot list repositories")
        if at.kind == "config" or at.blob:
            raise ObjectNotFound(name)
        if at.folder:
            kept = self._packs.get(at.repo, {}).pop(at.folder, None)
            if kept is not None:
                return iter(kept)
        with self._calling(name) as provider:
            found = provider.list_blobs(at.repo, at.kind)
            items = [
                ItemInfo(str(each["name"]), True, int(each.get("size") or 0), False)
                for each in found or ()
            ]
        if found is None:
            raise ObjectNotFound(name)
        if at.kind != "data":
            return iter(items)
        packs: _Packs = {}
        for item in items:
            packs.setdefault(item.name[:2], []).append(item)
        if at.folder:
            return iter(packs.get(at.folder, ()))
        self._packs[at.repo] = packs
        return iter([ItemInfo(folder, True, 0, True) for folder in [*packs]])

    # -- items

    def info(self, name: str) -> ItemInfo:
        missing = ItemInfo(check_folder(name), exists=False, size=0, directory=False)
        try:
            at = _parsed(name)
        except UnsupportedOperation:
            return missing
        with self._calling(name) as provider:
            if at.blob:
                there, size = provider.blob_exists(at.repo, at.kind, at.blob)
            elif at.kind == "config":
                there, size = provider.config_exists(at.repo)
            else:
                there = not name or provider.config_exists(at.repo)[0]
                return ItemInfo(name, True, 0, True) if there else missing
            return ItemInfo(name, True, int(size), False) if there else missing

    def _item(self, name: str) -> _Name:
        at = _parsed(check_path(name))
        if not at.blob and at.kind != "config":
            raise ObjectNotFound(name)
        return at

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        at = self._item(name)
        with self._calling(name) as provider:
            if at.blob:
                value = provider.get_blob(at.repo, at.kind, at.blob)
            else:
                value = provider.get_config(at.repo)
            if value is not None:
                memoryview(value)  # fails where it is no bytes
        if value is None:
            if self.info(name).exists:
                # A provider has no other word for a failure.
                raise BackendError(
                    f"{name}: the provider has it, and cannot read it", retryable=True
                )
            raise ObjectNotFound(name)
        total = len(value)
        start = max(0, total + offset) if offset < 0 else min(offset, total)
        end = total if size is None else min(total, start + max(0, size))
        whole = start == 0 and end == total
        return ValueReader(bytes(value) if whole else bytes(value[start:end]), total)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        at = _parsed(check_path(name))
        if not at.blob and at.kind != "config":
            raise UnsupportedOperation(f"{name}: a provider keeps restic's repositories only")
        with self._calling(name) as provider:
            self._writable(provider)
        if size is not None and size > self.largest:
            raise self.too_large(name, size)

        def send(kept: IO[bytes], size: int, _digest: str) -> None:
            kept.seek(0)
            with self._creating if if_absent else nullcontext():
                if if_absent and self.info(name).exists:
                    raise ObjectExists(f"{name} exists")
                self._save(name, at, kept.read(size))

        return WholeWriter(self, name, send, size, expected_hash)

    def _save(self, name: str, at: _Name, value: bytes) -> None:
        with self._calling(name) as provider:
            if at.blob:
                saved = provider.save_blob(at.repo, at.kind, at.blob, value)
            else:
                saved = provider.save_config(at.repo, value)
        if not saved:
            raise BackendError(f"{name}: the provider has not stored it", retryable=True)

    def too_large(self, name: str, size: int) -> BackendError:
        """Return the error for a value of so many bytes."""
        return UnsupportedOperation(
            f"{name}: {size} bytes are more than the {self.largest} that are taken by a place "
            "which moves whole values; the option largest allows more"
        )

    def delete(self, name: str) -> None:
        at = self._item(name)
        with self._calling(name) as provider:
            self._writable(provider)
        if not at.blob:
            if not self.info(name).exists:
                raise ObjectNotFound(name)
            raise UnsupportedOperation(f"{name}: a provider deletes no config")
        with self._calling(name) as provider:
            deleted = provider.delete_blob(at.repo, at.kind, at.blob)
        if not deleted:
            if self.info(name).exists:
                raise BackendError(f"{name}: the provider has not deleted it", retryable=True)
            raise ObjectNotFound(name)

    def move(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        raise UnsupportedOperation(f"{name}: a provider moves nothing")

    def _writable(self, provider: Provider) -> None:
        if provider.is_readonly():
            raise PermissionDenied("the provider is read-only")
