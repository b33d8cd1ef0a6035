"""What a running server asks of the kernel, in order, by strace; and whether that order is safe.

A value is durable when its file was synced after its last byte, then given its name, then the
folder synced; a new folder when its parent was synced; a removal when the folder was synced. Only
then may the answer leave (DESIGN.md, the kernel's rule 3).
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers.child import Child

NAMING = ("link", "linkat", "rename", "renameat", "renameat2")
FOLDERS = ("mkdir", "mkdirat")
REMOVING = ("unlink", "unlinkat")
SYNCING = ("fsync", "fdatasync")
WRITING = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "copy_file_range", "ftruncate")
SENDING = ("write", "writev", "sendto", "sendmsg")

TRACED = ",".join(sorted({*NAMING, *FOLDERS, *REMOVING, *SYNCING, *WRITING, *SENDING}))

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_WHOLE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_BEGUN = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<result>-?\d+)")
_DESCRIPTOR = re.compile(r"(?P<number>\d+)<(?P<path>[^>]*)>")
_PLACE = re.compile(r'(?:(?:\d+|AT_FDCWD)(?:<(?P<base>[^>]*)>)?, )?"(?P<name>[^"]*)"')
_OWN_DESCRIPTOR = re.compile(r"/proc/self/fd/(\d+)")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call; `start` and `end` are places in the one order of all threads."""

    name: str
    arguments: str
    result: int
    start: int
    end: int

    @property
    def descriptor(self) -> tuple[int, str]:
        """Number and path of the file that the call is about; (-1, "") without one."""
        found = _DESCRIPTOR.match(self.arguments)
        return (int(found["number"]), found["path"]) if found else (-1, "")

    @property
    def places(self) -> list[str]:
        """The paths in its arguments, joined with the folder descriptors before them."""
        found = _PLACE.finditer(self.arguments)
        return [str(Path(match["base"] or "", match["name"])) for match in found]

    @property
    def is_answer(self) -> bool:
        """Whether it starts a response to a client."""
        return self.name in SENDING and '"HTTP/1.1 ' in self.arguments


class Trace:
    """strace on a running process and all its threads, for the length of a block."""

    def __init__(self, pid: int, file: Path, *, inject: Sequence[str] = ()) -> None:
        """Begin.

        Args:
            file: where strace writes.
            inject: faults, in the form of strace's `-e inject=`.
        """
        self._file = file
        self._options = [f"--trace={TRACED}", *(f"--inject={fault}" for fault in inject)]
        self._pid = pid

    def __enter__(self) -> Self:
        self._tracer = Child(
            ["strace", "-f", "-y", "-s300", "-o", self._file, *self._options, f"-p{self._pid}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._tracer.stderr is not None
        try:
            self._attach()
        except BaseException:
            self._tracer.end()
            raise
        return self

    def _attach(self) -> None:
        assert self._tracer.stderr is not None
        said = self._tracer.stderr.readline()
        if "attached" not in said:
            self._tracer.kill()
            said += self._tracer.communicate()[1]
            raise RuntimeError(f"strace: {said}")

    def __exit__(self, *error: object) -> None:
        with self._tracer:
            self._tracer.send_signal(signal.SIGINT)  # it lets go of the server and ends
            self._tracer.communicate(timeout=30)

    def calls(self) -> list[Call]:
        """What was seen; to be asked after the block."""
        return sorted(_parse(self._file.read_text().splitlines()), key=lambda call: call.start)


def _parse(lines: Sequence[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        if not (split := _LINE.match(line)):
            continue
        thread, rest = split["thread"], split["rest"]
        if found := _BEGUN.match(rest):
            begun[thread] = (number, found["arguments"])
        elif (found := _ENDED.match(rest)) and thread in begun:
            start, arguments = begun.pop(thread)
            arguments += found["arguments"]
            yield Call(found["name"], arguments, int(found["result"]), start, number)
        elif found := _WHOLE.match(rest):
            result = int(found["result"])
            yield Call(found["name"], found["arguments"], result, number, number)


def by_answer(calls: Sequence[Call]) -> list[list[Call]]:
    """Split the calls of requests that came one after the other; each part ends with its answer."""
    parts: list[list[Call]] = [[]]
    for call in calls:
        parts[-1].append(call)
        if call.is_answer:
            parts.append([])
    return parts[:-1]


def missing_for_stored(request: Sequence[Call], file: Path) -> list[str]:
    """What was left out before the answer to a request that stored `file`, one line each."""
    answer = request[-1]
    named = [
        call
        for call in request
        if call.name in NAMING and call.result == 0 and call.places[-1] == str(file)
    ]
    if len(named) != 1:
        return [f"{file.name} was given its name {len(named)} times"]
    naming = named[0]
    missing = missing_for_folders(request)
    if not any(_is_file_sync(call, naming, request) for call in request):
        missing.append("the file is not synced between its last byte and its name")
    if not folder_synced(request, file.parent, after=naming.end, before=answer.start):
        missing.append("the folder is not synced between the name and the answer")
    return missing


def missing_for_removed(request: Sequence[Call], file: Path) -> list[str]:
    """What was left out before the answer to a request that removed `file`."""
    removed = [
        call
        for call in request
        if call.name in REMOVING and call.result == 0 and call.places[-1] == str(file)
    ]
    if not removed:
        return [f"{file.name} is not removed before the answer"]
    if not folder_synced(request, file.parent, after=removed[0].end, before=request[-1].start):
        return ["the folder is not synced between the removal and the answer"]
    return []


def missing_for_folders(request: Sequence[Call]) -> list[str]:
    """New folders that their parents' sync does not cover before the answer."""
    return [
        f"{folder}: made, but its parent is not synced"
        for call in request
        if call.name in FOLDERS and call.result == 0
        for folder in call.places
        if not folder_synced(request, Path(folder).parent, after=call.end, before=request[-1].start)
    ]


def folder_synced(calls: Sequence[Call], folder: Path, *, after: int, before: int) -> bool:
    """Whether a sync of `folder` began after one moment and succeeded before the other."""
    return any(
        call.name in SYNCING
        and call.result == 0
        and call.descriptor[1] == str(folder)
        and call.start > after
        and call.end < before
        for call in calls
    )


def _is_file_sync(sync: Call, naming: Call, request: Sequence[Call]) -> bool:
    """Whether `sync` covers all bytes of the file that `naming` gave its name."""
    if sync.name not in SYNCING or sync.result != 0 or sync.end >= naming.start:
        return False
    writes = [
        call
        for call in request
        if call.name in WRITING
        and call.start < naming.start
        and _is_of(call.descriptor, naming.places[0])
    ]
    # Numbers are used again: the descriptor that was linked is the one that was written to last.
    return bool(writes) and sync.descriptor == writes[-1].descriptor and sync.start > writes[-1].end


def _is_of(descriptor: tuple[int, str], source: str) -> bool:
    number, path = descriptor
    unnamed = _OWN_DESCRIPTOR.fullmatch(source)
    return number == int(unnamed[1]) if unnamed else path == source
