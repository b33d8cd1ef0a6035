"""What a program written for borgstore 0.7 finds once its import root is replaced, read from the
installed borgstore: modules, names, and what their functions take."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import borgstore  # type: ignore[import-untyped]
import pytest
from borgstore import constants

from backupgw.kvstore import Store
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.registry import schemes
from backupgw.kvstore.store import get_backend

NOT_ITS_CLIENT = re.compile(r"borgstore\.(server\b.*|_version|__main__)")
"""Its server is the restserver's; the demonstration has a test of its own."""

LEFT_OUT = {
    "the quota of a folder is kept in a ledger": [
        "constants.QUOTA_STORE_NAME",
        "constants.QUOTA_PERSIST_DELTA",
        "constants.QUOTA_PERSIST_INTERVAL",
    ],
    "how its cache goes about it": [
        "store.CACHE_RESCAN_DIVISOR",
        "store.CACHE_SCAN_STEP_TIME",
        "store.CacheIndex",
        "store.CacheScan",
    ],
    "how its connections go about it": [
        "backends.rest.DEFAULT_RECONNECT_TRIES",
        "backends.rest.DEFAULT_RECONNECT_WAIT",
        "backends.rest.SSH_ALIVE_COUNT_MAX",
        "backends.rest.SSH_ALIVE_INTERVAL",
        "backends.rest.StdioSession",
        "backends.rest.with_reconnect",
        "backends._utils.ignore_sigint",
        "backends._utils.make_range_header",
        "backends._utils.parse_range_header",
    ],
    "what its own Store asks a backend": ["backends.posixfs.PosixFS.precreate_dirs"],
    "Windows is no place for a gateway": [
        "backends.posixfs.is_win32",
        "backends._utils.is_win32",
    ],
}
OTHERWISE = {
    "`durability` says more; get_file_backend takes the limits": ["backends.posixfs.PosixFS"],
    "30 s; ours waits for slow disks": ["backends.rest.REST"],
    "which item is written is the Store's to say": [
        "backends.posixfs.PosixFS.defrag",
        "backends.rest.REST.defrag",
    ],
    "the first is given by position": [
        "backends.posixfs.PosixFS.move",
        "backends.rest.REST.move",
    ],
    "a policy may be made without limits": ["store.CachePolicy"],
}
WITH_THEIR_PLACES = {"backends.sftp", "backends.s3", "backends.rclone"}
"""Modules of places that need a library. Their classes are made by URLs, not by borgstore's
arguments: ours take more."""

URLS = [
    "file:///srv/store",
    "http://user:secret@host.example:5618/",
    "https://host.example/store",
    "rest://user@host.example:22/store",
    "rest:////srv/store",
    "sftp://user@host.example:22/relative/path",
    "sftp://host.example//absolute/path",
    "rclone:remote:",
    "rclone:remote:path",
    "s3:id:secret@https://host.example:9000/bucket/path",
    "b2:id:secret@https://host.example/bucket/path",
]
"""The forms that borgstore's documentation has."""

_LEFT_OUT = {name for names in LEFT_OUT.values() for name in names}
_OTHERWISE = {name for names in OTHERWISE.values() for name in names}


def _modules() -> list[str]:
    return [
        module.name.removeprefix("borgstore.")
        for module in pkgutil.walk_packages(borgstore.__path__, "borgstore.")
        if not NOT_ITS_CLIENT.fullmatch(module.name)
    ]


