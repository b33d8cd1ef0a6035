"""A provider's place from the first thought of it until it is closed: its passphrase is stretched
while its library is imported, processes are forked before it is open and get its key later.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError
from backupgw.kvstore.layers.encrypt_stretching import Stretch, Stretching

Make = Callable[[], Backend]
"""Returns the place with its layers, not open."""


class Opening:
    """Opens one place, once for all threads.

    Args:
        passphrase: what opens the place's own key, a secret; None where nothing does.
        create_missing: whether a container that is not there is made.
    """

    def __init__(self, passphrase: str | None, *, create_missing: bool) -> None:
        self.create_missing = create_missing
        """Whether a container that is not there is made; otherwise its absence is an error."""
        self.stretch: Stretch | None = None
        """How the passphrase is stretched, once the place was opened by it; no secret."""
        self._passphrase = passphrase
        self._lock = threading.Lock()
        self._made: Backend | None = None
        self._place: Backend | None = None
        self._stretching: Stretching | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    @property
    def done(self) -> bool:
        """Whether the place was reached, and has the container."""
        return self._place is not None

    # -- before it

    def stretch_early(self, remembered: Stretch | None) -> None:
        """Begin to stretch the passphrase beside what comes before the place is open; in vain, if
        the place's own key was sealed anew meanwhile.

        Args:
            remembered: what `stretch` was the last time; without it nothing is begun.
        """
        if remembered is not None and self._passphrase is not None:
            self._stretching = Stretching(self._passphrase, remembered)

    def make_ready(self, make: Make) -> None:
        """Make the place that the next `open` opens; afterwards this process can be forked, as far
        as it goes. Nothing is asked of the place. Raises as `make` does."""
        with self._lock:
            if self._place is None and self._made is None:
                made = make()
                made.prepare_fork()
                self._made = made
            if self._stretching is not None:
                self._stretching.prepare_fork()

    def open_early(self) -> None:
        """Be connected by the time another process hands on the key. The place is made and not
        open. What fails here fails again by `open`."""
        from backupgw.kvstore.layers.encrypt import EncryptLayer

        assert isinstance(self._made, EncryptLayer)  # the outermost
        with contextlib.suppress(BackendError):
            self._made.open_early()

    def take_over(self, handed: Mapping[str, object]) -> None:
        """Take what the place in another process has `handed_on`. It is made and not open yet."""
        assert self._made is not None
        self._made.take_over(handed)
        # It is there, and has the key: neither is found out or made here.
        self._passphrase, self.create_missing = None, False
        self._drop_stretching()

    # -- itself

    def open(self, make: Make, creating: Callable[[], object]) -> Backend:
        """Return the place, open; the same one for all calls.

        Args:
            creating: called before a container is made.

        Raises:
            BackendDoesNotExist: there is no such container, and it is not to be made.
            BackendError: the place cannot be opened.
        """
        with self._lock:
            if self._place is None:
                place, self._made = self._made or make(), None
                try:
                    self._open(place, creating)
                finally:
                    self._drop_stretching()
                self._place = place
                self._finalizer = weakref.finalize(self, place.close)
            return self._place

    def _open(self, place: Backend, creating: Callable[[], object]) -> None:
        if self._passphrase is None:
            self._open_or_create(place, creating)
            return
        from backupgw.kvstore.layers.encrypt import EncryptLayer

        assert isinstance(place, EncryptLayer)  # the outermost
        if self._stretching is not None:
            place.take_stretching(self._stretching)
        self._open_or_create(place, creating)
        self.stretch = place.stretch

    def _open_or_create(self, place: Backend, creating: Callable[[], object]) -> None:
        try:
            place.open()
        except BackendDoesNotExist:
            if not self.create_missing:
                raise
            creating()
            place.create()
            place.open()

    def _drop_stretching(self) -> None:
        if self._stretching is not None:
            self._stretching.drop()
            self._stretching = None

    def close(self) -> None:
        """Let go of connections; the next `open` opens the place again."""
        with self._lock:
            self._drop_stretching()
            finalizer, self._finalizer, self._place = self._finalizer, None, None
        if finalizer is not None:
            finalizer()
