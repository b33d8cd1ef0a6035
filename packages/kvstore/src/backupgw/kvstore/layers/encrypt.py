"""What a place holds is encrypted before it gets there, and authenticated when it comes back.

Each item is a file of the age format (`encrypt_age`), so an operator can read it without this
program: `age -d -i KEY FILE`. Where there is a passphrase, the place keeps its key itself, as an
age file too. Sizes and hashes that this layer tells and checks are those of the plain bytes; sizes
follow from the sizes of the files, so listing reads nothing.

What is proven to a reader: each byte was written by somebody with the key, at this offset of one
and the same item, and where the end of the item is read, that it is the end. What is not: that the
item was not exchanged for another one written with the same key, or for an older version of
itself. Content is not bound to its name, since then moving an item, and so deleting it into the
trash, would mean to write it anew; the formats that backups are written in name or sign their
content themselves. Sealed names keep whoever cannot read them from choosing what to exchange.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from ..backends.base import Backend, Capabilities, ItemInfo, Reader, Writer
from ..backends.errors import BackendError, ObjectExists, ObjectNotFound
from ..backends.plan import Plan
from ..names import RESERVED_PREFIX, KernelPath, check_folder, check_path
from . import options
from .base import Layer, changed
from .encrypt_age import (
    START,
    WORK_FACTOR,
    Key,
    Undecryptable,
    file_size,
    open_under_passphrase,
    plain_size,
    seal_under_passphrase,
    stretch_of,
)
from .encrypt_checkpoints import Stopped
from .encrypt_keys import make_key, read_key
from .encrypt_names import KeyedNames, Names, ReadableNames
from .encrypt_streams import EncryptWriter, open_item
from .encrypt_stretching import Stretch, Stretching

logger = logging.getLogger(__name__)

KEY_FILE = KernelPath(f"{RESERVED_PREFIX}-encrypt/key.age")
"""Where there is a passphrase: the place's key, which it opens."""

PLACE_FILE = KernelPath(f"{RESERVED_PREFIX}-encrypt/place.age")
"""How the place is written; that the key opens it shows that it is the right one."""


_HANDED_ON = "encrypt"
"""The key, in what processes hand on."""


class NameStyle(StrEnum):
    """What becomes of names."""

    KEYED = "keyed"
    READABLE = "readable"


def from_options(
    inner: Backend,
    *,
    key: object = None,
    passphrase: object = None,
    names: object = NameStyle.KEYED,
) -> EncryptLayer:
    """Make the layer from settings.

    Args:
        key: what age-keygen wrote; a secret.
        passphrase: instead of a key, which is then made and kept in the place; a secret.
        names: "keyed" or "readable".
    """
    if (key is None) == (passphrase is None):
        raise options.OptionInvalid("key", "give one of key and passphrase")
    if names not in list(NameStyle):
        raise options.OptionInvalid("names", f'must be "keyed" or "readable", not {names!r}')
    style = NameStyle(str(names))
    if passphrase is not None:
        return EncryptLayer(inner, passphrase=options.text("passphrase", passphrase), names=style)
    if not isinstance(key, str):
        raise options.OptionInvalid("key", "must be text, AGE-SECRET-KEY-1…")
    try:
        return EncryptLayer(inner, secret=read_key(key), names=style)
    except ValueError as error:
        raise options.OptionInvalid("key", str(error)) from error


