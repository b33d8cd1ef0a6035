"""Backends that break one promise each, on purpose. The suite must notice every one of them."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from backupgw.kvstore.backends.base import Backend, FileSpan, ItemInfo, Loaded, Reader, Writer
from backupgw.kvstore.backends.errors import ContentMismatch, ObjectExists, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory, MemoryReader

caught_by: list[tuple[str, type[Backend]]] = []
"""(the check that must catch it, the backend)"""

B = TypeVar("B", bound=type[Backend])


def breaks(*checks: str) -> Callable[[B], B]:
    def register(backend: B) -> B:
        caught_by.extend((check, backend) for check in checks)
        return backend

    return register


class WrappedWriter(Writer):
    """Passes everything on; what is broken overrides one method."""

    def __init__(self, backend: Memory, inner: Writer, name: str, **options: Any) -> None:
        self.backend = backend
        self.inner = inner
        self.name = name
        self.options = options

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.inner.write(data)

    def check(self) -> None:
        self.inner.check()

    def commit(self) -> None:
        self.inner.commit()

    def commit_over(self, kept: str) -> None:
        self.inner.commit_over(kept)

    def abort(self) -> None:
        self.inner.abort()

    def checkpoint(self) -> str:
        return self.inner.checkpoint()

    def mark(self) -> str:
        return self.inner.mark()

    def leave(self) -> None:
        self.inner.leave()

    @property
    def offset(self) -> int:
        return self.inner.offset


class Wrapping(Memory):
    """Hands out `writer`s."""

    writer: type[WrappedWriter] = WrappedWriter

    def open_writer(self, name: str, **options: Any) -> Writer:
        return self.writer(self, super().open_writer(name, **options), name, **options)

    def plain_writer(self, name: str) -> Writer:
        return Memory.open_writer(self, name)


@breaks(
    "atomicity.nothing_visible_before_commit",
    "atomicity.old_value_until_commit",
    "atomicity.abort_leaves_nothing",
    "atomicity.failed_block_aborts",
)
class ShowsWhatIsWritten(Wrapping):
    class writer(WrappedWriter):  # noqa: N801 - stands for the attribute
        so_far = b""

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.inner.write(data)
            self.so_far += bytes(data)
            with Memory.open_writer(self.backend, self.name) as early:
                early.write(self.so_far)


@breaks("atomicity.nothing_visible_before_commit", "atomicity.old_value_until_commit")
class ListsTemporaryNames(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.inner.write(data)
            with Memory.open_writer(self.backend, self.name + ".tmp") as temporary:
                temporary.write(data)

        def commit(self) -> None:
            self.inner.commit()
            self.backend.delete(self.name + ".tmp")


@breaks("naming.reserved_names_are_never_listed")
class ListsReservedNames(Memory):
    def list(self, name: str) -> Iterator[ItemInfo]:
        yield from super().list(name)
        yield ItemInfo(".backupgw-tmp-1", True, 1, False)


@breaks("atomicity.wrong_hash_stores_nothing", "checkpoint.checkpoint_keeps_the_terms")
class IgnoresTheHash(Memory):
    def open_writer(self, name: str, **options: Any) -> Writer:
        return super().open_writer(name, **{**options, "expected_hash": None})


@breaks("atomicity.wrong_content_is_told_though_the_name_is_taken")
class LooksAtTheNameAlone(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def commit(self) -> None:
            if self.options.get("if_absent") and self.backend.info(self.name).exists:
                raise ObjectExists(self.name)
            self.inner.commit()


@breaks("atomicity.wrong_size_stores_nothing")
class IgnoresTheSize(Memory):
    def open_writer(self, name: str, **options: Any) -> Writer:
        return super().open_writer(name, **{**options, "size": None})


@breaks("atomicity.wrong_hash_stores_nothing")
class ComplainsAfterStoring(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def commit(self) -> None:
            self.inner.commit()
            if self.options.get("expected_hash") == hashlib.sha256(b"something else").hexdigest():
                raise ContentMismatch(self.name)

    def open_writer(self, name: str, **options: Any) -> Writer:
        inner = Memory.open_writer(self, name)
        return self.writer(self, inner, name, **options)


@breaks("atomicity.if_absent_keeps_the_old", "concurrency.one_thread_creates")
class ChecksAbsenceTooEarly(Memory):
    def open_writer(self, name: str, **options: Any) -> Writer:
        if options.pop("if_absent", False) and self.info(name).exists:
            raise ObjectExists(name)
        return super().open_writer(name, **options)


@breaks("concurrency.one_thread_creates")
class LooksBeforeItLeaps(Wrapping):
    """if_absent by looking and then writing, with the window that this leaves."""

    class writer(WrappedWriter):  # noqa: N801
        window = threading.Barrier(2)

        def commit(self) -> None:
            if self.options.get("if_absent") and self.backend.info(self.name).exists:
                self.inner.abort()
                raise ObjectExists(self.name)
            try:
                self.window.wait(0.05)
            except threading.BrokenBarrierError:
                self.window.reset()
            self.inner.commit()

    def open_writer(self, name: str, **options: Any) -> Writer:
        return self.writer(self, Memory.open_writer(self, name), name, **options)


@breaks("atomicity.commit_again_after_the_old_was_removed")
class GivesUpWhenItIsRefused(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def commit(self) -> None:
            try:
                self.inner.commit()
            except ObjectExists:
                self.inner.abort()
                raise


class FollowingReader(MemoryReader):
    """Looks the item up at every read."""

    def __init__(self, backend: Memory, name: str, offset: int, size: int | None) -> None:
        self.source = (backend, name)
        self.at = 0
        with Memory.open_reader(backend, name, offset=offset, size=size) as first:
            self.item_size, self.remaining = first.item_size, first.remaining

    def read(self, size: int) -> bytes:
        backend, name = self.source
        try:
            with Memory.open_reader(backend, name, offset=self.at, size=size) as reader:
                data = reader.read(size)
        except ObjectNotFound:
            return b""
        self.at += len(data)
        self.remaining -= len(data)
        return data

    def close(self) -> None:
        """Nothing to let go of."""


@breaks("atomicity.reader_keeps_the_old_value", "atomicity.reader_survives_delete_or_raises")
class ReadersFollowTheName(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        return FollowingReader(self, name, offset, size)


@breaks("concurrency.threads_see_no_torn_value")
class WritesInPlace(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.so_far = b""

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.so_far += bytes(data)
            with self.backend.plain_writer(self.name) as early:  # type: ignore[attr-defined]
                early.write(self.so_far)
            time.sleep(0.001)  # as disks take their time

        def commit(self) -> None:
            self.inner.abort()


@breaks("concurrency.unrelated_operations_overlap")
class OneAtATime(Wrapping):
    """A writer keeps everybody out until it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = threading.Lock()

    class writer(WrappedWriter):  # noqa: N801
        held = True

        def abort(self) -> None:
            if self.held:
                self.held = False
                self.backend.turn.release()  # type: ignore[attr-defined]

        def commit(self) -> None:
            self.inner.commit()
            self.abort()

    def open_writer(self, name: str, **options: Any) -> Writer:
        if not self.turn.acquire(timeout=2):
            raise TimeoutError
        return super().open_writer(name, **options)


