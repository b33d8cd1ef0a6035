"""The places on which the conformance suite tries layers: each layer alone, and stacks.

Factories of modules, so that other processes can call them. Whoever adds a layer adds a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.kvstore import looking_disk, quota_place

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.stack import LayerSpec
from backupgw.kvstore.ledger import Limit, SQLiteLedger
from backupgw.kvstore.registry import open_place

open_ledgers: dict[str, SQLiteLedger] = {}
"""The open ledgers of this process, by folder; one that the suite starts opens its own."""

MAKERS: Mapping[str, Callable[[str], Backend]]
"""Layers that need more than options: by name, what makes them for a fresh folder."""

EVERYTHING: LayerSpec = {"layer": "permissions", "rules": {"": "lrwWD"}}
LIMIT: LayerSpec = {"layer": "quota", "limit": "1 TB"}
UNHURRIED: LayerSpec = {"layer": "throttle", "upload": "8 GB/s", "download": "8 GB/s"}
PATIENT: LayerSpec = {"layer": "retry", "attempts": 3, "first_pause": "1 ms"}
TRASH: LayerSpec = {"layer": "trash", "keep": "30 days", "may_destroy": True}
KEY = "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6"
SEALED: LayerSpec = {"layer": "encrypt", "key": KEY}
READABLE: LayerSpec = {"layer": "encrypt", "key": KEY, "names": "readable"}
FOLDER: LayerSpec = {"layer": "prefix", "folder": "clients/alice"}

LAYERS: Mapping[str, list[LayerSpec]] = {
    "observe": ["observe"],
    "permissions": [EVERYTHING],
    "throttle": [UNHURRIED],
    "retry": [PATIENT],
    "prefix": [FOLDER],
    "cache, alone": [{"layer": "cache", "size": "64 MiB"}],
    "encrypt": [SEALED],
    "quota of the place": [LIMIT],
    "encrypted, with readable names": [READABLE],
    "seen, limited": ["observe", EVERYTHING, LIMIT],
    "slow, remote": [UNHURRIED, PATIENT],
    "alice's share": [EVERYTHING, UNHURRIED, FOLDER],
    "all that is simple": ["observe", EVERYTHING, LIMIT, UNHURRIED, PATIENT, FOLDER],
}
"""Stacks by name, outermost layer first. Each runs over a folder on disk and over memory."""


def on_disk(folder: str, stack: str) -> Backend:
    """Return the stack over a folder; its state is beside it."""
    context = {"state_folder": f"{folder}/state", "name": "tried"}
    return open_place(
        f"file://{folder}/store", durability="fast", layers=LAYERS[stack], context=context
    )


def in_memory(folder: str, stack: str) -> Backend:
    """Return the stack over a place in memory."""
    context = {"state_folder": f"{folder}/state", "name": "tried"}
    return open_place("memory:", layers=LAYERS[stack], context=context)


def bare(folder: str) -> Backend:
    return Layer(PosixFS(f"{folder}/store", durability="fast"))


def quota(folder: str) -> Backend:
    return _under_quota(folder, PosixFS(f"{folder}/store", durability="fast"))


def quota_over_stack(folder: str) -> Backend:
    """What a service adds to a place that has layers of its own."""
    return _under_quota(folder, on_disk(folder, "slow, remote"))


def trash(folder: str, *inner: LayerSpec) -> Backend:
    """On disk only: in memory what is deleted would stay in memory, as it should."""
    return open_place(f"file://{folder}/store", durability="fast", layers=[TRASH, *inner])


def trash_over_encryption(folder: str) -> Backend:
    return trash(folder, SEALED)


def trash_over_remote(folder: str) -> Backend:
    return trash(folder, UNHURRIED, PATIENT)


def quota_over_trash(folder: str) -> Backend:
    return _under_quota(folder, trash(folder))


def mirrored(folder: str, *outer: LayerSpec) -> Backend:
    """Two folders that hold the same; its journal and the cache's entries lie beside them."""
    other = {"url": f"file://{folder}/other", "durability": "fast"}
    mirror: LayerSpec = {"layer": "mirror", "places": [other], "sync": False}
    context = {"state_folder": f"{folder}/state", "name": "tried"}
    return open_place(
        f"file://{folder}/store", durability="fast", layers=[*outer, mirror], context=context
    )


def trash_over_cached_mirror(folder: str) -> Backend:
    return mirrored(folder, TRASH, {"layer": "cache", "size": "64 MiB"})


def _under_quota(folder: str, inner: Backend) -> Backend:
    if folder not in open_ledgers:
        ledger = open_ledgers[folder] = quota_place.ledger_of(Path(folder))
        ledger.open()
        ledger.set_limit("server", Limit(hard_bytes=1 << 40, hard_objects=1 << 40))
    return QuotaLayer(inner, open_ledgers[folder], quota_place.scopes)


MAKERS = {
    "bare": bare,
    "quota": quota,
    "quota over a slow, remote place": quota_over_stack,
    "trash": trash,
    "trash over encryption": trash_over_encryption,
    "trash over a remote place": trash_over_remote,
    "quota over trash": quota_over_trash,
    "mirror": mirrored,
    "trash over a cached mirror": trash_over_cached_mirror,
    "claims": looking_disk.claimed,
}
