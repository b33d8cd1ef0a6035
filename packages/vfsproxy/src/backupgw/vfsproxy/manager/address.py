"""Where the Manager is: as the settings say, or what etcd says by now.

Where `vfs.manager.url` came from etcd, the key is read again when the Manager cannot be reached:
one that has moved is found without a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pydantic import ValidationError

from backupgw.runtime.etcd import EtcdError
from backupgw.runtime.secrets import SecretError
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_etcd import EtcdSettings

from ..settings import ManagerSourceSettings

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds between two looks, however many requests want to know."""
_KEY = ("vfs", "manager", "url")


class ManagerAddress:
    """For any thread; two that look at once find the same.

    Attributes:
        url: without a slash at its end.
    """

    def __init__(
        self,
        settings: Settings,
        manager: ManagerSourceSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = manager.url.rstrip("/")
        self._manager = manager
        self._clock = clock
        self._looked = -PAUSE
        etcd = settings.section("etcd", EtcdSettings)
        self._etcd = etcd if settings.origin(*_KEY).kind == "etcd" else None

    def look_again(self) -> bool:
        """Return whether the Manager is said to be somewhere else now."""
        now = self._clock()
        if self._etcd is None or now - self._looked < PAUSE:
            return False
        self._looked = now
        key = self._etcd.key_of(*_KEY)
        try:
            found = self._etcd.open().get(key)
        except (EtcdError, SecretError) as error:
            log.warning("etcd does not say where the manager is: %s", error)
            return False
        if found is None:
            return False
        try:
            url = ManagerSourceSettings(**{**dict(self._manager), "url": found}).url.rstrip("/")
        except ValidationError:
            log.warning("etcd key %s is no manager's address, and left alone", key)
            return False
        if url == self.url:
            return False
        self.url = url
        log.info("the manager is at another address now, says etcd key %s", key)
        return True
