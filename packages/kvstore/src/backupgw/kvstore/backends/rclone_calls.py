"""Calls of rclone's remote control: https://rclone.org/rc/"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from http import HTTPStatus as Http
from typing import Any
from urllib.parse import quote, urlencode

from . import rest_listing
from .errors import BackendError, ObjectNotFound
from .rclone_errors import translate
from .rclone_process import RcloneProcess
from .rclone_remote import Remote
from .rest_incoming import Answer
from .rest_upload import Upload
from .rest_wire import lines_of

PATIENCE = 900.0
"""Seconds without an answer; rclone itself gives a remote up sooner (`--timeout`, 1 minute)."""

LONG = 4 * 3600.0
"""The same where it moves or lists much before it answers."""

AS_TOLD: Mapping[str, object] = {"NoCheckDest": True, "Inplace": True}
"""What makes rclone write to the name it is told, whatever is there."""

AS_SENT: Mapping[str, object] = {**AS_TOLD, "IgnoreSize": True, "IgnoreChecksum": True}
"""The same where others may write to that name: rclone would take another's newer value for its own
damaged one, and remove it. What it sends along is checked by the remote all the same."""

_GROUP = "backupgw"
_MOST = 4 << 20
_ENTRIES = '{"list:'
_BRIEF: Mapping[str, object] = {"noMimeType": True, "noModTime": False}


@dataclass(frozen=True, slots=True)
class Features:
    """What rclone says of a remote (`operations/fsinfo`).

    Attributes:
        root: the path that the remote begins at, where its settings name one; "" for one that
            wraps others.
    """

    root: str
    wraps: bool
    """It stands before other remotes (`alias` does not: rclone puts what it means in its place)."""
    in_buckets: bool
    """The first segment of a path is a bucket's name."""
    about: bool
    copy: bool
    move: bool
    real_folders: bool
    """Folders may be empty."""
    partial_uploads: bool
    """What is being written can be seen."""
    case_sensitive: bool
    hashes: frozenset[str]
    in_memory: bool
    local: bool
    """A disk of this machine."""


