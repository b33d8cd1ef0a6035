"""A place behind rclone in which nothing is: it is there where a bucket or a folder stands for it,
and elsewhere is not, whatever remotes lie between."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.kvstore.rclone_places import obscured, place
from tests.servers import peers

from backupgw.kvstore.backends import rclone_process
from backupgw.kvstore.backends.errors import BackendAlreadyExists, BackendDoesNotExist
from backupgw.kvstore.backends.rclone import Rclone, from_url
from backupgw.kvstore.backends.rclone_calls import Calls
from backupgw.kvstore.backends.rclone_remote import parse

pytestmark = pytest.mark.peers(peers.RCLONE)


@pytest.fixture
def bucket() -> Iterator[str]:
    """A bucket of rclone's remote in memory, with nothing in it."""
    name = f"bucket-{secrets.token_hex(6)}"
    url = f":memory:{name}"
    process = rclone_process.shared(str(peers.get(peers.RCLONE).path), "/dev/null")
    calls = Calls(process, parse(f"rclone:{url}", {}))
    calls.ask("operations/mkdir", "", calls.at(""))
    yield name
    calls.ask("operations/purge", "", calls.at(""))


class At(NamedTuple):
    """A path of rclone's remote in memory, in the ways in which it can be named."""

    one: str
    above: str
    last: str
    other: str
    """Something else, which does not exist."""


@cache
def sealed() -> dict[str, Any]:
    return {"password": obscured("a password")}


PLAIN: dict[str, Any] = {"filename_encryption": "off", "directory_name_encryption": False}
ANYWHERE: dict[str, Any] = {"create_policy": "ff"}  # else a union looks for the parent

KINDS: dict[str, Callable[[At], Rclone]] = {
    "itself": lambda at: place(at.one),
    "alias": lambda at: place(":alias:", remote=at.one),
    "alias and path": lambda at: place(f":alias:{at.last}", remote=at.above),
    "crypt": lambda at: place(":crypt:", remote=at.one, **sealed()),
    "crypt and path": lambda at: place(f":crypt:{at.last}", remote=at.above, **sealed(), **PLAIN),
    "chunker": lambda at: place(":chunker:", remote=at.one),
    "chunker and path": lambda at: place(f":chunker:{at.last}", remote=at.above),
    "compress": lambda at: place(":compress:", remote=at.one),
    "hasher": lambda at: place(":hasher:", remote=at.one),
    "union": lambda at: place(":union:", upstreams=f'"{at.other}:ro" "{at.one}"', **ANYWHERE),
    "union and path": lambda at: place(
        f":union:{at.last}", upstreams=f"{at.other}:nc {at.above}", **ANYWHERE
    ),
    "combine": lambda at: place(":combine:a", upstreams=f'b={at.other} "a={at.one}"'),
    "combine and path": lambda at: place(
        f":combine:a/{at.last}", upstreams=f"a={at.above} b={at.other}"
    ),
    "crypt of alias of union": lambda at: place(
        ":crypt:",
        remote=f""":alias,remote=':union,create_policy=ff,upstreams="{at.one} {at.other}":':""",
        **sealed(),
    ),
}


def made(kind: str, path: str) -> Rclone:
    """Return a place that ends at a path of rclone's remote in memory."""
    above, _, last = path.rpartition("/")
    other = f":memory:{secrets.token_hex(6)}/deep"
    return KINDS[kind](At(f":memory:{path}", f":memory:{above}", last, other))


def there(backend: Rclone) -> bool:
    try:
        with backend:
            assert list(backend.list("")) == []
    except BackendDoesNotExist:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_bucket_is_there_and_a_folder_in_it_is_not(kind: str, bucket: str) -> None:
    assert there(made(kind, bucket))
    assert not there(made(kind, f"{bucket}/folder"))
    assert not there(made(kind, f"{bucket}/folder/deeper"))
    assert not there(made(kind, f"missing-{bucket}"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_made_is_there_until_it_is_destroyed(kind: str, bucket: str) -> None:
    folder, deeper = made(kind, f"{bucket}/folder"), made(kind, f"{bucket}/folder/deeper")
    for backend in (folder, deeper):
        if not there(backend):
            backend.create()
    with folder, deeper:
        folder.store("item", b"value")
        deeper.store("item", b"value")
    deeper.destroy()
    assert not there(deeper)
    with folder:
        assert folder.load("item") == b"value"
    folder.destroy()
    assert not there(folder)
    with pytest.raises(BackendDoesNotExist):
        folder.destroy()
    folder.create()
    assert there(folder)
    with pytest.raises(BackendAlreadyExists):
        folder.create()


def test_a_union_that_makes_nothing_there_says_so(bucket: str) -> None:
    union = place(":union:", upstreams=f":memory:{bucket}/folder :memory:{bucket}/other")
    with pytest.raises(BackendDoesNotExist, match="create_policy"):
        union.create()


def test_remotes_are_looked_up_where_rclone_has_them_from(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "rclone.conf"
    settings.write_text(
        "[mem]\ntype = memory\n"
        "[short]\ntype = alias\nremote = sealed:deep\n"
        f"[sealed]\ntype = crypt\nremote = mem:nowhere/x\npassword = {obscured('a password')}\n"
        f'[team]\ntype = combine\nupstreams = a=mem:{bucket} "b=mem:{bucket}/b b"\n'
    )
    monkeypatch.setenv("RCLONE_CONFIG_SEALED_REMOTE", f"mem:{bucket}")
    monkeypatch.setenv("RCLONE_CONFIG_OTHER-ONE_TYPE", "chunker")
    monkeypatch.setenv("RCLONE_CHUNKER_REMOTE", f"mem:{bucket}")
    program = str(peers.get(peers.RCLONE).path)
    places = [from_url(f"rclone:{url}", binary=program, config=str(settings)) for url in (
        "sealed:", "other-one:", "team:a", "short:", "other-one:x", "team:b", "team:a/x", "team:c",
    )]  # fmt: skip
    process = rclone_process.shared(program, str(settings))
    calls = Calls(process, parse(f"rclone:mem:{bucket}", {}))
    try:
        calls.ask("operations/mkdir", "", calls.at(""))
        assert [there(backend) for backend in places] == [True] * 3 + [False] * 5
    finally:
        process.stop()


@pytest.mark.parametrize("kind", ["hasher", "chunker", "crypt"])
def test_an_empty_folder_of_a_disk_is_there(kind: str, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    password: dict[str, Any] = sealed() if kind == "crypt" else {}
    for folder, found in (("place", True), ("missing", False)):
        assert there(place(f":{kind}:", remote=str(tmp_path / folder), **password)) is found
