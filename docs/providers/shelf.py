"""A provider on a shelf: a folder that is reached by other means than this program's.

The example of `writing-your-own.md`. It does by hand what a provider on the network does by its
library: it retries, writes under another name first, tells of progress, and says why it failed.
"""

import os
import shutil
import time
from pathlib import Path

from .base import BaseProvider
from .fields import path

PIECE = 1 << 20


class ShelfProvider(BaseProvider):
    """Files in a folder."""

    title = "Shelf"
    concurrent = True  # nothing here is changed by two calls at a time
    fields = (path("container", "the folder that is the shelf", required=True),)

    def __init__(self, config):
        super().__init__(config)
        self.root = Path(self.values["container"])

    def upload(self, file_path, remote_name, progress_callback=None):
        target = self._path(remote_name)
        # Beside the others, under a name that list_files leaves out, until it is whole.
        temporary = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
        return self._tried(lambda: self._store(file_path, temporary, target, progress_callback))

    def _store(self, source, temporary, target, progress_callback):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._copy(source, temporary, progress_callback)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def download(self, remote_name, local_path, progress_callback=None):
        local_path = Path(local_path)
        temporary = local_path.with_name(f".{local_path.name}.part")

        def fetch():
            try:
                self._copy(self._path(remote_name), temporary, progress_callback)
                os.replace(temporary, local_path)
            finally:
                temporary.unlink(missing_ok=True)

        return self._tried(fetch)

    def list_files(self, prefix="", max_files=1000):
        # An error leaves this method: an empty list would say that nothing is there.
        os.listdir(self.root)
        found = []
        for file in self.root.rglob("*"):
            name = file.relative_to(self.root).as_posix()
            if file.is_file() and not file.name.startswith(".") and name.startswith(prefix):
                status = file.stat()
                found.append({"name": name, "size": status.st_size, "mtime": status.st_mtime})
            if len(found) >= max_files:
                break
        return found

    def delete(self, remote_name):
        return self._tried(lambda: self._path(remote_name).unlink())

    def test_connection(self):
        return self._tried(lambda: os.listdir(self.root))

    def _path(self, name):
        return self.root / name

    def _copy(self, source, target, progress_callback):
        size, done = os.stat(source).st_size, 0
        with open(source, "rb") as read, open(target, "xb") as write:
            while piece := read.read(PIECE):
                write.write(piece)
                done += len(piece)
                if progress_callback:
                    progress_callback(done, size)
            write.flush()
            os.fsync(write.fileno())
        shutil.copystat(source, target)

    def _tried(self, work):
        """Do it, several times if need be; False with `last_error` set when it cannot be done."""
        self.last_error = None
        for attempt in range(self.max_retries):
            try:
                work()
                return True
            except (TimeoutError, ConnectionError) as error:  # what may be better in a moment
                self.last_error = error
                if attempt + 1 < self.max_retries:
                    time.sleep(self.retry_delay * 2**attempt)
            except OSError as error:
                self.last_error = error
                break
        self.logger.error("failed: %s", self.last_error)
        return False