class EncryptLayer(Layer):
    """A backend whose inner one sees nothing but age files.

    Args:
        secret: the key's 32 bytes.
        passphrase: instead of it; the key is in the place, made when the place is new.
        names: what becomes of names; the same for a place at all times.
        work: scrypt's work factor for a key that is made.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        secret: bytes | None = None,
        passphrase: str | None = None,
        names: NameStyle = NameStyle.KEYED,
        work: int = WORK_FACTOR,
    ) -> None:
        super().__init__(inner)
        if (secret is None) == (passphrase is None):
            raise ValueError("give one of secret and passphrase")
        self._passphrase = passphrase
        self._style = names
        self._work = work
        self._key: Key | None = None
        self._secret: bytes | None = None
        self._names: Names = ReadableNames()
        self._early = False
        self._proven = False
        """Whether another process has seen that the key is the right one."""
        self._stretching: Stretching | None = None
        self.stretch: Stretch | None = None
        """How the passphrase is stretched, once the place's key was read by it."""
        if secret is not None:
            self._use(secret)

    def take_stretching(self, stretching: Stretching) -> None:
        """Open the place by its passphrase, whose stretching has begun already; where the place
        asks for another one, that is done instead."""
        self._stretching = stretching

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._key = Key(secret)
        self._names = KeyedNames(self._key) if self._style is NameStyle.KEYED else ReadableNames()

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        inner = self.inner.capabilities
        keyed = self._style is NameStyle.KEYED
        return changed(
            super().capabilities,
            copy=inner.copy,
            resumable_write=inner.resumable_write,
            case_sensitive=inner.case_sensitive or keyed,  # sealed names are lower case
        )

    # -- the place itself

    def handed_on(self) -> Mapping[str, object]:
        """As `Backend.handed_on`: the key is among it, so that another process needs no passphrase,
        whose stretching takes a while."""
        self._opened_key()
        return {**self.inner.handed_on(), _HANDED_ON: self._secret}

    def take_over(self, found: Mapping[str, object]) -> None:
        secret = found[_HANDED_ON]
        assert isinstance(secret, bytes)
        self._use(secret)
        self._proven = True
        self.inner.take_over(found)

    def open_early(self) -> None:
        """Open what lies beneath, while somebody else still finds out the key. `take_over` and
        `open` are to follow; without them nothing can be asked.

        Raises:
            BackendError: it cannot be opened, as by `open`, which then tries again.
        """
        self.inner.open()
        self._early = True

    def open(self) -> None:
        """Open the place and see that the key is the right one; a place without items gets one.

        Raises:
            Undecryptable: the key or the passphrase is not this place's.
            BackendError: it was not written by this layer, or with names in the other style.
        """
        if not self._early:
            self.inner.open()
        self._early = False
        if self._proven:
            return
        try:
            if not self.inner.info(PLACE_FILE).exists:
                self._begin()
            self._read_place()
        except BaseException:
            self.inner.close()
            raise
        finally:
            if self._stretching is not None:
                self._stretching.drop()
                self._stretching = None

    def _begin(self) -> None:
        """Make what an encrypted place has; another process may be at it as well."""
        if next(self.inner.list(""), None) is not None:
            if self.inner.info(PLACE_FILE).exists:
                return  # it was, and has stored something already
            raise BackendError(
                f"{self.inner!r} holds items, but {PLACE_FILE} is missing: either they are not "
                "encrypted, or it was lost; encryption begins with an empty place"
            )
        if self._passphrase is not None:
            key = make_key()
            file = seal_under_passphrase(f"{key}\n".encode(), self._passphrase, work=self._work)
            self._put(KEY_FILE, file)
            if self.inner.load(KEY_FILE) == file:
                self._use(read_key(key))  # what the passphrase opens is known: once is enough
                self.stretch = stretch_of(file)
            else:
                self._read_key()
        start, content = self._opened_key().begin()
        place = json.dumps({"version": 1, "names": self._style}).encode()
        self._put(PLACE_FILE, start + content.seal(0, place, last=True))

    def _put(self, name: KernelPath, file: bytes) -> None:
        try:
            with self.inner.open_writer(name, size=len(file), if_absent=True) as writer:
                writer.write(file)
        except ObjectExists:
            logger.debug("%s was made by another process just now", name)

    def _read_key(self) -> None:
        passphrase = self._passphrase
        if passphrase is None:
            return
        try:
            file = self.inner.load(KEY_FILE)
            text = open_under_passphrase(file, passphrase, self._stretching).decode()
            self._use(read_key(text))
            self.stretch = stretch_of(file)
        except ObjectNotFound as error:
            raise BackendError(
                f"{KEY_FILE} is missing: it was lost, or this place has a key and no passphrase"
            ) from error
        except (Undecryptable, ValueError) as error:
            raise Undecryptable(f"{KEY_FILE}: {error}") from error

    def _read_place(self) -> None:
        if self._key is None:
            self._read_key()
        file = self.inner.load(PLACE_FILE)
        try:
            opened = self._opened_key().read(file[:START]).open(0, file[START:], last=True)
            told = json.loads(opened)
        except Undecryptable as error:
            raise Undecryptable(f"{PLACE_FILE}: {error}; is this the place's key?") from error
        if told.get("version") != 1:
            raise BackendError(f"{PLACE_FILE}: a newer version of this program wrote the place")
        if told.get("names") != self._style:
            raise BackendError(
                f"the place was written with names = {told.get('names')!r}, "
                f"not {self._style.value!r}"
            )

    def _opened_key(self) -> Key:
        if self._key is None:
            # Not open: the inner backend says so to whatever is asked of it.
            self.inner.info("")
            raise BackendError("the place's key was not read")
        return self._key

    # -- folders and what is known without reading

    def _sealed(self, name: str) -> str:
        self._opened_key()
        return self._names.sealed(check_folder(name))

    def _item(self, name: str) -> str:
        return self._sealed(check_path(name))

    def mkdir(self, name: str) -> None:
        self.inner.mkdir(self._sealed(name))

    def mkdirs(self, names: Iterable[str]) -> None:
        self.inner.mkdirs(self._item(name) for name in names)

    def rmdir(self, name: str) -> None:
        self.inner.rmdir(self._item(name))

    def info(self, name: str) -> ItemInfo:
        return _plain(self.inner.info(self._sealed(name)), name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        return self._entries(name, self.inner.list(self._sealed(name)))

    def _entries(self, folder: str, entries: Iterator[ItemInfo]) -> Iterator[ItemInfo]:
        for info in entries:
            segment = self._names.opened(folder, info.name)
            if segment is None:
                logger.warning(
                    "%s in %r is no name that this place's key sealed", info.name, folder
                )
                continue
            yield _plain(info, segment)

    # -- reading

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        sealed = self._item(name)
        return open_item(self.inner, self._opened_key(), name, sealed, offset, size)

    # -- changing

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        sealed, key = self._item(name), self._opened_key()
        bytes_due = None if size is None else file_size(size)
        writer = self.inner.open_writer(sealed, size=bytes_due, if_absent=if_absent)
        plan = Plan(name, size, if_absent, expected_hash)
        return EncryptWriter(writer, key, self._names, plan)

    def resume_writer(self, token: str) -> Writer:
        stopped = Stopped.of_token(token)
        key = self._opened_key()
        content = key.read(stopped.start)  # before the inner checkpoint is spent
        pending = stopped.opened(key)
        writer = self.inner.resume_writer(stopped.inner)
        return EncryptWriter.resume(writer, key, self._names, stopped, content, pending)

    def abort_writer(self, token: str) -> None:
        self._opened_key()
        self.inner.abort_writer(Stopped.of_token(token).inner)

    def delete(self, name: str) -> None:
        self.inner.delete(self._item(name))

    def delete_sized(self, name: str) -> int:
        return plain_size(self.inner.delete_sized(self._item(name))) or 0

    def move(self, name: str, new_name: str) -> None:
        self.inner.move(self._item(name), self._item(new_name))

    def move_if_absent(self, name: str, new_name: str) -> None:
        self.inner.move_if_absent(self._item(name), self._item(new_name))

    def copy(self, name: str, new_name: str) -> None:
        if self.inner.capabilities.copy:
            self.inner.copy(self._item(name), self._item(new_name))
        else:
            super().copy(name, new_name)

    def sync(self, name: str) -> None:
        self.inner.sync(self._item(name))

    def quarantine(self, name: str) -> str:
        return self.inner.quarantine(self._item(name))


def _plain(info: ItemInfo, name: str) -> ItemInfo:
    """Return what an item is in plain; one that is damaged so that it has no size has 0."""
    size = info.size
    if info.exists and not info.directory:
        size = plain_size(info.size) or 0
    return info._replace(name=name, size=size)
