"""borgstore's permission letters, in front of any place.

A mapping of names to letters; the letters of a name hold for all beneath it too, until a longer
name in the mapping says otherwise. The empty name is the root. A name for which nothing is said up
to the root may not be touched at all.

    l list    r read    w write what is new    W write, replacing too    D delete

    operation                           needs
    create                              w or W at the root
    destroy                             D at the root
    mkdir                               w
    rmdir                               w or D
    list                                l
    info                                l or r
    open_reader, load, hash, gather     r
    open_writer, store, resume          w or W; with w alone nothing is replaced
    delete                              D
    move                                D at the source, w or W at the target (W to replace)
    copy, defrag                        r at the sources, w or W at the target (W to replace)
    sync                                any letter but D: whoever promises an item may ask for it
    quarantine                          w, W or D: it loses nothing, and makes room for a repair
    quota, reap                         nothing: they are the operator's

The table down to `move` is borgstore 0.7's (its README, "posixfs"). There a writer with w alone is
refused before it sends; here the refusal comes with `commit`, which decides it atomically where
the place does (`capabilities.atomic_create`), as `move_if_absent` does for a move with w alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from ..backends.base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from ..backends.errors import ObjectExists, PermissionDenied
from ..names import InvalidName, check_folder, check_path
from .base import Layer, changed
from .options import OptionInvalid
from .wrapped import WrappedWriter

LETTERS = "lrwWD"

PRESETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "borgbackup-all": {"": LETTERS},
        "borgbackup-no-delete": {
            "": "lr",
            "archives": "lrw",
            "cache": "lrwWD",
            "config": "lrW",
            "data": "lrw",
            "index": "lrwWD",
            "keys": "lr",
            "locks": "lrwD",
            "packs": "lrw",
        },
        "borgbackup-write-only": {
            "": "l",
            "archives": "lw",
            "cache": "lrwWD",
            "config": "lrW",
            "data": "lw",
            "index": "lrwWD",
            "keys": "lr",
            "locks": "lrwD",
            "packs": "lw",
        },
        "borgbackup-read-only": {"": "lr", "locks": "lrwD"},
    }
)
"""borgstore 0.7's presets for Borg 2. What Borg needs to replace or delete (caches, indexes, the
manifest, locks) it may, in every one of them but the last. `packs` and `index` are the namespaces
that Borg 2.0.0b25 uses where earlier betas had `data` and `cache`; borgstore's own presets do not
name them yet, so that such a Borg could not write at all."""


def from_options(
    inner: Backend, *, rules: object = None, preset: object = None
) -> PermissionsLayer:
    """`rules`: letters by name, `{ "" = "lr", "data" = "lrw" }`; or `preset`: one of PRESETS."""
    if (rules is None) == (preset is None):
        option = "rules" if rules is None else "preset"
        raise OptionInvalid(option, 'give either rules = { "" = "lr" } or preset = "…"')
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise OptionInvalid("preset", f"{preset!r} is none of {', '.join(PRESETS)}")
        return PermissionsLayer(inner, PRESETS[preset])
    if not isinstance(rules, Mapping):
        raise OptionInvalid("rules", f'must be a table such as {{ "" = "lr" }}, not {rules!r}')
    try:
        return PermissionsLayer(inner, rules)
    except ValueError as error:
        raise OptionInvalid("rules", str(error)) from None


class PermissionsLayer(Layer):
    """A place in which names have permissions.

    Args:
        rules: letters by name.

    Raises:
        ValueError: a name is none, or its letters are others than LETTERS.
    """

    def __init__(self, inner: Backend, rules: Mapping[str, str]) -> None:
        super().__init__(inner)
        self._rules = _checked(rules)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        return changed(self.inner.capabilities, local_path=False, snapshots=False)

    def granted(self, name: str) -> str:
        """Return the letters that hold for a name."""
        while True:
            letters = self._rules.get(name)
            if letters is not None:
                return letters
            if not name:
                return ""
            name = name.rpartition("/")[0]

    def _need(self, operation: str, letters: str, name: str) -> str:
        """Return the letters that hold for `name`, if one of `letters` is among them."""
        granted = self.granted(name)
        if not any(letter in granted for letter in letters):
            needs = " or ".join(letters)
            raise PermissionDenied(f"{operation} needs permission {needs} for {name!r}")
        return granted

    # -- the place itself

    def create(self) -> None:
        self._need("create", "wW", "")
        self.inner.create()

    def destroy(self) -> None:
        self._need("destroy", "D", "")
        self.inner.destroy()

    def quota(self) -> Quota:
        return self.inner.quota()

    # -- folders

    def mkdir(self, name: str) -> None:
        self._need("mkdir", "w", check_folder(name))
        self.inner.mkdir(name)

    def mkdirs(self, names: Iterable[str]) -> None:
        self.inner.mkdirs(self._makeable(names))

    def _makeable(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            self._need("mkdir", "w", check_folder(name))
            yield name

    def rmdir(self, name: str) -> None:
        self._need("rmdir", "wD", check_path(name))
        self.inner.rmdir(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        self._need("list", "l", check_folder(name))
        return self.inner.list(name)

    # -- reading

    def info(self, name: str) -> ItemInfo:
        self._need("info", "lr", check_folder(name))
        return self.inner.info(name)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        self._need("read", "r", check_path(name))
        return self.inner.open_reader(name, offset=offset, size=size)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        self._need("read", "r", check_path(name))
        return self.inner.open_reader_nowait(name, offset=offset, size=size)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        self._need("hash", "r", check_path(name))
        return self.inner.hash(name, algorithm)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        return self.inner.gather(self._readable(sources))

    def _readable(self, sources: Iterable[tuple[str, int, int]]) -> Sequence[tuple[str, int, int]]:
        """Return the sources, all of them checked before any is read."""
        checked = [*sources]
        for name in {source[0] for source in checked}:
            self._need("read", "r", check_path(name))
        return checked

    # -- writing

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        only_new = "W" not in self._need("write", "wW", check_path(name))
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent or only_new, expected_hash=expected_hash
        )
        return PermittedWriter(writer, name, only_new=only_new, if_absent=if_absent)

    def store_nowait(
        self,
        name: str,
        value: bytes,
        *,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> bool:
        only_new = "W" not in self._need("write", "wW", check_path(name))
        try:
            return self.inner.store_nowait(
                name, value, if_absent=if_absent or only_new, expected_hash=expected_hash
            )
        except ObjectExists as error:
            if if_absent:
                raise
            raise _not_over(name) from error

    def resume_writer(self, token: str) -> Writer:
        name, only_new, if_absent, inner = _read_token(token)
        granted = self._need("write", "wW", name)
        if not only_new and not if_absent and "W" not in granted:
            # The inner write would replace: it was begun when that was allowed.
            raise PermissionDenied(f"the write of {name!r} was begun with permission W; begin anew")
        writer = self.inner.resume_writer(inner)
        return PermittedWriter(writer, name, only_new=only_new, if_absent=if_absent)

    def abort_writer(self, token: str) -> None:
        name, _, _, inner = _read_token(token)
        self._need("write", "wW", name)
        self.inner.abort_writer(inner)

    def keep_writer(self, token: str) -> None:
        name, _, _, inner = _read_token(token)
        self._need("write", "wW", name)
        self.inner.keep_writer(inner)

    def reserve_writer(
        self, name: str, *, size: int, if_absent: bool = False, seconds: float | None = None
    ) -> str:
        only_new = "W" not in self._need("write", "wW", check_path(name))
        token = self.inner.reserve_writer(
            name, size=size, if_absent=if_absent or only_new, seconds=seconds
        )
        return _token(name, only_new, if_absent, token)

    def copy(self, name: str, new_name: str) -> None:
        self._need("read", "r", check_path(name))
        if "W" in self._need("write", "wW", check_path(new_name)):
            self.inner.copy(name, new_name)
        else:
            super().copy(name, new_name)  # by a writer, which replaces nothing

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        readable = self._readable(sources)
        if "W" in self._need("write", "wW", check_path(target)):
            self.inner.defrag(readable, target)
        else:
            super().defrag(readable, target)

    # -- removing and renaming

    def delete(self, name: str) -> None:
        self._need("delete", "D", check_path(name))
        self.inner.delete(name)

    def delete_sized(self, name: str) -> int:
        self._need("delete", "D", check_path(name))
        return self.inner.delete_sized(name)

    def move(self, name: str, new_name: str) -> None:
        self._need("move", "D", check_path(name))
        if "W" in self._need("move", "wW", check_path(new_name)) or name == new_name:
            self.inner.move(name, new_name)
            return
        try:
            self.inner.move_if_absent(name, new_name)
        except ObjectExists as error:
            raise PermissionDenied(f"move needs permission W to replace {new_name!r}") from error

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._need("move", "D", check_path(name))
        self._need("move", "wW", check_path(new_name))
        self.inner.move_if_absent(name, new_name)

    def sync(self, name: str) -> None:
        self._need("sync", "lrwW", check_path(name))
        self.inner.sync(name)

    def quarantine(self, name: str) -> str:
        self._need("setting aside", "wWD", check_path(name))
        return self.inner.quarantine(name)


class PermittedWriter(WrappedWriter):
    """A writer that may only create, told as what it is: a permission that is missing.

    Args:
        only_new: the permission is w alone.
        if_absent: the caller asked not to replace, and is answered with ObjectExists.
    """

    def __init__(self, writer: Writer, name: str, *, only_new: bool, if_absent: bool) -> None:
        super().__init__(writer)
        self._name = name
        self._only_new = only_new
        self._if_absent = if_absent

    def commit(self) -> None:
        try:
            self._writer.commit()
        except ObjectExists as error:
            if self._if_absent:
                raise
            raise _not_over(self._name) from error

    def commit_over(self, kept: str) -> None:
        if self._only_new or self._if_absent:
            super().commit_over(kept)  # nothing is to be replaced: commit tells
        self._writer.commit_over(kept)

    def checkpoint(self) -> str:
        return _token(self._name, self._only_new, self._if_absent, self._writer.checkpoint())


def _not_over(name: str) -> PermissionDenied:
    return PermissionDenied(f"write needs permission W to replace {name!r}")


def _token(name: str, only_new: bool, if_absent: bool, inner: str) -> str:
    return json.dumps([name, only_new, if_absent, inner])


def _read_token(token: str) -> tuple[str, bool, bool, str]:
    """Return name, only_new, if_absent and the inner token; ValueError for what is no token."""
    match json.loads(token):
        case [str(name), bool(only_new), bool(if_absent), str(inner)]:
            return check_path(name), only_new, if_absent, inner
    raise ValueError("not a token of a checkpoint")


def _checked(rules: Mapping[str, object]) -> dict[str, str]:
    checked = {}
    for name, letters in rules.items():
        try:
            check_folder(name)
        except (InvalidName, TypeError) as error:
            raise ValueError(f"no name can be {name!r}: {error}") from None
        if not isinstance(letters, str) or set(letters) - set(LETTERS):
            raise ValueError(
                f"{name!r} has the letters {letters!r}; there are l list, r read, w write new, "
                "W replace, D delete"
            )
        checked[name] = letters
    return checked