def _public(theirs: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a module defines itself: the rest has a home of its own."""
    for name, value in vars(theirs).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        home = getattr(value, "__module__", None)
        if home is None and theirs is not constants and hasattr(constants, name):
            continue
        if home in (None, theirs.__name__):
            yield name, value


def _parameters(function: Callable[..., Any]) -> dict[str, object]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }


def _takes_the_same(where: str, ours: Callable[..., Any], theirs: Callable[..., Any]) -> list[str]:
    """Return what a caller of theirs could say and ours would not understand."""
    if where in _OTHERWISE:
        return []
    mine, given = _parameters(ours), _parameters(theirs)
    return [
        f"{where}({name}={default!r})"
        for name, default in given.items()
        if name not in mine or mine[name] != default
    ]


def _differences(where: str, ours: Any, theirs: Any) -> list[str]:
    if inspect.isclass(theirs) and issubclass(theirs, BaseException):
        parents = [kind.__name__ for kind in theirs.__mro__]
        mine = [kind.__name__ for kind in ours.__mro__]
        return [] if set(parents) <= set(mine) else [f"{where} is no {parents}"]
    if inspect.isclass(theirs):
        found = _takes_the_same(where, ours, theirs)
        for name, member in vars(theirs).items():
            inner = f"{where}.{name}"
            if name.startswith("_") or inner in _LEFT_OUT:
                continue
            if not hasattr(ours, name):
                found.append(inner)
            elif inspect.isfunction(member):
                found += _takes_the_same(inner, getattr(ours, name), member)
        return found
    if inspect.isfunction(theirs):
        return _takes_the_same(where, ours, theirs)
    return [] if ours == theirs or callable(theirs) else [f"{where} = {theirs!r}, not {ours!r}"]


@pytest.mark.parametrize("name", sorted(set(_modules()) - WITH_THEIR_PLACES))
def test_each_public_name_is_there_and_takes_the_same(name: str) -> None:
    theirs = importlib.import_module(f"borgstore.{name}")
    public = [each for each in _public(theirs) if f"{name}.{each[0]}" not in _LEFT_OUT]
    if not public:
        return  # nothing of it is left to be imported
    ours = importlib.import_module(f"backupgw.kvstore.{name}")
    missing = [f"{name}.{each}" for each, _ in public if not hasattr(ours, each)]
    assert not missing
    assert not [
        difference
        for each, value in public
        for difference in _differences(f"{name}.{each}", getattr(ours, each), value)
    ]


def test_what_is_left_out_is_still_there_in_borgstore() -> None:
    """Otherwise the lists above would hide something of another release."""
    for where in _LEFT_OUT | _OTHERWISE:
        module = max((m for m in _modules() if where.startswith(f"{m}.")), key=len)
        value: Any = importlib.import_module(f"borgstore.{module}")
        for attribute in where.removeprefix(f"{module}.").split("."):
            value = getattr(value, attribute)


@pytest.mark.parametrize("url", [u for u in URLS if u.partition(":")[0] in schemes()])
def test_urls_are_written_as_for_borgstore(url: str) -> None:
    backend = get_backend(url)
    assert isinstance(backend, Backend)
    assert "secret" not in repr(backend)


@pytest.mark.parametrize("name", ["sftp", "s3", "rclone"])
def test_backends_of_places_are_made_by_the_same_functions(name: str) -> None:
    make = getattr(
        importlib.import_module(f"backupgw.kvstore.backends.{name}"), f"get_{name}_backend"
    )
    for url in URLS:
        its_own = url.partition(":")[0] in {"s3": ("s3", "b2")}.get(name, (name,))
        assert isinstance(make(url), Backend) == its_own, url


BACKEND = '''
from {root}.backends._base import BackendBase, ItemInfo, validate_name, validate_value
from {root}.backends.errors import ObjectNotFound


class Shelf(BackendBase):
    """A backend that somebody wrote for borgstore."""

    def __init__(self):
        self.items = {{}}

    def create(self): pass
    def destroy(self): self.items.clear()
    def open(self): pass
    def close(self): pass
    def mkdir(self, name): pass
    def rmdir(self, name): pass

    def _get(self, name):
        validate_name(name)
        if name not in self.items:
            raise ObjectNotFound(name)
        return self.items[name]

    def info(self, name):
        value = self.items.get(name)
        folder = any(item.startswith(name + "/") for item in self.items)
        return ItemInfo(name, value is not None or folder, len(value or b""), folder)

    def load(self, name, *, size=None, offset=0):
        value = self._get(name)[offset:]
        return value if size is None else value[:size]

    def store(self, name, value):
        validate_name(name)
        self.items[name] = bytes(validate_value(value))

    def delete(self, name):
        self._get(name)
        del self.items[name]

    def move(self, curr_name, new_name):
        self.items[new_name] = self._get(curr_name)
        del self.items[curr_name]

    def list(self, name):
        below = [i[len(name) + 1:] if name else i for i in self.items if i.startswith(name)]
        for entry in sorted({{item.partition("/")[0] for item in below}}):
            yield self.info(name + "/" + entry if name else entry)._replace(name=entry)
'''


def test_a_backend_written_for_borgstore_needs_another_import_root_only(tmp_path: Path) -> None:
    (tmp_path / "shelf_of_ours.py").write_text(BACKEND.format(root="backupgw.kvstore"))
    sys.path.insert(0, str(tmp_path))
    try:
        shelf = importlib.import_module("shelf_of_ours").Shelf()
    finally:
        sys.path.remove(str(tmp_path))
    assert shelf.quota() == {"limit": -1, "usage": -1}
    store = Store(backend=shelf, config={"data": {"levels": [1]}})
    store.create()
    with store:
        store.store("data/00112233", memoryview(b"abcdef"))
        store.store("data/44556677", b"uvwxyz")
        parts = [("00112233", 1, 2), ("44556677", -1, 1)]
        assert store.gather(parts, namespace="data") == b"bcz"
        named = store.defrag(parts, algorithm="sha256", namespace="data")
        assert store.hash(f"data/{named}") == named
        assert {info.name for info in store.list("data")} == {"00112233", "44556677", named}
    nested = [(f"data/00/{name}" if name < "4" else f"data/44/{name}", *r) for name, *r in parts]
    assert shelf.gather(nested) == b"bcz"
    assert shelf.defrag(nested, algorithm="sha256", namespace="data", levels=1) == (
        f"data/{named[:2]}/{named}"
    )
