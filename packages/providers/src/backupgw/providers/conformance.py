"""What every provider must do, to be run against the real service before it is trusted.

    python -m backupgw.providers.conformance NAME
    python -m backupgw.providers.conformance mymodule:MyProvider --set container=test --set …

NAME is a provider of this installation, as `backupgw provider list` shows it. Everything happens
under names that begin with `backupgw-conformance-`, and is deleted again. Exit status 0: every
check passed; 1: some failed; 2: there is nothing to check.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import secrets
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import BaseProvider

SIZES = (0, 1, 65_536, (1 << 20) + 1, (12 << 20) + 5)
"""Bytes: nothing, a byte, more than a buffer, more than a part."""
NAMES = (
    "plain.tar",
    "folder/below/file",
    "with blank and ünïcode.txt",
    "UPPER lower",
    "a+b&c=d%20",
)


class NotKept(Exception):
    """A provider does not do what it must; the message says what."""


@dataclass(frozen=True)
class Result:
    """What became of a check. `message`: what was wrong; "" where it passed."""

    check: str
    passed: bool
    message: str
    seconds: float


class Ground:
    """A provider and a corner of it to work in.

    Attributes:
        provider: is used by its interface alone.
        folder: of this machine, for files.
    """

    def __init__(self, provider: BaseProvider, folder: Path) -> None:
        self.provider = provider
        self.folder = folder
        self._prefix = f"backupgw-conformance-{secrets.token_hex(5)}"
        self._names: set[str] = set()

    def name(self, text: str) -> str:
        """Return a name in the corner; what is stored there is deleted at the end."""
        full = f"{self._prefix}-{text}"
        self._names.add(full)
        return full

    def file(self, content: bytes) -> Path:
        """Return a file with this content."""
        path = self.folder / secrets.token_hex(6)
        path.write_bytes(content)
        return path

    def put(self, name: str, content: bytes, **more: Any) -> None:
        """Store something; that must succeed."""
        done = self.provider.upload(self.file(content), name, **more)
        require(done is True, f"upload of {len(content)} bytes returned {done!r}: {self.why()}")

    def got(self, name: str, **more: Any) -> bytes:
        """Fetch something; that must succeed."""
        path = self.folder / secrets.token_hex(6)
        done = self.provider.download(name, path, **more)
        require(done is True, f"download returned {done!r}: {self.why()}")
        return path.read_bytes()

    def listed(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Return what is listed, by name."""
        return {str(each["name"]): each for each in self.provider.list_files(prefix)}

    def why(self) -> str:
        """Return what the provider says of its last failure."""
        error = self.provider.last_error
        return "it does not say why" if error is None else str(error) or type(error).__name__

    def clear(self) -> None:
        """Delete what is left."""
        for name in [*self.listed(self._prefix)]:
            self.provider.delete(name)


Check = Callable[[Ground], None]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Add a check; its docstring is what it promises."""
    CHECKS.append(function)
    return function


def require(kept: object, message: str) -> None:
    """Raise NotKept unless `kept`."""
    if not kept:
        raise NotKept(message)


@check
def answers(at: Ground) -> None:
    """test_connection returns True."""
    done = at.provider.test_connection()
    require(done is True, f"it returned {done!r}: {at.why()}")


@check
def has_the_interface(at: Ground) -> None:
    """The object has the guide's attributes: name, config, logger, max_retries, retry_delay."""
    for attribute in ("name", "config", "logger", "max_retries", "retry_delay"):
        require(hasattr(at.provider, attribute), f"it has no {attribute}")


@check
def every_size_comes_back(at: Ground) -> None:
    """Files come back byte by byte, the empty one too."""
    for size in SIZES:
        content = _bytes(size)
        name = at.name(f"size-{size}")
        at.put(name, content)
        require(at.got(name) == content, f"{size} bytes came back as others")


@check
def names_are_kept(at: Ground) -> None:
    """Names with folders, blanks and letters of other alphabets are what they were."""
    for text in NAMES:
        name = at.name(text)
        content = text.encode()
        at.put(name, content)
        require(at.got(name) == content, f"{text!r} came back as something else")
        require(name in at.listed(name), f"{text!r} is not listed under its name")


@check
def the_list_tells_names_and_sizes(at: Ground) -> None:
    """list_files has a record for each file, with name and size, and heeds prefix and max_files."""
    for number in range(3):
        at.put(at.name(f"list/{number}"), _bytes(100 + number))
    at.put(at.name("other"), b"")
    found = at.listed(at.name("list/"))
    sizes = [each["size"] for _, each in sorted(found.items())]
    require(sizes == [100, 101, 102], f"with the prefix list/ the sizes are {sizes}")
    few = at.provider.list_files(at.name("list/"), 2)
    require(len(few) == 2, f"with max_files=2 there are {len(few)} records")
    none = at.provider.list_files(at.name("nothing has this prefix"))
    require(none == [], f"a prefix that nothing has lists {none!r}")


@check
def a_later_file_replaces(at: Ground) -> None:
    """Uploading to a name that is taken replaces what is there."""
    name = at.name("replaced")
    at.put(name, b"first, and longer")
    at.put(name, b"second")
    require(at.got(name) == b"second", "the first content is still there")
    require(at.listed(name)[name]["size"] == 6, "the list has the first one's size")


@check
def deleted_files_are_gone(at: Ground) -> None:
    """What was deleted is neither listed nor to be had."""
    name = at.name("deleted")
    at.put(name, b"content")
    require(at.provider.delete(name) is True, f"delete returned False: {at.why()}")
    require(name not in at.listed(name), "it is still listed")
    require(at.provider.download(name, at.folder / "gone") is False, "it can still be fetched")


