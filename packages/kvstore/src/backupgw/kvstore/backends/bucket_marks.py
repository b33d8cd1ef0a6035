"""What the marks of folders (`marked_folders`) stand on in a bucket.

A folder whose mark's key would be longer than the service takes is left without.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .bucket_place import F, Requests
from .errors import NameTooLong
from .marked_folders import Keys

T = TypeVar("T")


class BucketKeys(Keys, Generic[F]):
    """The objects of a bucket by their names in the place.

    Args:
        requests: of the bucket.
        key: returns the key of a name; of "", what all keys begin with.
        decoded: returns what a segment of a key stands for.
    """

    def __init__(
        self,
        requests: Requests[F],
        key: Callable[[str], str],
        decoded: Callable[[str], str],
    ) -> None:
        self._bucket = requests
        self._key = key
        self._decoded = decoded

    def repeat(self, work: Callable[[], T]) -> T:
        """Do what may be done again; once, where the callers repeat."""
        return work()

    def has(self, name: str) -> bool:
        try:
            key = self._key(name)
        except NameTooLong:
            return False
        return self.repeat(lambda: self._bucket.head(key, name)) is not None

    def below(self, name: str) -> Iterator[tuple[str, bool]]:
        prefix = f"{self._key(name)}/" if name else self._key("")
        after: str | None = None
        while True:
            at = after
            page = self.repeat(
                lambda: self._bucket.page(prefix, name, folders=True, after=at)  # noqa: B023
            )
            for key in page.prefixes:
                yield self._decoded(key[len(prefix) : -1]), True
            for found in page.found:
                yield self._decoded(found.key[len(prefix) :]), False
            if (after := page.after) is None:
                return

    def put(self, name: str) -> None:
        with contextlib.suppress(NameTooLong):
            key = self._key(name)
            self.repeat(lambda: self.put_mark(key, name))

    def drop(self, name: str) -> None:
        with contextlib.suppress(NameTooLong):
            key = self._key(name)
            self.repeat(lambda: self.drop_mark(key, name))

    @abstractmethod
    def put_mark(self, key: str, name: str) -> None:
        """Store an empty object."""

    @abstractmethod
    def drop_mark(self, key: str, name: str) -> None:
        """Remove an object; gone is fine."""
