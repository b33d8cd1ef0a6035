"""Ctrl-C and SIGTERM while a command's own thread works on a place: it ends, nothing half-done."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.base import Layer
from backupgw.runtime import cli
from backupgw.runtime.signals import Heard, Terminated
from tests.ctrl_c import INTERRUPTED, at_every_lock, at_every_step
from tests.runtime.store_site import PATIENCE, Site
from tests.servers.child import Child
from tests.servers.drime_double import DrimeDouble

PARTS = 11_000_000
"""Bytes that go in parts."""


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


@pytest.fixture
def drime(site: Site) -> Iterator[DrimeDouble]:
    """Drime, which is the place `cloud` of the site."""
    with DrimeDouble() as double:
        text = site.config.read_text()
        site.config.write_text(
            f'{text}[places.cloud]\nurl = "drime:backups"\napi_url = "{double.url}"\n'
            f'api_key = "{double.key}"\n'
        )
        site.config.chmod(0o600)
        yield double


def command(site: Site, *words: str) -> Callable[[], int]:
    return lambda: cli.main(["--config", str(site.config), "store", *words])


def items(drime: DrimeDouble) -> dict[str, list[int]]:
    """The sizes of all that has a name; -1 is a folder."""
    return {path: sizes for path, sizes in drime.account.tree().items() if -1 not in sizes}


@pytest.mark.timeout(600)
def test_an_item_is_stored_and_fetched_wherever_it_is_interrupted(
    site: Site, drime: DrimeDouble
) -> None:
    file, back = site.folder / "file", site.folder / "back"
    file.write_bytes(os.urandom(PARTS))
    at_every_lock(command(site, "put", "--force", "--create", str(file), "cloud:a/b"))
    assert list(items(drime).values()) == [[PARTS]]
    at_every_lock(command(site, "get", "--force", "cloud:a/b", str(back)))
    assert back.read_bytes() == file.read_bytes()
    assert sorted(site.folder.glob(".*")) == []


@pytest.mark.timeout(600)
def test_items_are_listed_and_deleted_wherever_it_is_interrupted(
    site: Site, drime: DrimeDouble
) -> None:
    def put_and_delete() -> int:
        status = 0
        for words in (["put", "--force", "/etc/hostname", "cloud:a/2"], ["rm", "-r", "cloud:a"]):
            status = status or command(site, *words)()
        return status

    assert command(site, "put", "--create", "/etc/hostname", "cloud:b/1")() == 0
    at_every_lock(command(site, "du", "cloud"))
    at_every_lock(put_and_delete)
    assert len(items(drime)) == 1


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(
    work: Callable[[], object], by: type[KeyboardInterrupt] = KeyboardInterrupt
) -> None:
    """Do what is to be interrupted, as a command."""
    with pytest.raises(by), Heard():
        work()


def test_a_commands_own_code_is_interrupted_at_once() -> None:
    def work() -> None:
        press()
        time.sleep(PATIENCE)

    interrupted(work)


def test_sigterm_is_told_from_ctrl_c() -> None:
    interrupted(lambda: os.kill(os.getpid(), signal.SIGTERM), Terminated)


def test_waiting_for_a_thread_is_interrupted_at_once() -> None:
    def work() -> None:
        threading.Timer(0.1, press).start()
        if threading.Event().wait(PATIENCE):
            raise AssertionError

    interrupted(work)


def test_a_thread_that_was_started_is_ended() -> None:
    class Working:
        def __init__(self) -> None:
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._ended.wait, daemon=True)

        def __enter__(self) -> None:
            self._thread.start()

        def __exit__(self, *_: object) -> None:
            self._ended.set()
            self._thread.join()

    def work() -> int:
        try:
            with Heard(), Working():
                time.sleep(0)
                return 0
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            assert threading.active_count() == before

    before = threading.active_count()
    at_every_lock(work)


class Pressing:
    """The lock of a place in memory: Ctrl-C comes where it is taken."""

    def __init__(self, place: Memory) -> None:
        self._lock = place._place.lock
        place._place.lock = self  # type: ignore[assignment]

    def __enter__(self) -> None:
        self._lock.acquire()
        press()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def memory() -> Memory:
    place = Memory()
    place.create()
    place.open()
    return place


def test_an_operation_that_has_begun_is_done() -> None:
    def work() -> None:
        Pressing(place)
        place.mkdir("a")
        place.mkdir("b")

    place = memory()
    lock = place._place.lock
    interrupted(work)
    place._place.lock = lock
    assert [each.name for each in place.list("")] == ["a"]


def test_a_commit_is_carried_to_its_end() -> None:
    def work() -> None:
        with place.open_writer("item") as writer:
            writer.write(b"value")
            Pressing(place)
        place.mkdir("b")

    place = memory()
    lock = place._place.lock
    interrupted(work)
    place._place.lock = lock
    assert place.load("item") == b"value"
    assert not place.info("b").exists


def test_what_takes_long_ends_between_two_operations() -> None:
    class Endless(Reader):
        item_size = remaining = 1 << 50

        def read(self, size: int) -> bytes:
            press()
            return b"x"

        def close(self) -> None:
            closed.append(True)

    class Place(Layer):
        def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
            return Endless()

    closed: list[bool] = []
    interrupted(lambda: Place(memory()).hash("item"))
    assert closed == [True]


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    program = (
        "import signal, time\n"
        "from backupgw.runtime.signals import Heard\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with Heard():\n"
        "    try:\n"
        "        print('begun', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidying', flush=True)\n"
        "        time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with Child(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for said in ("begun\n", "tidying\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_is_not_lost_where_something_is_dropped() -> None:
    class Dropped:
        def __del__(self) -> None:
            press()

    def work() -> None:
        dropped = [Dropped()]
        dropped.clear()
        time.sleep(PATIENCE)

    interrupted(work)


def test_it_is_not_lost_while_a_module_is_imported() -> None:
    def command() -> int:
        sys.modules.pop("colorsys", None)
        try:
            with Heard() as heard:
                import colorsys  # noqa: F401

                heard.take_effect()
                assert heard._came is None, "it came, and had no effect"
        except KeyboardInterrupt:
            return INTERRUPTED
        return 0

    at_every_step(command, "importlib._bootstrap>")


def test_others_can_log_afterwards() -> None:
    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "c_return" and frame.f_code is logging.Handler.acquire.__code__:
            sys.setprofile(None)
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, frame)

    def work() -> None:
        sys.setprofile(look)
        try:
            log.handle(record)
            time.sleep(PATIENCE)
        finally:
            sys.setprofile(None)

    log = logging.StreamHandler(io.StringIO())
    record = logging.makeLogRecord({})
    interrupted(work)
    with ThreadPoolExecutor(1) as other:
        assert log.lock is not None
        assert other.submit(log.lock.acquire, timeout=PATIENCE).result()


def test_what_is_heard_before_is_left_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with Heard():
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