@check
def what_fails_is_no_success(at: Ground) -> None:
    """A file that is not there is neither fetched, deleted nor uploaded."""
    name, kept = at.name("missing"), at.file(b"kept")
    calls: dict[str, Callable[[], bool]] = {
        "download of a missing file": lambda: at.provider.download(name, kept),
        "delete of a missing file": lambda: at.provider.delete(name),
        "upload of a missing file": lambda: at.provider.upload(at.folder / "no such", name),
    }
    for what, work in calls.items():
        try:
            done = work()
        except Exception:  # noqa: BLE001, S112 - an error is no success either
            continue
        require(done is False, f"{what} returned {done!r}")
    require(kept.read_bytes() == b"kept", "a failed download changed the file that was there")
    require(at.listed(name) == {}, "a failed upload is listed")


@check
def progress_is_told(at: Ground) -> None:
    """Callbacks get bytes that grow up to the file's size, in both directions."""
    size = (3 << 20) + 7
    name = at.name("progress")
    seen: list[tuple[int, int]] = []
    at.put(name, _bytes(size), progress_callback=lambda *told: seen.append(told))
    _require_progress(seen, size, "upload")
    seen.clear()
    at.got(name, progress_callback=lambda *told: seen.append(told))
    _require_progress(seen, size, "download")


def _require_progress(seen: list[tuple[int, int]], size: int, what: str) -> None:
    require(seen, f"{what} never called")
    require(seen[-1] == (size, size), f"{what} ended with {seen[-1]}, not {(size, size)}")
    done = [each for each, _ in seen]
    require(done == sorted(done), f"{what} went back")
    require(done[-1] <= size, f"{what} told more than there is")


class _Broken(Exception):
    """What the callback of a test raises."""


@check
def a_broken_upload_leaves_nothing(at: Ground) -> None:
    """An upload that ends in the middle stores nothing, and leaves what was there before."""
    name = at.name("broken")
    at.put(name, b"before")

    def stop(done: int, total: int) -> None:
        if 0 < done < total:
            raise _Broken

    try:
        done = at.provider.upload(at.file(_bytes(12 << 20)), name, stop)
    except Exception:  # noqa: BLE001 - it may come out as it is
        done = False
    if done is True:
        raise NotKept("the callback's exception did not end the upload, or it was never called")
    require(at.got(name) == b"before", "half a file replaced the one before")


@check
def threads_may_share_it(at: Ground) -> None:
    """A provider that says `concurrent` does files of several threads at a time."""
    if not at.provider.concurrent:
        return
    contents = {at.name(f"threads/{n}"): _bytes(200_000 + n) for n in range(8)}
    with ThreadPoolExecutor(4) as threads:
        [*threads.map(lambda item: at.put(*item), contents.items())]
        back = [*threads.map(at.got, contents)]
    require(back == [*contents.values()], "files of several threads were mixed up")


def _bytes(size: int) -> bytes:
    """Return bytes that no service compresses, the same for the same size."""
    return hashlib.shake_128(size.to_bytes(8, "big")).digest(size)


def run(provider: BaseProvider, *, only: str = "") -> list[Result]:
    """Run the checks whose name contains `only`; return what became of each."""
    results = []
    with tempfile.TemporaryDirectory(prefix="backupgw-conformance-") as folder:
        for function in CHECKS:
            if only not in function.__name__:
                continue
            at, begun, message = Ground(provider, Path(folder)), time.monotonic(), ""
            try:
                try:
                    function(at)
                finally:
                    at.clear()
            except NotKept as error:
                message = str(error)
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                message = f"{type(error).__name__}: {error}"
            seconds = time.monotonic() - begun
            results.append(Result(function.__name__, not message, message, seconds))
    return results


def main(words: Sequence[str] | None = None) -> int:
    """Check a provider from the command line; return the exit status."""
    parser = ArgumentParser(prog="python -m backupgw.providers.conformance")
    parser.add_argument("provider", metavar="NAME", help="of this installation, or MODULE:CLASS")
    parser.add_argument("--config", type=Path, metavar="PATH", help="the settings file")
    parser.add_argument(
        "--set", dest="fields", action="append", default=[], metavar="FIELD=VALUE",
        help="for MODULE:CLASS",
    )  # fmt: skip
    parser.add_argument("--only", default="", metavar="TEXT", help="checks whose name has this")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    arguments = parser.parse_args(words)
    try:
        provider = _provider(arguments.provider, arguments.fields, arguments.config)
    except Exception as error:  # noqa: BLE001 - what somebody's class raises
        print(f"{arguments.provider}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    provider.logger.setLevel(logging.CRITICAL)  # failures are part of what is tried
    results = run(provider, only=arguments.only)
    provider.close()
    if arguments.json:
        print(json.dumps([vars(each) for each in results], indent=2))  # noqa: T201
    else:
        for each in results:
            verdict = "passed" if each.passed else f"FAILED: {each.message}"
            print(f"{each.check:32} {each.seconds:7.2f} s  {verdict}")  # noqa: T201
    return 0 if results and all(each.passed for each in results) else 1 if results else 2


def _provider(name: str, fields: Sequence[str], config: Path | None) -> BaseProvider:
    module, colon, kind = name.partition(":")
    if colon:
        made = getattr(importlib.import_module(module), kind)(
            dict(field.split("=", 1) for field in fields)
        )
        if not isinstance(made, BaseProvider):
            raise TypeError("is no subclass of BaseProvider")
        return made
    from .configured import ConfiguredProviders

    return ConfiguredProviders.beside(config).make(name)


if __name__ == "__main__":
    sys.exit(main())
