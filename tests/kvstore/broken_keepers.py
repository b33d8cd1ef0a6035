"""Backends on which a layer that keeps things would lose some; see `broken_places`."""

from __future__ import annotations

from collections.abc import Iterator

from tests.kvstore.broken_places import WrappedWriter, Wrapping, breaks

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.names import KernelPath


@breaks("keeping.move_if_absent_replaces_nothing")
class MovesOverWhatIsThere(Memory):
    def move_if_absent(self, name: str, new_name: str) -> None:
        self.move(name, new_name)


@breaks("keeping.kernel_names_are_apart")
class ShowsWhatTheKernelKeeps(Memory):
    def list(self, name: str) -> Iterator[ItemInfo]:
        yield from super().list(name)
        kept = self.info(KernelPath(f"{name}/.backupgw-kept"))
        if kept.exists:
            yield kept._replace(name=".backupgw-kept")


@breaks("keeping.commit_over_keeps_the_old")
class ForgetsWhatIsReplaced(Wrapping):
    class writer(WrappedWriter):  # noqa: N801 - stands for the attribute
        def commit_over(self, kept: str) -> None:
            self.inner.commit_over(kept)
            self.backend.store(KernelPath(kept), b"")
