"""Which paths name something: the table of rest-server 0.14, one row a test."""

from __future__ import annotations

import pytest

from backupgw.restserver import paths
from backupgw.restserver.paths import Kind, parse

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "kind", "repo", "kind_of_object", "name"),
    [
        ("/", Kind.REPOSITORY, "", "", ""),
        ("/a/", Kind.REPOSITORY, "a", "", "a"),
        ("/a/b/", Kind.REPOSITORY, "a/b", "", "a/b"),
        ("/config", Kind.CONFIG, "", "config", "config"),
        ("/a/b/config", Kind.CONFIG, "a/b", "config", "a/b/config"),
        ("/data/", Kind.LISTING, "", "data", "data"),
        ("/a/locks/", Kind.LISTING, "a", "locks", "a/locks"),
        (f"/a/data/{ID}", Kind.OBJECT, "a", "data", f"a/data/01/{ID}"),
        (f"/a/b/keys/{ID}", Kind.OBJECT, "a/b", "keys", f"a/b/keys/{ID}"),
        (f"/a%2Fb/keys/{ID}", Kind.OBJECT, "a/b", "keys", f"a/b/keys/{ID}"),
        ("/%C3%A4 b/config", Kind.CONFIG, "ä b", "config", "ä b/config"),
        ("/a%252Fb/config", Kind.CONFIG, "a%2Fb", "config", "a%2Fb/config"),
    ],
)
def test_a_path_of_the_grammar(
    path: str, kind: Kind, repo: str, kind_of_object: str, name: str
) -> None:
    target = parse(path.encode())
    assert target is not None
    assert (target.kind, target.repo, target.type, target.name) == (
        kind,
        repo,
        kind_of_object,
        name,
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a/config",
        "//",
        "//config",
        "/a//config",
        "/./config",
        "/../config",
        "/a/../config",
        "/a/%2e%2e/config",
        "/a/..%2Fconfig",
        "/a/b/c/",
        "/a/b/c/config",
        "/config/",
        "/config/x",
        "/a/config/b/",
        "/data",
        "/a/data",
        f"/data/{ID}/",
        f"/data/{ID.upper()}",
        f"/data/{ID[:-1]}",
        f"/data/{ID}0",
        f"/data/{ID}%0a",
        f"/data/01/{ID}",
        "/data/..",
        "/data/%2e%2e",
        "/data/config",
        "/locks/data/",
        "/a%00b/config",
        "/%ff/config",
        "/.backupgw-quarantine/config",
        "/.backupgw/",
        "/a/.backupgw-tmp-1/config",
        "/a",
        "/a/b",
    ],
)
def test_whatever_else_is_nothing(path: str) -> None:
    assert parse(path.encode()) is None


@pytest.mark.parametrize("path", [b"/%", b"/%2", b"/a%zz/config", b"/%%32/config"])
def test_broken_encoding_is_said_to_be_broken(path: bytes) -> None:
    with pytest.raises(paths.MalformedPath):
        parse(path)


def test_owner_is_the_first_segment() -> None:
    target = parse(b"/alice/work/config")
    assert target is not None
    assert target.owner == "alice"
    root = parse(b"/config")
    assert root is not None
    assert root.owner == ""
