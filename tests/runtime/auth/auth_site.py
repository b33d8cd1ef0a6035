"""A htpasswd file whose checks are counted, a clock of its own, and what runs a test on both."""

import asyncio
import base64
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import bcrypt

from backupgw.runtime.auth import BasicAuthenticator, Htpasswd


def header(user: str | bytes, password: str) -> bytes:
    name = user.encode() if isinstance(user, str) else user
    return b"Basic " + base64.b64encode(name + b":" + password.encode())


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def write(path: Path, **passwords: str) -> None:
    new = path.with_suffix(".new")
    new.write_text("".join(f"{user}:{hashed(word)}\n" for user, word in passwords.items()))
    os.utime(new, (time.time() - 3, time.time() - 3))
    new.replace(path)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting(Htpasswd):
    """Counts what bcrypt is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: Counter[str] = Counter()
        self.threads: set[str] = set()

    def verify(self, user: str, password: bytes) -> str | None:
        self.asked[user] += 1
        self.threads.add(threading.current_thread().name)
        return super().verify(user, password)


Run = Callable[[Callable[[BasicAuthenticator], Awaitable[None]]], None]


async def settled(auth: BasicAuthenticator) -> None:
    """Wait for what was handed to the authenticator's threads."""
    loop = asyncio.get_running_loop()
    barrier = threading.Barrier(3)
    waits = [loop.run_in_executor(auth._executor, barrier.wait) for _ in range(3)]
    await asyncio.gather(*waits)