class Calls:
    """Calls for one remote. Names are those of the place.

    Args:
        process: the program.
        remote: the remote and the folder in it.

    Attributes:
        confirming: ask after a read whether all of it was one value. A disk's need no question:
            rclone itself looks at what it has open.
    """

    def __init__(self, process: RcloneProcess, remote: Remote) -> None:
        self.confirming = True
        self.process = process
        self.remote = remote

    def ask(
        self, call: str, what: str, parameters: Mapping[str, object], *, timeout: float = PATIENCE
    ) -> dict[str, Any]:
        """Make a call and return its answer.

        Args:
            what: what messages say it is about.

        Raises:
            Repeated: it was not found, and may have been a moment ago.
            BackendError: what rclone's error means.
        """
        answer = self._post(call, parameters, timeout)
        try:
            self._refuse(answer, what)
        except ObjectNotFound as error:
            if answer.repeated:
                raise Repeated(*error.args) from error
            raise
        return self._json(answer, what)

    def at(self, name: str) -> dict[str, object]:
        """The parameters that name an item or folder."""
        return {"fs": self.remote.fs, "remote": self.remote.path(name)}

    def between(self, name: str, new_name: str) -> dict[str, object]:
        """The parameters that name a source and a target in the remote."""
        fs = self.remote.fs
        return {
            "srcFs": fs,
            "srcRemote": self.remote.path(name),
            "dstFs": fs,
            "dstRemote": self.remote.path(new_name),
        }

    def features(self) -> Features:
        """Ask what the remote can do. Raises what its settings lead to."""
        told = self.ask("operations/fsinfo", "", {"fs": self.remote.fs})
        match told:
            case {"Features": dict(has), "Hashes": list(hashes)}:
                return Features(
                    root=str(told.get("Root", "")),
                    wraps=bool(has.get("Overlay")),
                    in_buckets=bool(has.get("BucketBased")),
                    about=bool(has.get("About")),
                    copy=bool(has.get("Copy")),
                    move=bool(has.get("Move")),
                    real_folders=bool(has.get("CanHaveEmptyDirectories")),
                    partial_uploads=bool(has.get("PartialUploads")),
                    case_sensitive=not has.get("CaseInsensitive"),
                    hashes=frozenset(map(str, hashes)),
                    # hasher says it of itself, whatever it stands before
                    local=bool(has.get("IsLocal")) and not has.get("Overlay"),
                    in_memory=str(told.get("String", "")).startswith("Memory root"),
                )
        raise BackendError(f"{self.remote.shown}: rclone's answer cannot be understood")

    def item(self, name: str, *hash_types: str) -> dict[str, Any] | None:
        """Return what rclone knows of an item, None where there is none."""
        option: dict[str, object] = {**_BRIEF, "filesOnly": True}
        if hash_types:
            option.update(showHash=True, hashTypes=list(hash_types))
        try:
            told = self.ask("operations/stat", name, {**self.at(name), "opt": option}, timeout=LONG)
        except ObjectNotFound:
            return None
        item = told.get("item")
        return item if isinstance(item, dict) and not item.get("IsDir") else None

    def entries(
        self, name: str, *, folders_only: bool = False, **parameters: object
    ) -> Generator[dict[str, Any]]:
        """Yield what a folder holds. rclone has all of it in its memory before it answers; here
        it is kept in a temporary file. Raises ObjectNotFound."""
        option: dict[str, object] = {**_BRIEF, "dirsOnly": folders_only}
        option.update(parameters.pop("opt", None) or {})  # type: ignore[call-overload]
        answer = self._post("operations/list", {**self.at(name), "opt": option, **parameters}, LONG)
        self._refuse(answer, name)
        try:
            kept = rest_listing.take(answer)
        except OSError as error:
            raise BackendError(
                f"no room for a listing in this machine's temporary folder: {error.strerror}"
            ) from error
        with kept:
            for entry in rest_listing.objects(kept, name, _ENTRIES):
                if isinstance(entry, dict) and isinstance(entry.get("Name"), str):
                    yield entry

    def any_entry(self, name: str, *, folders_only: bool = False) -> dict[str, Any] | None:
        """Return one entry of a folder, None where it has none. Raises ObjectNotFound."""
        with contextlib.closing(self.entries(name, folders_only=folders_only)) as entries:
            return next(entries, None)

    def get(self, name: str, headers: Mapping[str, str]) -> Answer:
        """Read an item; only the head of the answer was read. Its status is the caller's."""
        target = f"/[{self.remote.fs}]/{self.remote.path(name)}"
        return self.process.connections.request(
            "GET", quote(target), lines=lines_of(headers), timeout=PATIENCE
        )

    def readable(self, name: str) -> bool:
        """Whether `get` can name an item: rclone's pattern ends a remote's name at the first
        bracket, and a path at a line's end."""
        return "]" not in self.remote.fs and "\n" not in self.remote.fs + self.remote.path(name)

    def upload(self, name: str, boundary: str) -> Upload:
        """Begin to send a value that is whole when it ends (`operations/uploadfile`)."""
        folder, _, _ = self.remote.path(name).rpartition("/")
        query = urlencode({"fs": self.remote.fs, "remote": folder, "_group": _GROUP})
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.process.connections.upload(
            f"/operations/uploadfile?{query}", headers, timeout=LONG
        )

    def uploaded(self, answer: Answer, name: str) -> None:
        """Raise what the answer to an upload means, unless it says yes."""
        self._refuse(answer, name)
        answer.release()

    def refusal(self, answer: Answer, what: str) -> BackendError:
        """Return the error that an answer means."""
        said = answer.text()
        try:
            told = json.loads(said)
        except ValueError:
            told = None
        if isinstance(told, dict) and isinstance(told.get("error"), str):
            said = told["error"]
        return translate(answer.status, said, what, self.remote)

    def _post(self, call: str, parameters: Mapping[str, object], timeout: float) -> Answer:
        body = json.dumps({**parameters, "_group": _GROUP}).encode()
        return self.process.connections.request(
            "POST",
            f"/{call}",
            lines="Content-Type: application/json\r\n",
            body=body,
            size=len(body),
            timeout=timeout,
        )

    def _refuse(self, answer: Answer, what: str) -> None:
        if answer.status != Http.OK:
            raise self.refusal(answer, what)

    def _json(self, answer: Answer, what: str) -> dict[str, Any]:
        try:
            told = json.loads(answer.read_all(_MOST) or b"{}")
        except ValueError as error:
            raise BackendError(
                f"{self.remote.shown}: {what}: rclone's answer is no JSON", retryable=True
            ) from error
        return told if isinstance(told, dict) else {}


class Repeated(ObjectNotFound):
    """Nothing is there any more; the call was made twice, and may have done it the first time."""


def seconds(entry: Mapping[str, Any]) -> float:
    """Return an entry's time of change. Go writes nanoseconds; Python reads microseconds."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", str(entry.get("ModTime", "")))
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
