"""Bodies that lie in a file of this machine, sent by threads.

A thread writes from the page cache to the socket, without a buffer of ours.

The bytes are written from a mapping of the file. sendfile(2) was slower where it was measured: it
hands the receiver single pages, which cost both sides more than the copy that it saves. A mapping
shows zeros behind the end of a file that is cut short, up to the end of the page; so the last
bytes of every body are read, and a body whose file has become shorter never ends well.
"""

from __future__ import annotations

import errno
import mmap
import os

from backupgw.runtime.http.thread_body import ThreadBody, takes_more

FILE_BODY = "backupgw.file"
"""The ASGI extension, and the type of its message: `fd`, `offset` and `size` (bytes, at least 1)
of the whole body, sent after `http.response.start` with the same Content-Length. The descriptor
must stay open until `send` returns. Not offered where TLS needs the bytes itself."""

WINDOW = 4 << 20  # bytes mapped at a time: large writes wake the receiver less often
TURN = 4 * WINDOW  # bytes after which a thread lets others have their turn
TAIL = 64 << 10  # bytes at the end of a body that are read


class CutShort(OSError):
    """The file ends before what was announced of it."""


def send_span(sock: int, fd: int, offset: int, size: int) -> int:
    """Send `size` bytes of a file from `offset` on; return how many were sent.

    Returns early when the socket, which must not block, takes nothing for a moment, after a turn,
    and before an error, which the next call meets. Blocks for reading only.

    Raises:
        CutShort: the file has become too short.
        ConnectionError: the peer is gone.
        OSError: the file cannot be read.
    """
    sent = 0
    while sent < min(size, TURN):
        try:
            taken, whole = _send_window(sock, fd, offset + sent, offset + size)
        except OSError:
            if sent:
                return sent  # the next call will say it
            raise
        sent += taken
        if not whole:
            break
    return sent


def _send_window(sock: int, fd: int, start: int, end: int) -> tuple[int, bool]:
    """Send the next bytes of a body that ends before `end`.

    Returns how many, and whether the socket took all that were offered.
    """
    with _window(fd, start, end) as view:
        sent = 0
        while sent < len(view):
            try:
                sent += os.write(sock, view[sent:])
            except BlockingIOError:
                if not takes_more(sock):
                    break
            except OSError as error:
                if sent:
                    break
                if error.errno != errno.EFAULT or os.pread(fd, 1, start):
                    raise
                # A page of the mapping cannot be had, for the file ends before it.
                raise CutShort("the file was cut short while it was sent") from error
        return sent, sent == len(view)


def _window(fd: int, start: int, end: int) -> memoryview:
    """Return the next bytes of a body that ends before `end`: mapped, or read where that is safer.

    The mapping ends with the last reference to the view.
    """
    stop = min(start + WINDOW, end - TAIL)
    if stop - start >= TAIL:
        skipped = start % mmap.ALLOCATIONGRANULARITY
        try:
            mapped = mmap.mmap(
                fd, stop - start + skipped, prot=mmap.PROT_READ, offset=start - skipped
            )
        except (OSError, ValueError):
            pass  # not every file system has mappings, and a file too short is found by reading
        else:
            return memoryview(mapped)[skipped:]
    data = os.pread(fd, min(end - start, 2 * TAIL), start)
    if not data:
        raise CutShort("the file was cut short while it was sent")
    return memoryview(data)


class FileBody(ThreadBody):
    """A body that lies in a file.

    Args:
        fd: of the file.
        offset: in bytes. size: the same.
    """

    def __init__(self, fd: int, offset: int, size: int) -> None:
        super().__init__(size)
        self._fd = fd
        self._offset = offset

    def _turn(self, sock: int) -> tuple[int, bool]:
        sent = send_span(sock, self._fd, self._offset, self.left)
        self._offset += sent
        return sent, sent < TURN
