"""A stand-in for the gateway whose defects can be chosen, to prove that the fault tests see them.

It stores blobs as the gateway promises to: nameless file, sync, link, folder sync, answer. Each
flaw leaves one of these out:

    no-file-sync      the nameless file is not synced
    no-folder-sync    the folder is not synced after the link or the removal
    no-parent-sync    a new folder is not synced in its parent
    early-answer      200 goes out before the folder is synced
    in-place          bytes are written under the final name
    leaves-temporary  a named temporary file, which stays after a failure, and is listed
    error-500         a full disk is answered as an internal error
    whole-body        an upload is held in memory, and so is a listing

    python -m tests.faults.flawed_server --path DIR --listen 127.0.0.1:0 --flaws in-place,…
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 1 << 16
NUMBERS = itertools.count()
FLAWS: set[str] = set()
ROOT = Path()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        target, _, query = self.path.partition("?")
        place = place_of(target)
        try:
            if query == "create=true":
                make_folder(place)
                self._answer(200, b"")
            elif not self._receive(place, self._body()):
                self._answer(400, b"the hash differs\n")
            elif "early-answer" in FLAWS:
                self._answer(200, b"")
                sync_folder(place.parent)
            else:
                sync_folder(place.parent)
                self._answer(200, b"")
        except OSError as error:
            self.close_connection = True
            full = error.errno in (errno.ENOSPC, errno.EDQUOT) and "error-500" not in FLAWS
            self._answer(507 if full else 500, b"no room\n")

    def do_GET(self) -> None:
        place = place_of(self.path)
        if self.path.endswith("/"):
            self._list(place)
        elif place.is_file():
            self._answer(200, place.read_bytes())
        else:
            self._answer(404, b"")

    def do_DELETE(self) -> None:
        place = place_of(self.path)
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
            sync_folder(place.parent)
        self._answer(200, b"")

    def _body(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", 0))
        if "whole-body" in FLAWS:
            yield self.rfile.read(left)
            return
        while left:
            chunk = self.rfile.read(min(left, CHUNK))
            if not chunk:
                raise ConnectionResetError("short body")
            left -= len(chunk)
            yield chunk

    def _receive(self, place: Path, body: Iterator[bytes]) -> bool:
        """Store a body as `place`; False if its hash is not its name."""
        make_folder(place.parent)
        named = place if "in-place" in FLAWS else None
        if "leaves-temporary" in FLAWS:
            named = place.with_name(f".new-{next(NUMBERS)}")
        flags = os.O_CREAT | os.O_TRUNC if named else os.O_TMPFILE
        digest = hashlib.sha256()
        with open(os.open(named or place.parent, os.O_WRONLY | flags, 0o600), "wb") as file:
            for chunk in body:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            if "no-file-sync" not in FLAWS:
                os.fsync(file.fileno())
            if place.name not in ("config", digest.hexdigest()):
                return False
            if not named:
                show(file.fileno(), place)
            elif named != place:
                named.rename(place)
        return True

    def _list(self, folder: Path) -> None:
        if folder.name == "data":
            files: Iterator[Path] = folder.glob("??/*")
        else:
            files = folder.glob("*")
        if "leaves-temporary" not in FLAWS:
            files = (file for file in files if not file.name.startswith("."))
        entries = [{"name": file.name, "size": file.stat().st_size} for file in files]
        self._answer(200, json.dumps(entries).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing: nobody reads the control's access log."""


def place_of(target: str) -> Path:
    parts = target.strip("/").split("/")
    if len(parts) > 1 and parts[-2] == "data":
        parts.insert(-1, parts[-1][:2])
    return ROOT.joinpath(*parts)


def show(descriptor: int, place: Path) -> None:
    """Give a nameless file its name; one that is there already has the same content."""
    folder = os.open(place.parent, os.O_PATH)
    try:
        # With a folder descriptor, link follows the descriptor's symbolic link.
        os.link(f"/proc/self/fd/{descriptor}", place.name, dst_dir_fd=folder, follow_symlinks=True)
    except FileExistsError:
        pass
    finally:
        os.close(folder)


def make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    if "no-parent-sync" not in FLAWS:
        sync(folder.parent)


def sync_folder(folder: Path) -> None:
    if "no-folder-sync" not in FLAWS:
        sync(folder)


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    global ROOT
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--flaws", default="")
    options = parser.parse_args()
    ROOT = options.path
    FLAWS.update(flaw for flaw in options.flaws.split(",") if flaw)
    host, _, port = options.listen.rpartition(":")
    ThreadingHTTPServer.request_queue_size = 64
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    print(f"start server on {host}:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
