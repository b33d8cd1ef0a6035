"""A server that runs for a block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Running(ABC):
    """A context manager: started where its block begins, stopped where it ends."""

    @abstractmethod
    def start(self) -> None:
        """Run it until `stop`."""

    @abstractmethod
    def stop(self) -> object:
        """End it; idempotent."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
