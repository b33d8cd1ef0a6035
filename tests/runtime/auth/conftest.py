"""A htpasswd file, and HTTP Basic by it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.runtime.auth.auth_site import Clock, Counting, Run, write

from backupgw.runtime.auth import BasicAuthenticator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    write(path, ann="pa", bob="pb", Ünal="pü")
    return path


@pytest.fixture
def file(path: Path) -> Counting:
    return Counting(path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(file: Counting, clock: Clock) -> Iterator[Run]:
    auth = BasicAuthenticator(file, clock=clock)

    def go(main: Callable[[BasicAuthenticator], Awaitable[None]]) -> None:
        async def whole() -> None:
            await main(auth)

        asyncio.run(whole())

    yield go
    auth.close()
