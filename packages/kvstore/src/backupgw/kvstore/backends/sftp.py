"""A folder on an SFTP server as a place.

Items are files under their own names, as with `posixfs`, so what other programs wrote there can be
read, and the other way round. Connections follow ssh's own settings (`sftp_config`), are shared
among operations (`sftp_pool`) and carry many requests at once (`sftp_wire`).

What is promised depends on the server's extensions. With OpenSSH's it is what a local folder
promises: with `durability="full"` a write is acknowledged after the server synced the file, named
it and synced the folder; create-if-absent is a hard link; replacing is one step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from ..names import check_folder, check_path
from . import paramiko_imports  # noqa: F401 - the first of them
from . import sftp_config as config
from . import sftp_moving as moving
from . import sftp_naming as naming
from . import sftp_urls as urls
from . import sftp_wire as wire
from .base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from .checkpoint_tokens import read_token
from .errors import (
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    ObjectNotFound,
    ReadRangeError,
)
from .plan import Plan
from .posixfs_options import Durability, known_durability, mode
from .sftp_answers import Refused
from .sftp_errors import translate
from .sftp_items import item_info, listed
from .sftp_listing import reap_below
from .sftp_login import Credentials, Patience
from .sftp_naming import Features
from .sftp_place import Place, Span
from .sftp_pool import Pool
from .sftp_reach import Reach
from .sftp_root import Root
from .sftp_tree import Tree, attributes_of, is_folder, is_link, link_refused
from .sftp_wire import Session
from .sftp_writer import SftpWriter

logger = logging.getLogger(__name__)

_GATHERED_AT_ONCE = 16
"""Items that `gather` has open at once."""


def from_url(
    url: str,
    *,
    password: str | None = None,
    key_file: str | Sequence[str] | None = None,
    passphrase: str | None = None,
    ssh_config: str | Sequence[str] | None = None,
    known_hosts: str | Sequence[str] | None = None,
    agent: bool = True,
    durability: Durability = "full",
    connections: int = 2,
    sessions: int = 4,
    connect_timeout: float = 30.0,
    timeout: float = 120.0,
    keepalive: float = 30.0,
    file_mode: int = 0o600,
    folder_mode: int = 0o700,
) -> SFTP:
    """Make the backend of `sftp://[user@]host[:port]/relative/path` or `…//absolute/path`.

    Args:
        password: for the login; one in the URL works, too, and is seen by more people.
        key_file: private keys to log in by, in the place of those that ssh's settings name.
        passphrase: of key files that need one.
        ssh_config: files of ssh's settings, "none" for none; otherwise the user's and the system's.
        known_hosts: files of known hosts, in the place of those that ssh's settings name.
        agent: whether ssh's agent is asked for keys.
        durability: "full" has the server sync before anything is acknowledged, where it can.
        connections, sessions: how many SSH connections there are at most, and SFTP sessions in
            each.
        connect_timeout: seconds to connect.
        timeout: seconds without an answer after which a connection counts as broken.
        keepalive: seconds between signs of life on an idle connection.
        file_mode, folder_mode: permission bits of what is made.

    Raises:
        BackendURLInvalid: it is no such URL, or an option has no possible value.
    """
    target = urls.target_of(url)
    files = urls.files("ssh_config", ssh_config)
    if ssh_config is None:
        files = (os.path.expanduser(config.USER_FILE), config.SYSTEM_FILE)
    elif files == ("none",):
        files = ()
    for path in files if ssh_config is not None else ():
        if not os.path.isfile(path):
            raise BackendURLInvalid(f"ssh_config: {path} does not exist")
    reach = Reach(
        target,
        Credentials(
            key_files=urls.files("key_file", key_file),
            password=urls.a_secret("password", password) or target.password,
            passphrase=urls.a_secret("passphrase", passphrase),
        ),
        Patience(
            connect=urls.some_seconds("connect_timeout", connect_timeout),
            answer=urls.some_seconds("timeout", timeout),
            alive=urls.some_seconds("keepalive", keepalive),
        ),
        ssh_config=files,
        known_hosts=urls.files("known_hosts", known_hosts),
        agent=urls.a_switch("agent", agent),
        connections=urls.a_count("connections", connections, 64),
        sessions=urls.a_count("sessions", sessions, 64),
    )
    return SFTP(
        reach,
        sync=known_durability(durability) == "full",
        file_mode=mode("file_mode", file_mode, 0o600),
        folder_mode=mode("folder_mode", folder_mode, 0o700),
    )


def get_sftp_backend(url: str) -> Backend | None:
    """Return the backend of a URL as borgstore's function of that name does; None for others."""
    return from_url(url) if url.startswith("sftp:") else None


