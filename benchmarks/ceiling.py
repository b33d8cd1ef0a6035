"""A server that does nothing: what the load generator could do at most on this machine.

`python -m benchmarks.ceiling STORE PORT`. One process per connection, canned
answers from one mapped file of the store, uploads read and thrown away. It understands just
enough of HTTP for the requests of benchmarks.load.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import socket
import sys
from pathlib import Path

RANGE = re.compile(rb"Range: bytes=(\d+)-(\d*)")
LENGTH = re.compile(rb"Content-Length: (\d+)")
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def serve(sock: socket.socket, store: str) -> None:
    """Answer the requests of one connection until it is closed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    files: dict[str, memoryview] = {}
    while got := sock.recv_into(view):
        end = buffer.find(b"\r\n\r\n", 0, got)
        head = bytes(view[:end])
        method, target, _ = head.split(b" ", 2)
        if method == b"HEAD":
            sock.sendall(MISSING)
            continue
        if method == b"POST":
            declared = LENGTH.search(head)
            left = int(declared[1]) if declared else 0
            left -= got - end - 4
            while left:
                left -= sock.recv_into(view[: min(left, len(view))])
            sock.sendall(DONE)
            continue
        name = target.decode().rsplit("/", 1)[1]
        if name not in files:
            repo = target.decode().split("/")[1]
            with open(f"{store}/{repo}/data/{name[:2]}/{name}", "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            files[name] = memoryview(mapped)
        wanted = RANGE.search(head)
        start = int(wanted[1]) if wanted else 0
        stop = int(wanted[2]) + 1 if wanted and wanted[2] else len(files[name])
        body = files[name][start:stop]
        answer = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % len(body)
        if len(body) < 1 << 16:
            sock.sendall(answer + body)
        else:
            sock.sendall(answer)
            sock.sendall(body)


def main(store: str, port: str) -> None:
    """Accept until told to stop; each connection gets a process."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.create_server(("127.0.0.1", int(port)))
    while True:
        sock, _ = listener.accept()
        if os.fork():
            sock.close()
            continue
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            serve(sock, store)
        except OSError:
            os._exit(1)  # the client went away, or only looked whether somebody listens
        os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    main(*sys.argv[1:])