def _swallow_dots(name: str) -> str:
    return "/".join(s for s in name.split("/") if s not in ("", ".", "..")) or "x"


@breaks("naming.hostile_names_are_refused")
class MakesTheBestOfNames(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        return super().open_reader(_swallow_dots(name), offset=offset, size=size)


@breaks("naming.decent_names_come_back")
class NormalisesUnicode(Memory):
    def open_writer(self, name: str, **options: Any) -> Writer:
        return super().open_writer(unicodedata.normalize("NFC", name), **options)


@breaks("naming.decent_names_come_back")
class SplitsLines(Memory):
    def list(self, name: str) -> Iterator[ItemInfo]:
        for info in super().list(name):
            for line in info.name.splitlines():
                yield info._replace(name=line)


@breaks("naming.case_is_kept_apart", "concurrency.threads_see_no_torn_value")
class IgnoresCase(Memory):
    def open_writer(self, name: str, **options: Any) -> Writer:
        folder, slash, last = name.rpartition("/")
        return super().open_writer(folder + slash + last.capitalize(), **options)


@breaks("operations.delete_sized_tells_the_size")
class ForgetsWhatItRemoved(Memory):
    def delete_sized(self, name: str) -> int:
        self.delete(name)
        return 0


@breaks(
    "failing.missing_items_are_not_found",
    "operations.delete_deletes",
    "operations.delete_sized_tells_the_size",
)
class DeletesWhatIsNotThere(Memory):
    def delete(self, name: str) -> None:
        try:
            super().delete(name)
        except ObjectNotFound:
            return


@breaks("failing.missing_items_are_not_found", "failing.folders_are_no_items")
class LeaksOtherErrors(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        try:
            return super().open_reader(name, offset=offset, size=size)
        except ObjectNotFound as error:
            raise FileNotFoundError(name) from error


@breaks("failing.info_never_raises_for_missing")
class InfoRaises(Memory):
    def info(self, name: str) -> ItemInfo:
        info = super().info(name)
        if not info.exists:
            raise ObjectNotFound(name)
        return info


@breaks("failing.info_tells_items_and_folders")
class InfoTellsTheLastSegment(Memory):
    def info(self, name: str) -> ItemInfo:
        return super().info(name)._replace(name=name.rpartition("/")[2])


@breaks("failing.folders_come_and_go")
class RemovesFullFolders(Memory):
    def rmdir(self, name: str) -> None:
        for info in [*self.list(name)]:
            inner = f"{name}/{info.name}"
            self.rmdir(inner) if info.directory else self.delete(inner)
        super().rmdir(name)


@breaks("listing.list_streams")
class ListsAllAtOnce(Memory):
    def list(self, name: str) -> Iterator[ItemInfo]:
        return iter([*super().list(name)])


@breaks("listing.entries_may_vanish")
class ListsPagesByPosition(Memory):
    """Pages counted by position lose entries when earlier ones vanish."""

    def list(self, name: str) -> Iterator[ItemInfo]:
        start = 0
        while page := [*super().list(name)][start : start + 50]:
            yield from page
            start += 50


@breaks("listing.list_is_exact")
class ListsAtMostAHundred(Memory):
    def list(self, name: str) -> Iterator[ItemInfo]:
        for number, info in enumerate(super().list(name)):
            if number < 100:
                yield info


@breaks("listing.list_is_exact")
class ListsFoldersWithSizes(Memory):
    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        return ((item.name, item.size) for item in self.list(name))


@breaks("listing.mtime_is_told")
class TellsMilliseconds(Memory):
    def info(self, name: str) -> ItemInfo:
        info = super().info(name)
        return info._replace(mtime=info.mtime * 1000)

    def list(self, name: str) -> Iterator[ItemInfo]:
        return (info._replace(mtime=info.mtime * 1000) for info in super().list(name))


@breaks("ranges.every_small_range")
class SizeZeroMeansAll(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        return super().open_reader(name, offset=offset, size=size or None)


@breaks("ranges.every_small_range")
class DoesNotClamp(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        length = self.info(name).size
        if offset < -length:
            offset = length
        return super().open_reader(name, offset=offset, size=size)


@breaks("ranges.every_small_range", "ranges.random_big_ranges")
class ItemSizeOfTheRange(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        reader = super().open_reader(name, offset=offset, size=size)
        reader.item_size = reader.remaining
        return reader


@breaks("operations.surely_missing_is_right")
class CallsAnythingMissing(Memory):
    def surely_missing(self, name: str) -> bool:
        return True


@breaks("operations.file_numbers_tell_items_apart")
class OneNumberForAll(Memory):
    def file_number(self, name: str) -> int:
        return 1


@breaks("operations.store_nowait_agrees")
class ReplacesWithoutWaiting(Memory):
    def store_nowait(
        self,
        name: str,
        value: bytes,
        *,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> bool:
        if expected_hash is not None:
            return False
        self.store(name, value)
        return True


@breaks("ranges.nowait_agrees")
class AnotherAnswerWithoutWaiting(Memory):
    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        return self.open_reader(name, offset=0, size=size)


@breaks("ranges.nowait_agrees")
class LoadsWhatIsDeleted(Memory):
    _last: Loaded | None = None

    def load_nowait(self, name: str, *, offset: int = 0, size: int | None = None) -> Loaded | None:
        if self.info(name).exists:
            value = self.load(name)
            self._last = Loaded(self.load(name, offset=offset, size=size), len(value))
        return self._last


class SealedReader(MemoryReader):
    """Changes what it reads, as an encrypting layer does, but shows the file beneath."""

    file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the tests

    def file_span(self) -> FileSpan:
        return FileSpan(self.file.fileno(), 0, self.remaining)


class WrongBufferReader(MemoryReader):
    """Says that it filled a buffer of which it left the last byte as it was."""

    def read_into(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        if data:
            buffer[: len(data) - 1] = data[:-1]
        return len(data)


@breaks("ranges.a_buffer_gets_what_read_returns")
class LeavesAByteOut(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        reader = super().open_reader(name, offset=offset, size=size)
        reader.__class__ = WrongBufferReader
        return reader


@breaks("ranges.file_spans_hold_the_item")
class ShowsTheFileBeneath(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        reader = super().open_reader(name, offset=offset, size=size)
        reader.__class__ = SealedReader
        return reader


class BufferedReader(Reader):
    """Fetches the whole value first."""

    def __init__(self, inner: Reader) -> None:
        self.item_size, self.remaining = inner.item_size, inner.remaining
        self.buffer = io.BytesIO(b"".join(iter(lambda: inner.read(1 << 20), b"")))

    def read(self, size: int) -> bytes:
        data = self.buffer.read(size)
        self.remaining -= len(data)
        return data

    def close(self) -> None:
        self.buffer.close()


@breaks("streaming.big_value_in_bounded_memory", "streaming.copies_in_bounded_memory")
class HoldsWholeValues(Memory):
    def open_reader(self, name: str, **options: Any) -> Any:
        return BufferedReader(super().open_reader(name, **options))


@breaks("streaming.deleted_value_leaves_no_memory")
class NeverForgets(Memory):
    def __init__(self) -> None:
        super().__init__()
        self.remembered: list[Reader] = []

    def delete(self, name: str) -> None:
        self.remembered.append(self.open_reader(name))
        super().delete(name)


@breaks("streaming.any_write_pieces")
class KeepsBuffers(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.pieces: list[bytes | bytearray | memoryview] = []

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.pieces.append(data)

        def commit(self) -> None:
            for piece in self.pieces:
                self.inner.write(piece)
            self.inner.commit()


@breaks("operations.hash_is_right")
class HashesTheFirstMegabyte(Memory):
    def hash(self, name: str, algorithm: str = "sha256") -> str:
        return hashlib.new(algorithm, self.load(name, size=1 << 20)).hexdigest()


@breaks("operations.copy_copies")
class CopyMoves(Memory):
    def copy(self, name: str, new_name: str) -> None:
        self.move(name, new_name)


@breaks("operations.gather_joins")
class GatherSwallowsShortParts(Memory):
    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        return b"".join(self.load(name, offset=at, size=size) for name, at, size in sources)


@breaks("operations.defrag_joins")
class DefragWritesTheRest(Memory):
    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        self.store(target, b"")
        super().defrag(sources, target)


@breaks("operations.move_renames")
class MoveRefusesToReplace(Memory):
    def move(self, name: str, new_name: str) -> None:
        if name != new_name and self.info(new_name).exists:
            raise ObjectExists(new_name)
        super().move(name, new_name)


@breaks("operations.move_renames")
class MoveToItselfLoses(Memory):
    def move(self, name: str, new_name: str) -> None:
        super().move(name, new_name)
        if name == new_name:
            self.delete(name)


@breaks("operations.quarantine_sets_aside")
class QuarantineWithinReach(Memory):
    def quarantine(self, name: str) -> str:
        self.move(name, "quarantined")
        return "quarantined"


@breaks("checkpoint.resumed_elsewhere")
class CheckpointLosesTheTail(Memory):
    def resume_writer(self, token: str) -> Writer:
        self._place.drafts[token].tail.clear()
        return super().resume_writer(token)


@breaks("checkpoint.abandoned_checkpoint")
class GivesNothingUp(Memory):
    def abort_writer(self, token: str) -> None:
        """Forgets to."""


@breaks("checkpoint.finished_checkpoint_is_gone", "checkpoint.abandoned_checkpoint")
class TokensLastForEver(Memory):
    def __init__(self) -> None:
        super().__init__()
        self.all: dict[str, Any] = {}

    def resume_writer(self, token: str) -> Writer:
        if token in self._place.drafts:
            self.all[token] = self._place.drafts[token]
            return super().resume_writer(token)
        return self.open_writer("again")


@breaks("checkpoint.resumed_elsewhere")
class AbortTakesTheCheckpoint(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        token = ""

        def checkpoint(self) -> str:
            self.token = self.inner.checkpoint()
            return self.token

        def abort(self) -> None:
            self.inner.abort()
            self.backend.abort_writer(self.token)


@breaks("checkpoint.marked_writes_go_on")
class MarksMeanNothing(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def mark(self) -> str:
            return "what nobody can carry on"


@breaks("checkpoint.strange_tokens_are_refused")
class TrustsTokens(Memory):
    def abort_writer(self, token: str) -> None:
        super().abort_writer(token)
        if token and "\0" not in token and self.info(token.strip("./")).exists:
            self.delete(token)


@breaks("lifecycle.open_refuses_an_open_backend")
class OpensTwice(Memory):
    def open(self) -> None:
        self._opened = False
        super().open()


@breaks("lifecycle.closed_backend_refuses_operations")
class WorksWhenClosed(Memory):
    def close(self) -> None:
        """Stays open."""


@breaks("lifecycle.create_refuses_what_exists")
class CreatesOverAnExistingPlace(Memory):
    def create(self) -> None:
        self._must_be_closed()
        self._place.root = None
        super().create()


@breaks("lifecycle.destroy_removes_everything")
class DestroysNothing(Memory):
    def destroy(self) -> None:
        self._must_be_closed()


@breaks("atomicity.reap_spares_the_living")
class ReapsEverything(Memory):
    def reap(self, older_than: float) -> int:
        for folder in [*self.list("")]:
            for check in [*self.list(folder.name)]:
                for info in [*self.list(f"{folder.name}/{check.name}")]:
                    self.delete(f"{folder.name}/{check.name}/{info.name}")
        return 1


@breaks("atomicity.ended_writer_takes_nothing")
class WritesForEver(Wrapping):
    class writer(WrappedWriter):  # noqa: N801
        def commit(self) -> None:
            self.inner.commit()
            self.inner = self.backend.plain_writer(self.name)  # type: ignore[attr-defined]


@breaks("concurrency.one_mover_wins")
class MovesByCopying(Memory):
    window = threading.Barrier(2)

    def move(self, name: str, new_name: str) -> None:
        self.copy(name, new_name)
        try:
            self.window.wait(0.05)
        except threading.BrokenBarrierError:
            self.window.reset()
        try:
            self.delete(name)
        except ObjectNotFound:
            return


@breaks("naming.deep_paths_work")
class FlatNames(Memory):
    def open_writer(self, name: str, **options: Any) -> Writer:
        if name.count("/") > 20:
            raise NotADirectoryError(name)
        return super().open_writer(name, **options)


@breaks("lifecycle.tells_its_capabilities")
class QuotaAsADictionary(Memory):
    def quota(self) -> Any:
        return {"limit": -1, "usage": -1}


@breaks("lifecycle.values_outlive_close")
class ForgetsOnClose(Memory):
    def close(self) -> None:
        super().close()
        if self._place.root is not None:
            self._place.root.entries.clear()


@breaks("listing.abandoned_lists_are_harmless")
class ListsAreClosedAtTheirEnd(Memory):
    """As with descriptors that only the end of a listing gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = 1024

    def list(self, name: str) -> Iterator[ItemInfo]:
        self.descriptors -= 1
        if self.descriptors < 0:
            raise OSError(24, "Too many open files")
        yield from super().list(name)
        self.descriptors += 1


class ForgetfulReader(BufferedReader):
    def read(self, size: int) -> bytes:
        return self.buffer.read(size)


@breaks("ranges.readers_count_down", "ranges.every_small_range")
class DoesNotCountDown(Memory):
    def open_reader(self, name: str, **options: Any) -> Any:
        return ForgetfulReader(super().open_reader(name, **options))


@breaks("streaming.every_size_comes_back")
class LosesTheLastByteOfFullBuffers(Memory):
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        length = self.info(name).size
        if length and length % (1 << 20) == 0:
            size = length - 1
        return super().open_reader(name, offset=offset, size=size)


@breaks("operations.store_and_load")
class StoresOnce(Memory):
    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        with self.open_writer(name, if_absent=True) as writer:
            writer.write(value)


@breaks("naming.names_are_text")
class TakesBytesForNames(Memory):
    def info(self, name: Any) -> ItemInfo:
        return super().info(name.decode() if isinstance(name, bytes) else name)


@breaks("naming.root_is_a_folder")
class RootIsNothing(Memory):
    def info(self, name: str) -> ItemInfo:
        return super().info(name)._replace(exists=name != "")


@breaks("naming.quarantine_refuses_hostile_names")
class QuarantinesAnything(Memory):
    def quarantine(self, name: str) -> str:
        return f"elsewhere/{name}"


@breaks("failing.items_are_no_folders")
class ItemsListNothing(Memory):
    def list(self, name: str) -> Iterator[ItemInfo]:
        info = self.info(name)
        return super().list(name) if info.directory or not info.exists else iter(())


@breaks("failing.unknown_hash_is_a_value_error")
class UnknownHashIsAKeyError(Memory):
    def hash(self, name: str, algorithm: str = "sha256") -> str:
        known = {"sha256": hashlib.sha256, "md5": hashlib.md5}
        return known[algorithm](self.load(name)).hexdigest()