class SFTP(Backend):
    """Items as files in a folder on a server; made by `from_url`."""

    def __init__(self, reach: Reach, *, sync: bool, file_mode: int, folder_mode: int) -> None:
        self.server = reach.server
        self._reach = reach
        self._sync = sync
        self._file_mode = file_mode
        self._folder_mode = folder_mode
        self._root = Root(reach.target, folder_mode, sync=sync)
        self._place: Place | None = None
        self.capabilities = _capabilities(None)

    def __repr__(self) -> str:
        return f"SFTP({self.server!r}, {self._reach.target.path!r})"

    # -- the place itself

    def create(self) -> None:
        if self._place is not None:
            raise BackendMustNotBeOpen(self.server)
        pool = self._reach.pool(small=True)
        try:
            pool.run(self._root.create)
        finally:
            pool.close()

    def destroy(self) -> None:
        if self._place is not None:
            raise BackendMustNotBeOpen(self.server)
        pool = self._reach.pool(small=True)
        try:
            pool.run(self._root.destroy)
        finally:
            pool.close()

    def open(self) -> None:
        """Connect and get ready.

        Raises:
            BackendDoesNotExist: there is no such folder.
            BackendConnectionError: the server cannot be reached, or is not the one that is known.
            PermissionDenied: it lets nobody in by what there is.
        """
        if self._place is not None:
            raise BackendMustNotBeOpen(self.server)
        pool = self._reach.pool()
        try:
            place = pool.run(partial(self._found, pool))
        except BaseException:
            pool.close()
            raise
        if self._sync and not place.features.sync:
            logger.warning(
                "%s: the server cannot sync files (it has no %s): what it acknowledged may not "
                "outlast a power loss",
                self.server,
                wire.FSYNC.decode(),
            )
        self._place = place
        self.capabilities = _capabilities(place.features)

    def _found(self, pool: Pool, session: Session) -> Place:
        tree = Tree(self._root.resolved(session), self._folder_mode, sync=self._sync)
        features = naming.features_of(session, tree)
        sync = self._sync and features.sync
        return Place(pool, tree, features, sync=sync, file_mode=self._file_mode)

    def close(self) -> None:
        place, self._place = self._opened, None
        place.pool.close()

    @property
    def _opened(self) -> Place:
        if self._place is None:
            raise BackendMustBeOpen(self.server)
        return self._place

    # -- folders

    def mkdir(self, name: str) -> None:
        self.mkdirs([check_path(name)])

    def mkdirs(self, names: Iterable[str]) -> None:
        wanted = [check_path(name) for name in names]
        place = self._opened
        place.pool.run(lambda session: place.tree.make_folders(session, wanted))

    def rmdir(self, name: str) -> None:
        check_path(name)
        place = self._opened

        def remove(session: Session) -> None:
            parent = name.rpartition("/")[0]
            place.tree.require_inside(session, parent)
            request = session.send(wire.RMDIR, wire.text(place.tree.path(name)))
            try:
                session.done(request)
            except Refused as error:
                found = place.tree.look(session, [name])[name]
                if found is not None and is_folder(found) and error.code == wire.FAILURE:
                    raise BackendError(f"{name}: the folder is not empty") from error
                if found is not None and not is_folder(found):
                    raise BackendError(f"{name} is an item, not a folder") from error
                raise translate(error, name) from error
            place.tree.sync_folders(session, [parent])

        place.pool.run(remove)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        return listed(self._opened, name)

    # -- items

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        place = self._opened

        def look(session: Session) -> ItemInfo:
            asked = place.tree.ask_inside(session, name.rpartition("/")[0])
            found = place.tree.look(session, [name])[name]
            place.tree.confirm_inside(session, name.rpartition("/")[0], asked)
            if found is not None and is_link(found):
                raise link_refused(name)
            info = item_info(name, found) if found is not None else None
            return info or ItemInfo(name, exists=False, size=0, directory=False)

        return place.pool.run(look)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        place = self._opened
        wanted = [Span(name, offset, size)]
        seat, (reader,) = place.pool.hold(lambda session: place.open_readers(session, wanted))
        reader.let_go = partial(place.pool.give, seat)
        return reader

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        return self._writer(Plan(name, size, if_absent, expected_hash))

    def _writer(self, plan: Plan) -> SftpWriter:
        place = self._opened
        seat, begun = place.pool.hold(lambda session: place.begin_write(session, plan.name))
        return SftpWriter(place, seat, plan, begun)

    def resume_writer(self, token: str) -> Writer:
        plan, part = read_token(token)
        place = self._opened
        seat, begun = place.pool.hold(lambda session: place.begin_again(session, plan, part))
        writer = SftpWriter(place, seat, plan, begun)
        try:
            writer.catch_up(begun.size)
        except BaseException:
            writer.abort()
            raise
        return writer

    def abort_writer(self, token: str) -> None:
        plan, part = read_token(token)
        place = self._opened
        folder = plan.name.rpartition("/")[0]

        def remove(session: Session) -> None:
            place.tree.require_inside(session, folder)
            path = place.tree.path(f"{folder}/{part}" if folder else part)
            try:
                session.done(session.send(wire.REMOVE, wire.text(path)))
            except Refused as error:
                if error.code != wire.NO_SUCH_FILE:
                    raise translate(error, plan.name) from error

        place.pool.run(remove)

    def delete(self, name: str) -> None:
        self._delete(name, sized=False)

    def delete_sized(self, name: str) -> int:
        return self._delete(name, sized=True)

    def _delete(self, name: str, *, sized: bool) -> int:
        """Remove an item. With `sized`, what it has is asked for just before, and not waited for
        by itself."""
        check_path(name)
        place = self._opened
        attempts, size = 0, 0

        def remove(session: Session) -> None:
            nonlocal attempts, size
            attempts += 1
            parent = name.rpartition("/")[0]
            place.tree.require_inside(session, parent)
            path = wire.text(place.tree.path(name))
            looked = session.send(wire.LSTAT, path) if sized else None
            request = session.send(wire.REMOVE, path)
            sync = place.tree.syncing(session, parent)
            try:
                if looked is not None and (found := attributes_of(session, looked, name)):
                    size = found.size or 0
                session.done(request)
            except Refused as error:
                if attempts > 1 and error.code == wire.NO_SUCH_FILE:
                    return  # done by the attempt whose answer was lost
                found = place.tree.look(session, [name])[name]
                if found is not None and is_folder(found):
                    raise ObjectNotFound(f"{name} is a folder, not an item") from error
                raise translate(error, name) from error
            finally:
                sync()

        place.pool.run(remove)
        return size

    def move(self, name: str, new_name: str) -> None:
        moving.move(self._opened, check_path(name), check_path(new_name), naming.replace)

    def move_if_absent(self, name: str, new_name: str) -> None:
        moving.move(self._opened, check_path(name), check_path(new_name), naming.name_new)

    def quarantine(self, name: str) -> str:
        return moving.quarantine(self._opened, check_path(name))

    # -- optional operations

    def sync(self, name: str) -> None:
        check_path(name)
        place = self._opened
        if not place.sync:
            return

        def sync(session: Session) -> None:
            handle = place.begin_read(session, name).handle
            try:
                session.done(session.extended(wire.FSYNC, wire.text(handle)))
            except Refused as error:
                raise translate(error, name) from error
            finally:
                session.forget(wire.CLOSE, wire.text(handle))
            place.tree.sync_folders(session, [name.rpartition("/")[0]])

        place.pool.run(sync)

    def copy(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        if not self._opened.features.copy:
            super().copy(name, new_name)
            return
        self._joined([(name, 0, None)], new_name)

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        check_path(target)
        for name, _, _ in sources:
            check_path(name)
        if not self._opened.features.copy or any(offset < 0 for _, offset, _ in sources):
            super().defrag(sources, target)
            return
        self._joined(sources, target)

    def _joined(self, sources: Sequence[tuple[str, int, int | None]], target: str) -> None:
        """Have the server write parts of items one after the other as another one."""
        place = self._opened
        with self._writer(Plan(target, None, False, None)) as writer:
            for name, offset, size in sources:
                handle, total, _ = place.begin_read(writer.session, name)
                try:
                    wanted = total if size is None else size
                    if offset + wanted > total:
                        rest = max(total - offset, 0)
                        raise ReadRangeError(f"{name}: {rest} of {wanted} bytes at {offset}")
                    writer.copy_from(handle, offset, wanted)
                finally:
                    writer.session.forget(wire.CLOSE, wire.text(handle))

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        place = self._opened
        rest = iter([(check_path(name), offset, size) for name, offset, size in sources])
        found = bytearray()
        while some := tuple(islice(rest, _GATHERED_AT_ONCE)):
            found += place.pool.run(partial(_gathered, place, some))
        return bytes(found)

    def quota(self) -> Quota:
        place = self._opened
        room = place.pool.run(place.room)
        return Quota() if room is None else Quota(room.total, room.total - room.free)

    def reap(self, older_than: float) -> int:
        place = self._opened

        def reap(session: Session) -> int:
            return reap_below(session, place.tree, partial(place.reap_entry, session), older_than)

        return place.pool.run(reap)


def _capabilities(features: Features | None) -> Capabilities:
    """What the place does natively; before it is open, what a server of today does."""
    return Capabilities(
        atomic_create=features is None or features.link,
        ranges=True,
        resumable_write=True,
        move=True,
        copy=features is not None and features.copy,
        mtime=True,
        parallel_lists=True,
        quota=features is not None and features.room,
    )


def _gathered(place: Place, sources: Sequence[tuple[str, int, int]], session: Session) -> bytes:
    """Read parts of items, all of which are asked for before the first is waited for."""
    readers = place.open_readers(session, [Span(*source) for source in sources])
    try:
        found = bytearray()
        for reader, (name, offset, size) in zip(readers, sources, strict=True):
            if reader.remaining != size:
                raise ReadRangeError(f"{name}: {reader.remaining} of {size} bytes at {offset}")
            while part := reader.read(size):
                found += part
        return bytes(found)
    finally:
        for reader in readers:
            reader.close()
