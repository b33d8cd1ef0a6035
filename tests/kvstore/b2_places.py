"""Places on B2's doubles, as the tests make them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from b2sdk.v3 import B2HttpApiConfig, RawSimulator
from tests.servers.b2_double import KEY, KEY_ID

from backupgw.kvstore.backends.b2 import B2, from_url, simulated

BUCKET = "backups-of-tests"


def http_place(url: str, path: str, **options: Any) -> B2:
    """Return a place on the HTTP double; a picklable factory with `partial`."""
    return from_url(
        f"backblaze:{BUCKET}/{path}", realm=url, key_id=KEY_ID, application_key=KEY, **options
    )


class Simulator(RawSimulator):  # type: ignore[misc]
    """The SDK's own, for many threads."""

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.RLock()
        self.account_id, self.key = self.create_account()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or name == "create_account":
            return found
        lock = super().__getattribute__("_one_at_a_time")
        return _locked(lock, found)


def _locked(lock: threading.RLock, work: Callable[..., Any]) -> Callable[..., Any]:
    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return work(*args, **kwargs)

    return locked


def simulated_place(simulator: Simulator, path: str, **options: Any) -> B2:
    """Return a place in the simulator, which copies no more than 200 bytes at once."""
    api = B2HttpApiConfig(_raw_api_class=lambda _http: simulator)
    options = {"copied_at_once": 0, **options}
    place = simulated(BUCKET, path, simulator.account_id, simulator.key, api, **options)
    place.capabilities = dataclasses.replace(place.capabilities, shared=False)
    return place
