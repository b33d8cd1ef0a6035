"""Borg 2, the real one: through our server of borgstore's protocol, and on our kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.borg import BorgServer
from tests.servers.borg2 import Borg2, Borg2Failed
from tests.servers.rest_server import htpasswd_line

pytestmark = pytest.mark.peers(peers.BORG2)


@contextmanager
def over_http(tmp_path: Path) -> Iterator[Borg2]:
    users = tmp_path / "users"
    users.write_text(htpasswd_line("alice", "secret"))
    with BorgServer(tmp_path / "store", "--htpasswd-file", str(users)) as server:
        yield Borg2(tmp_path / "home", f"http://alice:secret@127.0.0.1:{server.port}/")


@contextmanager
def over_http_on_kernel(tmp_path: Path) -> Iterator[Borg2]:
    with BorgServer(tmp_path / "store") as server:
        yield Borg2(tmp_path / "home", server.url, on_kernel=True)


@contextmanager
def on_kernel(tmp_path: Path) -> Iterator[Borg2]:
    yield Borg2(tmp_path / "home", str(tmp_path / "store"), on_kernel=True)


Way = Callable[[Path], AbstractContextManager[Borg2]]


@pytest.mark.parametrize(
    "way", [over_http, on_kernel, pytest.param(over_http_on_kernel, marks=pytest.mark.soak)]
)
def test_the_whole_life_of_a_repository(tmp_path: Path, way: Way, small_tree: Path) -> None:
    with way(tmp_path) as borg:
        borg.run("repo-create", "--encryption", "aes256-ocb")
        borg.run("create", "first", ".", directory=small_tree)
        before = tree.describe(small_tree)
        (small_tree / "later").write_bytes(b"more" * 100_000)
        borg.run("create", "second", ".", directory=small_tree)
        after = tree.describe(small_tree)
        borg.run("check", "--verify-data")
        for name, expected in (("first", before), ("second", after)):
            out = tmp_path / name
            out.mkdir()
            borg.run("extract", name, directory=out)
            assert tree.differences(expected, tree.describe(out)) == []
        borg.run("delete", "first")
        borg.run("compact")
        borg.run("check", "--verify-data")
        listed = borg.run("repo-list", "--format", "{archive}{NL}")
        assert listed.split() == ["second"]
        borg.run("repo-delete")
        assert not list((tmp_path / "store").glob("packs/*"))


@pytest.mark.soak
def test_a_repository_moves_between_borgstore_and_the_kernel(
    tmp_path: Path, small_tree: Path
) -> None:
    """What Borg wrote by itself our kernel reads, and the other way round."""
    own = Borg2(tmp_path / "home", str(tmp_path / "store"))
    ours = Borg2(tmp_path / "home2", str(tmp_path / "store"), on_kernel=True)
    own.run("repo-create", "--encryption", "authenticated-sha256")
    own.run("create", "first", ".", directory=small_tree)
    ours.run("check", "--verify-data")
    ours.run("create", "second", ".", directory=small_tree)
    own.run("check", "--verify-data")
    with BorgServer(tmp_path / "store") as server:
        remote = Borg2(tmp_path / "home3", server.url)
        out = tmp_path / "out"
        out.mkdir()
        remote.run("extract", "second", directory=out)
        assert tree.differences(tree.describe(small_tree), tree.describe(out)) == []


@pytest.mark.soak
def test_a_client_that_may_not_delete_cannot(tmp_path: Path, small_tree: Path) -> None:
    with BorgServer(tmp_path / "store") as server:
        borg = Borg2(tmp_path / "home", server.url)
        borg.run("repo-create", "--encryption", "authenticated-sha256")
        borg.run("create", "first", ".", directory=small_tree)
    with BorgServer(tmp_path / "store", "--permissions", "borgbackup-no-delete") as server:
        borg = Borg2(tmp_path / "home", server.url)
        borg.run("create", "second", ".", directory=small_tree)
        with pytest.raises(Borg2Failed, match=r"(?i)permission"):
            borg.run("delete", "first")
        with pytest.raises(Borg2Failed):
            borg.run("repo-delete")
    with BorgServer(tmp_path / "store") as server:
        borg = Borg2(tmp_path / "home", server.url)
        listed = borg.run("repo-list", "--format", "{archive}{NL}")
        assert sorted(listed.split()) == ["first", "second"]
        borg.run("check", "--verify-data")
